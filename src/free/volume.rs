//! What a filesystem lies on: a partition, a whole disk, a logical volume, put together from stretches of the disk.

use std::fmt;
use std::ops::Range;

use super::{Disk, Outcome, Runs, Trouble};

/// A stretch of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its length in bytes: a multiple of `stripe_bytes` times the number of stripes, if there are several.
    pub len: u64,
    /// Where its stripes begin on the disk, in bytes; a linear segment has one.
    pub stripes: Vec<u64>,
    /// Bytes that lie on one stripe before the next one's turn; of no meaning if there is one only.
    pub stripe_bytes: u64,
}

/// Bytes of a disk that somebody else sees as one device.
pub struct Volume<'a> {
    disk: &'a dyn Disk,
    /// Where each segment begins in the volume, and the segment.
    segments: Vec<(u64, Segment)>,
    len: u64,
}

/// Pieces of disk that one read may come to: 24 bytes each.
const PIECES_MAX: usize = 1 << 20;

impl<'a> Volume<'a> {
    /// One stretch of a disk.
    pub fn linear(disk: &'a dyn Disk, on_disk: Range<u64>) -> Self {
        let len = on_disk.end - on_disk.start;
        Self::of(disk, vec![Segment { len, stripes: vec![on_disk.start], stripe_bytes: len }])
    }

    /// Several, in this order. Whoever makes them has seen to it that they lie on the disk.
    pub fn of(disk: &'a dyn Disk, segments: Vec<Segment>) -> Self {
        let mut len = 0;
        let place = |segment: Segment| {
            let at = len;
            len += segment.len;
            (at, segment)
        };
        let segments = segments.into_iter().map(place).collect();
        Self { disk, segments, len }
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing of it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes of each range, in the order asked for: ranges of the volume in any order. All that is known to be
    /// needed is asked for at once; see [`Disk::read`].
    ///
    /// # Errors
    /// A range that goes beyond the end (the filesystem is kept whole), and what keeps the bytes from coming.
    pub fn read(&self, wanted: &[Range<u64>]) -> Outcome<Vec<Vec<u8>>> {
        // Piece of disk, which range wants it, where in that range.
        let mut pieces: Vec<(Range<u64>, usize, u64)> = Vec::new();
        for (index, range) in wanted.iter().enumerate() {
            if range.start > range.end || range.end > self.len {
                return Err(Trouble::whole(format_args!(
                    "it points to {}, beyond its end at {}",
                    range.end, self.len
                )));
            }
            let mut at = 0;
            for piece in self.on_disk(range.clone()) {
                let len = piece.end - piece.start;
                pieces.push((piece, index, at));
                at += len;
                if pieces.len() > PIECES_MAX {
                    return Err(Trouble::whole("its metadata lie in too many pieces"));
                }
            }
        }
        pieces.sort_by_key(|(piece, ..)| piece.start);
        // What is asked for twice, or side by side, is read once.
        let mut joined: Vec<Range<u64>> = Vec::new();
        for (piece, ..) in &pieces {
            match joined.last_mut() {
                Some(last) if piece.start <= last.end => last.end = last.end.max(piece.end),
                _ => joined.push(piece.clone()),
            }
        }
        let read = if joined.is_empty() { Vec::new() } else { self.disk.read(&joined)? };
        let mut out: Vec<Vec<u8>> =
            wanted.iter().map(|range| vec![0; (range.end - range.start) as usize]).collect();
        let mut from = 0;
        for (piece, index, at) in pieces {
            while joined[from].end < piece.end {
                from += 1;
            }
            let offset = (piece.start - joined[from].start) as usize;
            let len = (piece.end - piece.start) as usize;
            let (at, bytes) = (at as usize, &read[from]);
            out[index][at..at + len].copy_from_slice(&bytes[offset..offset + len]);
        }
        Ok(out)
    }

    /// One range.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_one(&self, range: Range<u64>) -> Outcome<Vec<u8>> {
        Ok(self.read(&[range])?.pop().unwrap_or_default())
    }

    /// Tells the disk what is going to be read; see [`Disk::want`].
    ///
    /// # Errors
    /// A range that goes beyond the end.
    pub fn want(&self, ranges: &[Range<u64>]) -> Outcome<bool> {
        if ranges.iter().any(|range| range.start > range.end || range.end > self.len) {
            return Err(Trouble::whole("it points beyond its end"));
        }
        // Not so many that they would be worth less than what they save.
        let pieces: Vec<Range<u64>> =
            ranges.iter().flat_map(|range| self.on_disk(range.clone())).take(PIECES_MAX).collect();
        Ok(self.disk.want(&pieces))
    }

    /// Where a range of the volume lies on the disk, piece by piece, in the volume's order.
    pub fn on_disk(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self.segments.partition_point(|(at, segment)| at + segment.len <= range.start);
        let mut at = range.start;
        let mut index = first;
        std::iter::from_fn(move || {
            let (begin, segment) = self.segments.get(index).filter(|_| at < range.end)?;
            let within = at - begin;
            let stripes = segment.stripes.len() as u64;
            let (start, most) = if stripes == 1 {
                (segment.stripes[0] + within, segment.len - within)
            } else {
                let (stripe, rest) = (within / segment.stripe_bytes, within % segment.stripe_bytes);
                let on_stripe = stripe / stripes * segment.stripe_bytes + rest;
                (segment.stripes[(stripe % stripes) as usize] + on_stripe, segment.stripe_bytes - rest)
            };
            let len = most.min(segment.len - within).min(range.end - at);
            at += len;
            if at == begin + segment.len {
                index += 1;
            }
            Some(start..start + len)
        })
    }

    /// Runs of the volume as runs of the disk.
    ///
    /// # Errors
    /// More runs than are kept.
    pub fn free_on_disk(&self, free: &Runs) -> Outcome<Runs> {
        let mut pieces: Vec<Range<u64>> = free
            .as_slice()
            .iter()
            .flat_map(|run| self.on_disk(run.clone()))
            .take(super::runs::RUNS_MAX + 1)
            .collect();
        pieces.sort_by_key(|piece| piece.start);
        let mut runs = Runs::new();
        pieces.into_iter().try_for_each(|piece| runs.push(piece)).map_err(Trouble::whole)?;
        if runs.bytes() != free.bytes() {
            return Err(Trouble::whole("it has more free runs than are kept"));
        }
        Ok(runs)
    }
}

impl fmt::Debug for Volume<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume")
            .field("len", &self.len)
            .field("segments", &self.segments.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_striped_volume_reads_as_its_stripes_take_turns() {
        let disk: Vec<u8> = (0..200).collect();
        let segments = vec![
            Segment { len: 12, stripes: vec![100, 50], stripe_bytes: 3 },
            Segment { len: 5, stripes: vec![7], stripe_bytes: 5 },
        ];
        let volume = Volume::of(&disk, segments);
        let all = [100, 101, 102, 50, 51, 52, 103, 104, 105, 53, 54, 55, 7, 8, 9, 10, 11];
        assert_eq!(volume.read_one(0..17).unwrap(), all);
        for start in 0..17 {
            for end in start..=17 {
                let two = volume.read(&[start..end, 2..14]).unwrap();
                assert_eq!(two[0], all[start as usize..end as usize]);
                assert_eq!(two[1], all[2..14]);
            }
        }
        assert!(matches!(volume.read_one(3..18), Err(Trouble::Whole(_))));
        let mut free = Runs::new();
        free.push(1..14).unwrap();
        assert_eq!(volume.free_on_disk(&free).unwrap().as_slice(), [7..9, 50..56, 101..106]);
    }
}
