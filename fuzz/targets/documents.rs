//! Any bytes as each signed document: trust root chain, approval, revocation list.
#![no_main]

use bellwether_package::{Approval, RootChain, RootDocument, chain, revocations::RevocationList};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = RootChain::verify_from_first(bytes);
    let _ = chain::peek(bytes);
    // What was understood can be said again, and is understood the same.
    if let Ok(document) = RootDocument::decode(bytes) {
        let again = document.encode().expect("was decoded");
        assert_eq!(RootDocument::decode(&again), Ok(document));
    }
    if let Ok(document) = Approval::decode(bytes) {
        let again = document.encode().expect("was decoded");
        assert_eq!(Approval::decode(&again), Ok(document));
    }
    if let Ok(document) = RevocationList::decode(bytes) {
        let again = document.encode().expect("was decoded");
        assert_eq!(RevocationList::decode(&again), Ok(document));
    }
});
