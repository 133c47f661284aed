//! What endpoints and machine say of themselves, as data, so that planning needs no I/O.

/// `f_type` of file systems whose files lie in memory: tmpfs (`TMPFS_MAGIC`, `linux/magic.h`) and ramfs.
pub const MEMORY_FILE_SYSTEMS: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// How often and in which order a source can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Once, from the beginning (standard input).
    Once,
    /// Again, but each time from the beginning (a Glance store without random reads).
    Sequential,
    /// Any part at any time (files, block devices, a Glance store with ranges).
    Random,
}

/// What a source says of itself.
#[derive(Clone, Debug)]
pub struct SourceFacts {
    /// Name for messages.
    pub name: String,
    /// Length in bytes, where it is known before reading.
    pub len: Option<u64>,
    /// How it can be read.
    pub access: Access,
    /// Whether another machine sends the bytes, which must not be kept waiting.
    pub is_remote: bool,
}

/// In which order a sink takes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkOrder {
    /// Any order (files).
    Random,
    /// From byte 0 on (standard output, a Glance upload).
    InOrder,
}

/// What a sink says of itself.
#[derive(Clone, Debug)]
pub struct SinkFacts {
    /// Name for messages.
    pub name: String,
    /// In which order it takes bytes.
    pub order: SinkOrder,
}

/// What the machine says of itself.
#[derive(Clone, Debug)]
pub struct MachineFacts {
    /// Processors that this process may use.
    pub cores: usize,
    /// Memory that this process may use, in bytes (control groups included).
    pub memory_bytes: u64,
    /// Free bytes where the spool would lie; `None` if that cannot be told.
    pub spool_free_bytes: Option<u64>,
    /// Whether the spool would lie in memory (tmpfs).
    pub spool_is_memory: bool,
}
