//! Which reports the server has stored.
//!
//! An MQTT acknowledgement is not delivery: a device keeps a report until it is named here.

use serde::{Deserialize, Serialize};

use crate::ids::BootId;
use crate::message::Message;

/// Reports acknowledged at once at most: the server's insertion batch for one device.
pub const ACK_SEQS_MAX: usize = 64;

/// Reports of one boot that are stored for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The boot that the sequence numbers count in.
    pub boot: BootId,
    /// [`Report::seq`](crate::Report) of each stored report, in any order.
    pub seqs: heapless::Vec<u64, ACK_SEQS_MAX>,
}

impl Message for Ack {
    const VERSION: u8 = 1;
    /// Boot id, length, and 64 numbers of at most 10 bytes.
    const BYTES_MAX: usize = 1024;
    const NAME: &'static str = "acknowledgement";
}
