//! Logs and headers made by hand. Real filesystems are in the integration tests.

use super::superblock::checksum_is_right;
use super::*;
use crate::free::checksum::crc32c;

const UUID: [u8; 16] = *b"0123456789abcdef";

/// The superblock of a small filesystem of version 4, or 5.
fn superblock(is_v5: bool) -> Vec<u8> {
    let mut sb = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| sb[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"XFSB");
    put(4, &4096_u32.to_be_bytes());
    put(8, &8192_u64.to_be_bytes());
    put(32, &UUID);
    put(48, &(4096_u64 + 16).to_be_bytes());
    put(56, &128_u64.to_be_bytes());
    put(84, &4096_u32.to_be_bytes());
    put(88, &2_u32.to_be_bytes());
    put(96, &1024_u32.to_be_bytes());
    put(100, &if is_v5 { 0xb4a5_u16 } else { 0xb4a4 }.to_be_bytes());
    put(102, &512_u16.to_be_bytes());
    put(120, &[12, 9, 8, 4, 12]);
    let features2: u32 = if is_v5 { 0x18a } else { 0x8a };
    put(200, &features2.to_be_bytes());
    put(204, &features2.to_be_bytes());
    if is_v5 {
        let crc = !crc32c(!0, &sb);
        sb[224..228].copy_from_slice(&crc.to_le_bytes());
    }
    sb
}

fn parsed() -> Superblock {
    Superblock::parse(&superblock(false), 8192 << 12).unwrap()
}

