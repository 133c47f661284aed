//! What the targets share: disks made of a few pieces, conversions in memory, and a reader of qcow2 that shares no code
//! with the writer.

pub mod cases;
pub mod conversion;
pub mod free;
#[path = "../../tests/common/layout.rs"]
pub mod layout;
pub mod reader;
pub mod server;
