//! Packages for tests, read and sealed.

// Shared by several test programs, each of which uses a part.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    missing_docs,
    clippy::unwrap_used
)]

use bellwether_package::{IntactPackage, VerifiedPackage, read};
use bellwether_runtime::{BlobSealer, Options, SealedBlob, Tensor};
pub use bellwether_tests::packages::*;

pub const WORKER: &str = env!("CARGO_BIN_EXE_bellwether-worker");

pub fn options() -> Options {
    Options::new(WORKER)
}

pub trait Opened {
    fn intact(&self) -> (IntactPackage, SealedBlob);
    fn verified(&self) -> (VerifiedPackage, SealedBlob);
}

impl Opened for Parts {
    fn intact(&self) -> (IntactPackage, SealedBlob) {
        let mut sealer = BlobSealer::new().unwrap();
        let package = read(&self.packed()[..], &mut sealer).unwrap();
        (package, sealer.seal().unwrap())
    }

    fn verified(&self) -> (VerifiedPackage, SealedBlob) {
        let (package, blob) = self.intact();
        (approved(package), blob)
    }
}

pub fn readings(rows: &[[f32; 3]]) -> Tensor {
    Tensor::from_f32("readings", &[rows.len() as u32, 3], &rows.concat())
}
