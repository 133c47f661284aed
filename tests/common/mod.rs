//! What several tests share: seeded disks, and readers that share no code with the writer.

pub mod disks;
pub mod oracles;
