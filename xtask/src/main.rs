//! Automation: ci, demo, tidy.
fn main() {}
