//! Any bytes as a model: looked over, and parsed if nothing was found.
//!
//! What the survey lets through must neither panic the parser nor the checks behind it, nor take
//! more memory than the fuzzer allows.
#![no_main]

use bellwether_engine::{inspect, survey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if survey(bytes).is_ok() {
        let _ = inspect(bytes);
    }
});
