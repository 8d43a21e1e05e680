//! The agent as a whole: real processes, real TLS, real workers; the server is a small double.

mod bench;
mod downloads;
mod enrolment;
mod killed;
mod model;
mod package;
mod people;
mod server;
mod serving;
