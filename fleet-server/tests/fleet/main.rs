//! The real binary with its real broker and database: one binary of tests, because linking them
//! apart takes longer than running them.

mod support;

mod certificates;
mod content;
mod enrolment;
mod full_disk;
mod ingest;
mod isolation;
mod operation;
mod programs;
mod rollout;
