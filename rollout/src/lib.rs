//! Every decision: what a device does with an assignment, and what a rollout does next.
//!
//! | module | owns |
//! |---|---|
//! | [`device`] | the update machine of one slot: `step(state, event, now)` |
//! | `fleet` | stages, arms, verdicts: `plan(policy, rollout, snapshot, now)`, its independent `check`, and the standing `watch` (feature `alloc`) |
//!
//! Nothing here reads a clock, a socket, a disk or a random number: time comes in as an argument,
//! draws come from the rollout's id. The shells (agent, fleet server, microcontroller, simulator)
//! perform what is decided here, so all of them decide alike.
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod device;
#[cfg(feature = "alloc")]
pub mod fleet;
