//! The agent as a whole: real processes, real TLS, real workers; the server is a small double.

// Support code beside the tests: a panic is how it reports, and counts are what they tell.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod bench;
mod beside;
mod broker;
mod clock;
mod downloads;
mod enrolment;
mod faults;
mod full_disk;
mod health;
mod installed;
mod measure;
mod messages;
mod model;
mod package;
mod people;
mod programs;
mod readings;
mod renewal;
mod server;
mod serving;
mod shadowing;
mod supervised;
mod tritonclient;
