//! Runs one verified package in a confined process: the parent's API.
//!
//! ```text
//! VerifiedPackage + SealedBlob ──▶ Session ──frames──▶ bellwether-worker (tract)
//!                                  checks, steps,      no files, no network,
//!                                  counts, deadline    little memory, short life
//! ```
//!
//! - [`Session`]: opens an approved package and runs it. Inputs are checked against the contract,
//!   raw inputs and outputs are counted by the signed baseline's bins, latency is recorded; all in
//!   this process, so that a dead worker loses nothing.
//! - [`prove()`], [`prove_intact`]: golden vectors, latency and memory. Only they may run a package
//!   that is not approved.
//! - [`SealedBlob`]: model bytes that were hashed and can no longer change.
//! - [`worker`], [`wire`], [`limits`]: the process and the conversation with it.
//!
//! A model may panic, abort, fault, hang or eat memory: each is a typed [`worker::Death`], and the
//! next run starts another worker, after a capped exponential backoff. This process stays up.
//!
//! It knows no fleet, MQTT or rollout, and links no inference engine.

pub mod backoff;
pub mod blob;
pub mod error;
pub mod latency;
mod options;
mod ports;
pub mod prove;
mod runner;
mod session;
mod subject;
mod window;
pub mod worker;

pub use bellwether_wire::{self as wire, Refusal, Tensor, limits};
pub use blob::{BlobSealer, SealedBlob};
pub use error::{InputError, OpenError, OutputError, RunError};
pub use latency::LatencyHistogram;
pub use options::Options;
pub use ports::{BATCH_MAX, Fault, model_ports};
pub use prove::{Mismatch, Proof, ProveError, Shortfall, prove, prove_intact};
pub use session::{AlsoCountError, Run, Session};
pub use window::Window;
pub use worker::{Death, find_worker};
