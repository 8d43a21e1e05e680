//! What crosses between a parent and its worker: tensors, messages, frames, and the limits on the
//! worker's command line.
//!
//! - [`Tensor`]: what applications hand over and get back.
//! - [`message`]: requests, responses, and why a model is refused.
//! - [`frame`]: how they become bytes. Neither side trusts the other's lengths.
//! - [`Arena`]: memory that both share, for large frames.
//! - [`limits`]: what a worker may use.
//!
//! It starts no process, opens no file by name and knows no inference engine: parent and engine meet here,
//! and neither has to link the other.

mod arena;
pub mod frame;
pub mod limits;
pub mod message;
mod tensor;

pub use arena::{ARENA_BYTES, Arena};
pub use frame::{
    FRAME_BYTES_MAX, FrameDecoder, FrameError, HEADER_BYTES_MAX, RANK_MAX, TENSORS_MAX, TensorHead,
    announce, decode, encode, heads, join,
};
pub use message::{
    MESSAGE_BYTES_MAX, ModelPorts, PortShape, Refusal, Request, Response, StateShape,
    bounded_message,
};
pub use tensor::{Element, Tensor, byte_length};
