//! Any bytes between the worker and its parent, in any pieces.
#![no_main]

use bellwether_runtime::wire::{self, FrameDecoder, Request, Response};
use libfuzzer_sys::fuzz_target;

const FRAME_BYTES_MAX: usize = 1 << 20;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let mut decoder = FrameDecoder::default();
    for part in bytes.chunks(usize::from(piece).max(1)) {
        if decoder.feed(part, FRAME_BYTES_MAX).is_err() {
            return;
        }
    }
    let Some(frame) = decoder.frame() else { return };
    let _ = wire::decode::<Request>(frame);
    let _ = wire::decode::<Response>(frame);
    if let Ok((heads, body)) = wire::decode(frame) {
        let _ = wire::join(heads, body);
    }
});
