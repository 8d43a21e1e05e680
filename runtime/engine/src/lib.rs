//! The only crate that links tract: reading, building and running ONNX models.
//!
//! - [`mod@survey`]: what is refused of a model's bytes before they are parsed.
//! - [`mod@inspect`]: what a model is made of, for `pack`; typed refusals.
//! - [`model`]: a model made ready for the ports of a contract, and run.
//! - [`confine`]: what a worker takes from itself before it reads a byte.
//! - [`threads`]: what a run may use beside the thread that asks for it.
//! - [`serve`]: the worker's side of the conversation.
//!
//! A malformed model can make the engine panic, abort or fault. Whatever serves such models does
//! it in the `bellwether-worker` process; only what a person packs on their own machine may be
//! inspected in process. It knows no package, approval, agent or fleet.

mod caught;
pub mod confine;
pub mod inspect;
pub mod model;
mod names;
mod operators;
pub mod serve;
pub mod survey;
pub mod threads;

pub use bellwether_wire::Refusal;
pub use caught::caught;
pub use inspect::{ModelFacts, PortFacts, inspect};
pub use survey::survey;
