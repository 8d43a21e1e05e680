//! The device: link, outbox, download, slots, local API.
fn main() {}
