use serde::{Deserialize, Serialize};

/// A read that could not be satisfied: where, and why. Never answered with zeroes instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{addr:#x}: {why}")]
pub struct Fault {
    /// First address that could not be read.
    pub addr: u64,
    pub why: Why,
}

/// Why a [`Fault`] happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Why {
    #[error("not mapped")]
    NotMapped,
    #[error("mapped without read permission")]
    NotReadable,
    #[error("swapped out")]
    Swapped,
    /// Mapped, but the capture or the core left it out and no matching file has it.
    #[error("not in the capture, and no matching file found")]
    NotCaptured,
    #[error("cut off by the end of a truncated file")]
    Truncated,
    /// Of a snapshot: its checksum does not fit.
    #[error("damaged in the snapshot file")]
    Damaged,
    /// Device, userfaultfd or other memory that is never read.
    #[error("not safe to read")]
    Unsafe,
    #[error("the process has gone")]
    Gone,
    #[error("the system refused the read")]
    Io,
}

impl Fault {
    pub fn new(addr: u64, why: Why) -> Self {
        Fault { addr, why }
    }
}
