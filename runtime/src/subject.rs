//! What this crate reads of a package, whether approved or merely intact.

use bellwether_package::{
    Digest, IntactPackage, Manifest, SectionKind, VerifiedPackage,
    sections::{Baseline, Budget, Contract, Golden},
};

use crate::{blob::SealedBlob, error::OpenError};

/// The parts of a package that running it needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    manifest: &'a Manifest,
    pub(crate) contract: &'a Contract,
    pub(crate) baseline: &'a Baseline,
    pub(crate) golden: &'a Golden,
    pub(crate) budget: &'a Budget,
}

impl<'a> Subject<'a> {
    pub(crate) fn of_verified(package: &'a VerifiedPackage) -> Self {
        Self::of_intact(package.package())
    }

    pub(crate) fn of_intact(package: &'a IntactPackage) -> Self {
        Self {
            manifest: package.manifest(),
            contract: package.contract(),
            baseline: package.baseline(),
            golden: package.golden(),
            budget: package.budget(),
        }
    }

    /// The sealed bytes must be those that the manifest names.
    pub(crate) fn check_blob(&self, blob: &SealedBlob) -> Result<(), OpenError> {
        let section = self.manifest.section(SectionKind::OnnxBlob);
        let expected: Digest = section.ok_or(OpenError::NoOnnx)?.digest;
        let found = blob.root();
        if found == expected {
            Ok(())
        } else {
            Err(OpenError::OtherModel { found, expected })
        }
    }
}
