//! Registry, approvals, planner loop, ingest, REST API.
fn main() {}
