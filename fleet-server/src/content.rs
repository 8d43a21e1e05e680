//! A package as devices download it: header with the approvals of today, then the sections.
//!
//! The sections never change, so they lie in the blob folder once. Approvals come and go: the
//! header is put together from the database at each download.

use bellwether_package::Header;

use crate::store::StoreError;
use crate::store::packages::PackageRow;

/// A package's header with these approvals.
pub(crate) fn header(row: &PackageRow, approvals: Vec<Vec<u8>>) -> Result<Header, StoreError> {
    Header::from_parts(row.manifest.clone(), approvals)
        .map_err(|_| StoreError::Damaged("package's manifest or approvals"))
}

/// Length of the whole package in bytes.
pub(crate) fn length(row: &PackageRow, approvals: Vec<Vec<u8>>) -> Result<u64, StoreError> {
    header(row, approvals).map(|header| header.package_bytes())
}
