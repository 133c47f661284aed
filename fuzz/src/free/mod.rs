//! What the targets `free_*` share: disks that real tools have made, changes of them, checksums, and readers that are as
//! plain as can be and share no code with those of `src/free`.

pub mod bases;
pub mod edits;
pub mod ext;
pub mod jbd2;
pub mod lvm;
pub mod memory;
pub mod oracle;
pub mod sparse;
pub mod sums;
pub mod table;
pub mod xfs;
