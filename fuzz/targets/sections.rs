//! Any bytes as each section. Behind a digest no mutation of a package file gets this far.
#![no_main]

use bellwether_package::sections::{
    Activation, Baseline, Budget, Card, Contract, Golden, MicroInfo, OnnxInfo, ProgramInfo,
    Provenance,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Contract::decode(bytes);
    let _ = Baseline::decode(bytes);
    let _ = Golden::decode(bytes);
    let _ = Budget::decode(bytes);
    let _ = Card::decode(bytes);
    let _ = Provenance::decode(bytes);
    let _ = Activation::decode(bytes);
    let _ = OnnxInfo::decode(bytes);
    let _ = MicroInfo::decode(bytes);
    let _ = ProgramInfo::decode(bytes);
});
