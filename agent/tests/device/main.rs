//! The agent as a whole: real processes, real TLS, real workers; the server is a small double.

mod enrolment;
mod model;
mod people;
mod server;