fn reason<T: std::fmt::Debug>(outcome: Outcome<T>) -> String {
    match outcome {
        Err(Trouble::Whole(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_superblock_is_checked_before_it_is_believed() {
    for is_v5 in [false, true] {
        let good = superblock(is_v5);
        let sb = Superblock::parse(&good, 8192 << 12).unwrap();
        assert_eq!((sb.blocks, sb.groups, sb.log_group, sb.log_first, sb.is_v5), (8192, 2, 1, 16, is_v5));
        assert!(reason(Superblock::parse(&good, (8192 << 12) - 1)).contains("its place"));
        for len in [0, 3, 100, 511] {
            reason(Superblock::parse(&good[..len], 8192 << 12));
        }
        // Nothing that can stand in a field may panic; with version 5, no change at all may pass.
        for at in 0..264 {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] = byte;
                let outcome = Superblock::parse(&bad, u64::MAX);
                assert!(!is_v5 || bad == good || outcome.is_err(), "{at}");
                if is_v5 {
                    bad[224..228].fill(0);
                    let crc = !crc32c(!0, &bad);
                    bad[224..228].copy_from_slice(&crc.to_le_bytes());
                    Superblock::parse(&bad, u64::MAX).ok();
                }
            }
        }
    }
}

#[test]
fn roots_of_all_trees_are_in_use() {
    let seal = |sector: &mut [u8], at: usize| {
        let crc = !crc32c(!0, sector);
        sector[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    };
    let mut head = superblock(true);
    // finobt, rmapbt, reflink.
    head[212..216].copy_from_slice(&7_u32.to_be_bytes());
    head[224..228].fill(0);
    seal(&mut head, 224);
    let sb = Superblock::parse(&head, 8192 << 12).unwrap();
    let [mut agf, mut agi, mut agfl] = [[0; 512]; 3];
    let words = [(4, 1), (12, 4096), (16, 5), (20, 6), (24, 7), (28, 1), (32, 1), (88, 8)];
    for (at, word) in words {
        agf[at..at + 4].copy_from_slice(&u32::to_be_bytes(word));
    }
    for (at, word) in [(4, 1), (12, 4096), (20, 9), (328, 10)] {
        agi[at..at + 4].copy_from_slice(&u32::to_be_bytes(word));
    }
    for (header, magic, uuid, crc) in
        [(&mut agf, b"XAGF", 64, 216), (&mut agi, b"XAGI", 296, 312), (&mut agfl, b"XAFL", 8, 32)]
    {
        header[..4].copy_from_slice(magic);
        header[uuid..uuid + 16].copy_from_slice(&UUID);
        seal(header, crc);
    }
    let mut used = Group::parse(&[&head[..], &agf, &agi, &agfl].concat(), 0, &sb).unwrap().used;
    used.sort_unstable();
    assert_eq!(used, [5, 6, 7, 8, 9, 10]);
}

#[test]
fn a_checksum_covers_all_but_itself() {
    let sb = superblock(true);
    assert!(checksum_is_right(&sb, 224));
    for at in 0..sb.len() {
        let mut bad = sb.clone();
        bad[at] ^= 0x10;
        assert!(!checksum_is_right(&bad, 224), "{at}");
    }
    assert!(!checksum_is_right(&sb, 510));
    assert!(!checksum_is_right(&[], 0));
}

/// A log of so many blocks, which begins in this round and was filled with records of `len` blocks by the one before.
struct Log(Vec<u8>);

/// How a record is written.
#[derive(Clone, Copy)]
struct Style {
    headers: usize,
    /// The length of the header that the checksum covers, or no checksum.
    crc: Option<usize>,
    is_unmount: bool,
}

const PLAIN: Style = Style { headers: 1, crc: None, is_unmount: false };
const UNMOUNT: Style = Style { headers: 1, crc: Some(328), is_unmount: true };

impl Log {
    fn new(blocks: usize, cycle: u32) -> Self {
        let mut log = Self(vec![0; blocks * 512]);
        if cycle > 0 {
            (0..blocks / 4).for_each(|number| log.record(cycle, number * 4, 3, PLAIN));
        }
        log
    }

    fn block(&mut self, number: usize) -> &mut [u8] {
        let number = number % (self.0.len() / 512);
        &mut self.0[number * 512..][..512]
    }

    /// A record at a block, with so many blocks of data; where it goes round the end, the round is the next.
    fn record(&mut self, cycle: u32, first: usize, data: usize, style: Style) {
        let of = self.0.len() / 512;
        let round = |block: usize| cycle + u32::from(block >= of);
        for number in first..first + style.headers + data {
            self.block(number).fill(number as u8);
            self.block(number)[..4].copy_from_slice(&round(number).to_be_bytes());
        }
        if style.is_unmount {
            let mut operation = [0; 16];
            operation[..4].copy_from_slice(&round(first + style.headers).to_be_bytes());
            operation[4..].copy_from_slice(&[0, 0, 0, 8, 0xaa, 0x20, 0, 0, 0x6e, 0x55, 0, 0]);
            self.block(first + style.headers)[..16].copy_from_slice(&operation);
        }
        let header = self.block(first);
        header.fill(0);
        let size = if style.headers > 1 { style.headers as u32 * 32768 } else { 32768 };
        let words =
            [(0, 0xfeed_babe), (4, cycle), (8, 2), (12, data as u32 * 512), (16, cycle), (20, first as u32)];
        for (at, word) in words.into_iter().chain([(40, 1), (320, size)]) {
            header[at..at + 4].copy_from_slice(&word.to_be_bytes());
        }
        header[304..320].copy_from_slice(&UUID);
        if let Some(size) = style.crc {
            let mut covered = self.block(first)[..size].to_vec();
            for number in 1..(data * 512).div_ceil(32768).min(style.headers) {
                covered.extend_from_slice(&self.block(first + number)[..260]);
            }
            for number in 0..data {
                covered.extend_from_slice(self.block(first + style.headers + number));
            }
            let crc = !crc32c(!0, &covered);
            self.block(first)[32..36].copy_from_slice(&crc.to_le_bytes());
        }
    }

    fn head(&self) -> Outcome<log::Head> {
        let sb = parsed();
        let mut scan = log::Scan::default();
        self.0.chunks(3 * 512).for_each(|piece| scan.take(piece));
        let last = scan.last(&sb)?;
        let record: Vec<u8> = last
            .pieces()
            .into_iter()
            .flat_map(|range| &self.0[range.start as usize..range.end as usize])
            .copied()
            .collect();
        last.head(&record, &sb)
    }
}

const DIRTY: &str = "mount and unmount it";

#[test]
fn a_record_of_an_unmount_is_found_wherever_it_lies() {
    for (first, data, headers) in (0..64).flat_map(|first| [(first, 1, 1), (first, 3, 1), (first, 7, 8)]) {
        for size in [328, 324] {
            let mut log = Log::new(64, 4);
            (0..first / 4).for_each(|number| log.record(5, number * 4, 3, PLAIN));
            let rest = first % 4;
            if rest > 0 {
                log.record(5, first - rest, rest - 1, PLAIN);
            }
            log.record(5, first, data, Style { headers, crc: Some(size), is_unmount: true });
            let head = log.head().unwrap();
            // What is written next is later than all that was.
            let end = (first + headers + data) as u64;
            let (cycle, block) = if end >= 64 { (6, end - 64) } else { (5, end) };
            head.check(cycle << 32 | block, "it").unwrap();
            head.check(u64::MAX, "it").unwrap();
            reason(head.check((cycle << 32 | block) + 1, "it"));
            // A record behind it, and one that is cut off.
            let mut more = Log(log.0.clone());
            more.record(cycle as u32, block as usize, 2, PLAIN);
            assert!(reason(more.head()).contains(DIRTY));
            let mut torn = Log(log.0.clone());
            let last = torn.block(first + headers + data - 1);
            last[..4].copy_from_slice(&4_u32.to_be_bytes());
            reason(torn.head());
            // A change of any byte that the checksum covers.
            let mut bad = Log(log.0.clone());
            bad.block(first + headers)[200] ^= 1;
            assert!(reason(bad.head()).contains("checksum"));
        }
    }
}

#[test]
fn a_log_that_is_not_clean_is_told_from_one_that_is() {
    let mut log = Log::new(64, 0);
    assert!(reason(log.head()).contains("empty"));
    log.record(1, 0, 1, UNMOUNT);
    log.head().unwrap();
    let change = |at: usize, bytes: &[u8]| {
        let mut bad = Log(log.0.clone());
        bad.0[at..at + bytes.len()].copy_from_slice(bytes);
        reason(bad.head())
    };
    assert!(change(304, b"another").contains("another filesystem"));
    assert!(change(43, &[2]).contains(DIRTY));
    assert!(change(512 + 9, &[0x10]).contains(DIRTY));
    assert!(change(512 + 12, &[0]).contains(DIRTY));
    assert!(change(20 * 512 + 3, &[1]).contains(DIRTY));
    assert!(change(20 * 512 + 3, &[7]).contains(DIRTY));
    assert!(change(8, &[1]).contains("no sense"));
    assert!(change(12, &[0xff; 4]).contains("no sense"));
    assert!(change(14, &[4]).contains(DIRTY));
    log.record(1, 2, 3, PLAIN);
    assert!(reason(log.head()).contains(DIRTY));
    log.record(1, 6, 1, UNMOUNT);
    log.head().unwrap();
}

#[test]
fn only_a_log_that_a_tool_made_may_have_blocks_that_were_never_written() {
    let made = |cycle: u32| {
        let mut log = Log::new(64, cycle - 1);
        (0..32).for_each(|number| log.block(number).fill(0));
        log.record(cycle, 0, 1, Style { crc: None, ..UNMOUNT });
        log.block(0)[36..40].fill(0xff);
        log
    };
    made(2).head().unwrap();
    made(9).head().unwrap();
    let mut other = made(9);
    other.block(0)[36..40].fill(0);
    assert!(reason(other.head()).contains(DIRTY));
    let mut full = made(9);
    full.block(17)[99] = 1;
    assert!(reason(full.head()).contains(DIRTY));
}
