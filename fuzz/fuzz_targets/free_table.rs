//! Partition tables, real ones with changes and made-up ones: partitions without a doubt are told by an entry, lie on the
//! disk, and overlap neither each other nor the table.
#![no_main]

use std::ops::Range;
use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use snapcow::free::Trouble;
use snapcow::free::table::{Partition, Role, Scheme, Table, read};
use snapcow_fuzz::free::bases::{self, Made};
use snapcow_fuzz::free::edits::Edit;
use snapcow_fuzz::free::sparse::{Base, Image};
use snapcow_fuzz::free::table::{fit_gpt, gpt_entries, spots};

#[derive(Arbitrary, Debug)]
enum Case {
    /// A real table with changes.
    Changed { base: u8, edits: Vec<Edit>, is_fitted: bool },
    /// Partitions of a GPT: first sector, length.
    Gpt { parts: Vec<(u16, u16)>, usable: (u8, u16), has_backup: bool },
    /// Entries of an MBR, and links of a chain: place, entries.
    Mbr { entries: [Entry; 4], links: Vec<(u16, [Entry; 2])> },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Entry {
    kind: u8,
    start: u16,
    sectors: u16,
}

struct Ready {
    made: Made,
    spots: Vec<Range<u64>>,
}

/// A disk of 32 MiB.
const SECTORS: u64 = 65536;

static READY: LazyLock<Vec<Ready>> = LazyLock::new(|| {
    let ready = |made: Made| Ready { spots: spots(&Image::new(&made.base)), made };
    bases::named(&["gpt", "mbr", "stripes", "ext4_mmp", "swap"]).into_iter().map(ready).collect()
});
static EMPTY: LazyLock<Base> = LazyLock::new(|| Base::zeros(SECTORS * 512));

fuzz_target!(|case: Case| match case {
    Case::Changed { base, edits, is_fitted } => {
        let Ready { made, spots } = &READY[usize::from(base) % READY.len()];
        let mut image = Image::new(&made.base);
        edits.iter().take(12).for_each(|edit| edit.apply(&mut image, spots));
        if is_fitted {
            fit_gpt(&mut image);
        }
        drop(check(&image));
    }
    Case::Gpt { parts, usable, has_backup } => gpt(&parts[..parts.len().min(64)], usable, has_backup),
    Case::Mbr { entries, links } => {
        let mut image = Image::new(&EMPTY);
        put_entries(&mut image, 0, &entries);
        for (at, entries) in links.iter().take(200) {
            put_entries(&mut image, u64::from(*at) * 512, entries);
        }
        drop(check(&image));
    }
});

fn put_entries(image: &mut Image<'_>, at: u64, entries: &[Entry]) {
    for (index, entry) in entries.iter().enumerate() {
        let kind = [0, 0x83, 0x82, 0x05, 0x0f, 0x8e, 0xee, entry.kind][usize::from(entry.kind % 8)];
        let slot = at + 446 + index as u64 * 16;
        image.put(slot, &[0, 0, 0, 0, kind, 0, 0, 0]);
        image.put(slot + 8, &u32::from(entry.start).to_le_bytes());
        image.put(slot + 12, &u32::from(entry.sectors).to_le_bytes());
    }
    image.put(at + 510, &[0x55, 0xaa]);
}

/// A well-formed GPT: which partitions are in doubt follows from where they are.
fn gpt(parts: &[(u16, u16)], usable: (u8, u16), has_backup: bool) {
    let mut image = Image::new(&EMPTY);
    put_entries(&mut image, 0, &[Entry { kind: 6, start: 1, sectors: u16::MAX }]);
    let usable =
        34 + u64::from(usable.0)..=(34 + u64::from(usable.0) + u64::from(usable.1)).min(SECTORS - 34);
    let part = |&(first, less): &(u16, u16)| u64::from(first)..u64::from(first) + u64::from(less) + 1;
    let parts: Vec<Range<u64>> = parts.iter().map(part).collect();
    for (at, other, entries) in [(1, SECTORS - 1, 2), (SECTORS - 1, 1, SECTORS - 33)] {
        if at != 1 && !has_backup {
            break;
        }
        for (index, part) in (0u64..).zip(&parts) {
            let slot = entries * 512 + index * 128;
            image.put(
                slot,
                &[
                    0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d,
                    0xe4,
                ],
            );
            image.put(slot + 32, &[part.start.to_le_bytes(), (part.end - 1).to_le_bytes()].concat());
        }
        let header = at * 512;
        image.put(header, b"EFI PART\0\0\x01\0\x5c\0\0\0");
        let words = [at, other, *usable.start(), *usable.end(), 7, 9, entries];
        words.into_iter().zip(0u64..).for_each(|(word, index)| {
            image.put(header + 24 + index * 8, &word.to_le_bytes());
        });
        image.put(header + 80, &[128, 0, 0, 0, 128, 0, 0, 0]);
    }
    fit_gpt(&mut image);
    let table = check(&image).expect("a table without a fault");
    assert_eq!((table.partitions.len(), table.note.is_none()), (parts.len(), has_backup));
    for (index, (told, part)) in table.partitions.iter().zip(&parts).enumerate() {
        assert_eq!(told.range(), part.start * 512..part.end * 512);
        let is_hit = |(other, one): (usize, &Range<u64>)| {
            other != index && one.start < part.end && part.start < one.end
        };
        let is_free = usable.contains(&part.start) && usable.contains(&(part.end - 1));
        let is_sound = is_free && !parts.iter().enumerate().any(is_hit);
        assert_eq!(told.doubt.is_none(), is_sound, "{told:?}");
    }
}

fn check(image: &Image<'_>) -> Option<Table> {
    let table = match read(image, image.len) {
        Ok(table) => table,
        Err(Trouble::Whole(why)) => {
            assert!(!why.is_empty() && !why.chars().any(char::is_control), "{why:?}");
            return None;
        }
        Err(Trouble::Failed(error)) => panic!("this disk can be read: {error}"),
    }?;
    let asked = image.asked();
    assert!(
        asked.bytes <= 8 << 20 && asked.calls.len() < 200,
        "{} bytes, {}",
        asked.bytes,
        asked.calls.len()
    );
    let sound: Vec<&Partition> = table.partitions.iter().filter(|part| part.doubt.is_none()).collect();
    let told = if table.scheme == Scheme::Gpt { gpt_entries(image) } else { Vec::new() };
    for part in &sound {
        let range = part.range();
        assert!(range.end <= image.len && range.end - range.start == part.len, "{part:?}");
        assert!(table.scheme == Scheme::Mbr || told.contains(&range), "{part:?} is told nowhere");
        assert!(!part.name.chars().any(char::is_control));
        if part.role != Role::Container {
            let is_hit = |own: &&Range<u64>| own.start < range.end && range.start < own.end;
            assert_eq!(table.own.iter().find(is_hit), None, "{part:?}");
        }
    }
    let leaves: Vec<&&Partition> = sound.iter().filter(|part| part.role != Role::Container).collect();
    for (index, one) in leaves.iter().enumerate() {
        let overlaps = |other: &&&&Partition| {
            let (one, other) = (one.range(), other.range());
            one.start < other.end && other.start < one.end
        };
        assert_eq!(leaves[index + 1..].iter().find(overlaps), None, "{one:?}");
    }
    assert_eq!(read(image, image.len).expect("as before").as_ref(), Some(&table));
    Some(table)
}
