//! Any payload and any topic that a broker may deliver.
#![no_main]

use bellwether_protocol::{Ack, Assignment, Bundle, Report, Topic, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode::<Report>(bytes);
    let _ = Bundle::open(bytes);
    let _ = decode::<Ack>(bytes);
    let _ = decode::<Assignment>(bytes);
    if let Ok(text) = core::str::from_utf8(bytes)
        && let Ok(topic) = Topic::parse(text)
    {
        assert_eq!(topic.name(), text);
    }
});
