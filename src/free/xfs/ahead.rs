//! Reads ahead on a disk that streams by: each group's trees right behind its header, while they are still to come.
//!
//! Read in earnest, a level of all trees is one round, and on such a disk the trees of the first groups would have passed
//! before the headers of the last ones have come. What is read here is kept by the disk and used for nothing; whatever
//! is wrong with it is told by whoever reads it in earnest.

use super::groups::Group;
use super::log::Head;
use super::superblock::Superblock;
use super::{Memory, Outcome, Volume, trees};

/// Does nothing on other disks.
pub(super) fn read(volume: &Volume<'_>, sb: &Superblock, memory: &Memory) {
    let is_affordable = memory.check(u64::from(sb.groups) * (2 * sb.header_bytes() + 128), "").is_ok();
    if !is_affordable || !volume.want(&[]).unwrap_or(false) {
        return;
    }
    let mut wanted: Vec<_> = (0..sb.groups).map(|number| sb.header(number)).collect();
    let log = sb.log();
    // A log that takes too much is read in pieces, which come too early for what lies behind it.
    if 2 * (log.end - log.start) <= memory.left {
        wanted.push(log);
    }
    let _ = volume.want(&wanted);
    for number in 0..sb.groups {
        let _ = group(volume, sb, number, memory.left / 2);
    }
}

fn group(volume: &Volume<'_>, sb: &Superblock, number: u32, most: u64) -> Outcome<()> {
    let header = volume.read_one(sb.header(number))?;
    let group = [Group::parse(&header, number, sb)?];
    trees::free(volume, sb, &group, Head::LAST, &mut Memory { left: most, most }).map(drop)
}
