//! Hostile maps of holes: refused with a sentence that shows nothing of them, or read so that what they mean can be
//! written and read again; never more memory than the stretches that are kept.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use snapcow::holes::{Holes, parse};
use snapcow::units::ClusterSize;

#[derive(Arbitrary, Debug)]
enum Case {
    /// Any bytes.
    Bytes(Vec<u8>),
    /// A good map with changes.
    Map { parts: Vec<(u16, bool)>, is_rbd: bool, changes: Vec<(u16, u8)>, len: u32 },
}

fuzz_target!(|case: Case| match case {
    Case::Bytes(bytes) => drop(read(&bytes)),
    Case::Map { parts, is_rbd, changes, len } => {
        let (mut good, end) = written(&parts, is_rbd);
        let mut holes = read(&good).expect("our own map");
        holes.fit(end).expect("it ends where it says");
        let zeros = parts.iter().filter(|(_, is_zero)| *is_zero);
        let meant: u64 = zeros.map(|(sectors, _)| u64::from(*sectors) * 512).sum();
        assert_eq!(holes.zero_bytes(), meant);
        for (at, byte) in changes {
            let at = usize::from(at) % good.len();
            good[at] = byte;
        }
        if let Some(mut holes) = read(&good)
            && holes.fit(u64::from(len)).is_ok()
        {
            used(&holes, u64::from(len));
        }
    }
});

fn read(map: &[u8]) -> Option<Holes> {
    match parse(map) {
        Ok(holes) => {
            let runs = holes.runs();
            assert!(runs.iter().all(|run| run.start < run.end));
            assert!(runs.windows(2).all(|two| two[0].end < two[1].start), "in order, and never adjacent");
            Some(holes)
        }
        Err(why) => {
            assert!(!why.is_empty() && !why.chars().any(char::is_control), "{why:?}");
            None
        }
    }
}

/// Whatever was read, what is left out of a disk is zero by the map, whole, and on the disk.
fn used(holes: &Holes, len: u64) {
    for bits in [9, 16, 21] {
        let cs = ClusterSize::from_bits(bits).expect("within the bounds");
        let wanted = holes.wanted(cs, len, 0);
        let mut next = 0;
        for run in wanted.iter().cloned().chain([cs.clusters_for(len)..cs.clusters_for(len)]) {
            let (from, to) = (next << bits, run.start << bits);
            let is_known = holes.runs().iter().any(|hole| hole.start <= from && to <= hole.end);
            assert!(from == to || is_known && to <= len, "{from} to {to} are not read");
            next = run.end;
        }
        assert!(next == cs.clusters_for(len));
    }
}

/// A map in one of the forms, in whole sectors, and where it ends.
fn written(parts: &[(u16, bool)], is_rbd: bool) -> (Vec<u8>, u64) {
    let (mut entries, mut at) = (Vec::new(), 0u64);
    for (sectors, is_zero) in parts {
        let len = u64::from(*sectors) * 512;
        if is_rbd {
            let exists = !is_zero;
            entries.push(format!("{{\"offset\":{at},\"length\":{len},\"exists\":\"{exists}\"}}"));
        } else {
            entries
                .push(format!("{{ \"start\": {at}, \"length\": {len}, \"depth\": 0, \"zero\": {is_zero}}}"));
        }
        at += len;
    }
    (format!("[{}]", entries.join(",\n")).into_bytes(), at)
}
