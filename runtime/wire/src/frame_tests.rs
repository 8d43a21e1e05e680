use bellwether_package::sections::DType;
use proptest::prelude::*;

use super::*;
use crate::{limits::Confinement, message::*};

fn tensor(shape: &[u32], values: &[f32]) -> Tensor {
    Tensor::from_f32("x", shape, values)
}

fn framed(header: &impl Serialize, tensors: &[Tensor]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(header, tensors, &mut out).unwrap();
    out
}

fn loaded() -> Response {
    Response::Loaded {
        confinement: Confinement::WHOLE,
    }
}

#[test]
fn tensors_come_back_as_they_went() {
    let sent = [tensor(&[2, 1], &[1.0, f32::NAN]), tensor(&[], &[2.0])];
    let bytes = framed(
        &Response::Ran {
            tensors: heads(&sent),
        },
        &sent,
    );
    let mut decoder = FrameDecoder::default();
    for byte in &bytes {
        assert_eq!(decoder.frame(), None);
        decoder
            .feed(std::slice::from_ref(byte), FRAME_BYTES_MAX)
            .unwrap();
    }
    let (response, body) = decode(decoder.frame().unwrap()).unwrap();
    let Response::Ran { tensors } = response else {
        panic!("{response:?}");
    };
    assert_eq!(join(tensors, body).unwrap(), sent);
}

#[test]
fn an_announced_length_beyond_the_bound_is_refused_before_anything_is_kept() {
    let mut decoder = FrameDecoder::default();
    let error = decoder.feed(&u32::MAX.to_le_bytes(), 100).unwrap_err();
    assert!(matches!(error, FrameError::TooLong { bytes_max: 100, .. }));
}

#[test]
fn bytes_beyond_the_frame_are_refused() {
    let mut bytes = framed(&loaded(), &[]);
    bytes.push(0);
    let error = FrameDecoder::default().feed(&bytes, FRAME_BYTES_MAX);
    assert_eq!(error, Err(FrameError::Trailing));
}

#[test]
fn a_shape_that_overflows_is_refused() {
    let head = |shape: Vec<u32>| TensorHead {
        name: String::new(),
        dtype: DType::F64,
        shape,
    };
    assert_eq!(
        join(vec![head(vec![u32::MAX; 3])], &[]),
        Err(FrameError::Shape(0))
    );
    assert_eq!(
        join(vec![head(vec![1; 9])], &[0; 8]),
        Err(FrameError::Shape(0))
    );
    assert_eq!(
        join(vec![head(vec![2])], &[0; 8]),
        Err(FrameError::BodyLength {
            found: 8,
            expected: 16
        })
    );
    // A dimension of zero makes an empty tensor, whatever the others are.
    assert!(join(vec![head(vec![0])], &[]).is_ok());
}

#[test]
fn messages_are_bounded_at_a_character_and_hold_no_control_characters() {
    let message = bounded_message(&"é\u{1b}".repeat(MESSAGE_BYTES_MAX));
    assert!(message.len() <= MESSAGE_BYTES_MAX + '…'.len_utf8());
    assert!(!message.contains('\u{1b}'));
    assert!(message.ends_with('…'));
}

#[test]
fn a_large_frame_goes_through_the_arena_and_a_small_one_does_not() {
    let arena = Arena::new().unwrap();
    let large = [tensor(&[32768], &[1.5; 32768])];
    let small = [tensor(&[2], &[1.0, 2.0])];
    let mut decoder = FrameDecoder::default();
    for (sent, inline) in [(&large, false), (&small, true), (&large, false)] {
        let tensors = heads(sent);
        let bytes = framed(&Response::Ran { tensors }, sent);
        let mut length = [0; 4];
        let announced = announce(&bytes, &arena, &mut length).unwrap();
        assert_eq!(announced.len() == bytes.len(), inline);
        decoder.clear();
        decoder.feed(announced, FRAME_BYTES_MAX).unwrap();
        decoder.fetch(&arena).unwrap();
        // Later changes are of no effect.
        arena.write(&[0xff; 4096]).unwrap();
        let (response, body) = decode(decoder.frame().unwrap()).unwrap();
        let Response::Ran { tensors } = response else {
            panic!("{response:?}");
        };
        assert_eq!(join(tensors, body).unwrap(), *sent);
    }
}

#[test]
fn a_frame_in_the_arena_is_bounded_and_followed_by_nothing() {
    let announced = |length: u32| (length | IN_ARENA).to_le_bytes();
    let mut decoder = FrameDecoder::default();
    let error = decoder.feed(&announced(101), 100).unwrap_err();
    assert!(matches!(error, FrameError::TooLong { bytes: 101, .. }));
    let mut decoder = FrameDecoder::default();
    decoder.feed(&announced(100), 100).unwrap();
    assert_eq!(decoder.frame(), None, "not before it was fetched");
    assert_eq!(decoder.feed(&[0], 100), Err(FrameError::Trailing));
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic_or_keep_more_than_they_are(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8),
        bytes_max in 0..256_usize,
    ) {
        let mut decoder = FrameDecoder::default();
        let mut fed = 0;
        for piece in &pieces {
            fed += piece.len();
            if decoder.feed(piece, bytes_max).is_err() {
                break;
            }
            prop_assert!(decoder.bytes.len() <= fed);
        }
        if let Some(frame) = decoder.frame() {
            prop_assert!(frame.len() <= bytes_max);
            if let Ok((Response::Ran { tensors }, body)) = decode(frame) {
                let _ = join(tensors, body);
            }
            let _ = decode::<Request>(frame);
        }
    }
}
