//! Every kernel of the zero scan, and the runs that are made of it, against the definition.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use snapcow::scan::{self, zero};
use snapcow::units::ClusterSize;

#[derive(Arbitrary, Debug)]
struct Case {
    start: u8,
    len: u16,
    /// Where something stands, and what.
    marks: Vec<(u16, u8)>,
    bits: u8,
    clusters: u8,
}

fuzz_target!(|case: Case| {
    let (start, len) = (usize::from(case.start), usize::from(case.len));
    let mut memory = vec![0; start + len + 64];
    for &(at, mark) in &case.marks {
        let at = usize::from(at) % memory.len();
        memory[at] = mark;
    }
    let bytes = &memory[start..start + len];
    let expected = bytes.iter().all(|&byte| byte == 0);
    for kernel in zero::kernels() {
        assert_eq!((kernel.is_zero)(bytes), expected, "{}", kernel.name);
    }
    assert_eq!(zero::is_zero(bytes), expected);

    let bits = ClusterSize::MIN_BITS + u32::from(case.bits) % 4;
    let cs = ClusterSize::from_bits(bits).expect("within the bounds");
    let mut chunk = vec![0; usize::from(case.clusters) << bits];
    for &(at, mark) in &case.marks {
        let at = usize::from(at) * 7 % chunk.len().max(1);
        if let Some(byte) = chunk.get_mut(at) {
            *byte = mark;
        }
    }
    let mut next = 0;
    let mut before = None;
    for run in scan::runs(&chunk, cs) {
        assert_eq!(run.first, next, "runs lie one behind the other");
        assert!(run.clusters > 0 && before != Some(run.is_data), "runs are as long as they can be");
        for cluster in chunk[run.first << bits..(run.first + run.clusters) << bits].chunks(1 << bits) {
            assert_eq!(cluster.iter().any(|&byte| byte != 0), run.is_data);
        }
        next += run.clusters;
        before = Some(run.is_data);
    }
    assert_eq!(next, usize::from(case.clusters), "all clusters are in a run");
});
