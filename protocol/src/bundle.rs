//! Several reports of one boot in one message: each message costs a device some hundred bytes
//! beside what it tells, and most devices pay for them.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use bellwether_package::ids::UnixSecs;

use crate::ids::BootId;
use crate::message::{Message, MessageError, decode};
use crate::report::{Record, Report};

/// Reports in one message at most.
pub const REPORTS_MAX: usize = 64;

/// Reports that travel together. Version 2 of a [`Report`]'s topic: whoever listens there takes
/// both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bundle {
    /// The boot that their sequence numbers count in.
    pub boot: BootId,
    /// Each as its report has it, at most [`REPORTS_MAX`].
    pub reports: Vec<(u64, UnixSecs, Record)>,
}

impl Message for Bundle {
    const VERSION: u8 = 2;
    const BYTES_MAX: usize = Report::BYTES_MAX;
    const NAME: &'static str = "bundle of reports";
}

impl Bundle {
    /// Bytes before the first report: version, boot, and how many.
    pub const HEADER_BYTES: usize = 1 + 10 + 1;

    /// The reports of a message on a report topic, alone or bundled.
    ///
    /// # Errors
    ///
    /// [`MessageError`]; never panics, whatever the bytes.
    pub fn open(bytes: &[u8]) -> Result<Vec<Report>, MessageError> {
        if bytes.first() != Some(&Self::VERSION) {
            return decode::<Report>(bytes).map(|report| alloc::vec![report]);
        }
        let Self { boot, reports } = decode(bytes)?;
        if reports.len() > REPORTS_MAX {
            return Err(MessageError {
                message: Self::NAME,
                cause: bellwether_package::document::DocumentError::TooLong {
                    bytes_max: Self::BYTES_MAX,
                },
            });
        }
        let report = |(seq, at, record)| Report {
            boot,
            seq,
            at,
            record,
        };
        Ok(reports.into_iter().map(report).collect())
    }
}
