//! Tables and properties of the planner, its checker and the watch.

extern crate std;

mod bench;
mod programs;
mod properties;
mod scores;
mod stages;
mod verdicts;
