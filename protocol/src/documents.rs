//! Which trust documents the server has, so that a device need not ask.
//!
//! It is a notice and no more: a device that lacks one of them fetches it, and believes its
//! signatures alone.

use serde::{Deserialize, Serialize};

use crate::message::Message;

/// Versions of the documents in force at the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Documents {
    /// The trust root's.
    pub root_version: u32,
    /// The revocation list's; `None` while there is none.
    pub revocations_version: Option<u64>,
}

impl Message for Documents {
    const VERSION: u8 = 1;
    /// Two numbers of at most 10 bytes, and whether there is a second one.
    const BYTES_MAX: usize = 32;
    const NAME: &'static str = "notice of documents";
}
