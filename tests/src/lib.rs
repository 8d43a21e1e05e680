//! What no single crate can show: many devices, a server, and everything between them going wrong.
//!
//! | module | owns |
//! |---|---|
//! | [`chance`] | seeded choices: a failure prints its seed, and the seed repeats it |
//! | [`packages`] | small packages over the fixture models, approved |
//! | [`simulator`] | devices that run the real update machine in simulated time, over a link that loses, repeats and reorders, with power cuts between any two actions |
//! | [`small_disk`] | a real disk that can be filled |
//!
//! Fixtures that several crates read lie in `fixtures/`, with their source and licence.

pub mod chance;
pub mod packages;
pub mod simulator;
pub mod small_disk;
