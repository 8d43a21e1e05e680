//! Any bytes as a package file: refused or intact, never a panic, never more memory than the bytes justify.
#![no_main]

use bellwether_package::read::{MemoryBlobs, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = read(bytes, &mut MemoryBlobs::default());
});
