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
//! It knows no fleet, MQTT or rollout, and without its feature `engine` links no inference engine.
//!
//! # An application that embeds it
//!
//! Trust comes first: only a package that enough approvers signed becomes a [`Session`].
//!
//! ```no_run
//! use bellwether_package::{RevocationList, Revocations, TrustRoot, UnixSecs, Verifier, std_io};
//! use bellwether_runtime::{BlobSealer, Options, Session, Tensor};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (root_document, revocation_list) = (vec![], vec![]);
//! # let root_fingerprint = bellwether_package::Digest([0; 32]);
//! // The fingerprint is flashed with the device; root and revocations come from the server.
//! let root = TrustRoot::pinned(&root_document, &root_fingerprint)?;
//! let revocations = Revocations::verify(&revocation_list, &root)?;
//! let verifier = Verifier {
//!     root: &root,
//!     revocations: &revocations,
//!     slot: &"anomaly".parse()?,
//!     attributes: &[],
//!     now: Some(UnixSecs(1_800_000_000)),
//! };
//!
//! // The model's bytes are hashed while they are read, and sealed.
//! let mut sealer = BlobSealer::new()?;
//! let package = std_io::read(std::fs::File::open("anomaly.bwp")?, &mut sealer)?;
//! let package = verifier.verify_for_install(package)?;
//!
//! let options = Options::new("/usr/bin/bellwether-worker");
//! let mut session = Session::open(package, sealer.seal()?, options)?;
//! let readings = Tensor::from_f32("readings", &[1, 3], &[50.0, 21.0, 77.0]);
//! let run = session.run(&[readings])?;
//! if run.outputs_nonfinite == 0 {
//!     let scores = run.output("scores").ok_or("the contract has no scores")?;
//!     println!("{:?} in {:?}", scores.to_vec::<f32>(), run.latency);
//! }
//! // What was counted meanwhile: rows, bins, errors, latency, memory.
//! let window = session.take_window();
//! assert_eq!(window.rows, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # In process
//!
//! With the feature `engine`, `Options::in_process()` runs the same session without a worker: no
//! second process, some microseconds less, and no shield against the model. Nothing else changes.

pub mod backoff;
pub mod blob;
pub mod error;
mod host;
pub mod latency;
mod memory;
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
pub use options::{Host, Options};
pub use ports::{BATCH_MAX, Fault, model_ports};
pub use prove::{Mismatch, Proof, ProveError, Shortfall, prove, prove_intact};
pub use session::{AlsoCountError, Run, Session};
pub use window::Window;
pub use worker::{Death, find_worker};
