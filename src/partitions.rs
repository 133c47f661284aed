//! Partition tables, as the first bytes of a disk tell them: MBR and GPT, read without believing them. A leaf.

/// Bytes from the beginning of a disk that hold all that is read here: both places of a GPT header (sectors of
/// 512 and of 4096 bytes), and the usual 128 entries behind it.
pub const HEAD_BYTES: usize = 64 << 10;
/// Entries of a GPT that are looked at.
const GPT_ENTRIES_MAX: u32 = 128;
/// Bytes of the smallest GPT header and of the smallest entry (UEFI 2.10, 5.3.2 and 5.3.3).
const GPT_HEADER_BYTES: usize = 92;
const GPT_ENTRY_BYTES: usize = 128;

/// What kind of table a disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Master boot record; partitions inside of an extended one are not followed.
    Mbr,
    /// GUID partition table.
    Gpt,
}

impl Scheme {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mbr => "MBR",
            Self::Gpt => "GPT",
        }
    }
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Where it begins, in bytes.
    pub start: u64,
    /// How long it is, in bytes.
    pub len: u64,
    /// What is in it, by its type, in words.
    pub kind: String,
    /// Its name, if it has one, without control characters.
    pub name: String,
}

/// A partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its kind.
    pub scheme: Scheme,
    /// The partitions, by their place on the disk.
    pub partitions: Vec<Partition>,
}

/// The table of a disk of `len` bytes, from its first [`HEAD_BYTES`] or fewer; `None` if there is none that can
/// be believed: a GPT's header must have its CRC, a partition must lie on the disk.
pub fn table(head: &[u8], len: u64) -> Option<Table> {
    let is_signed = head.get(510..512) == Some(&[0x55, 0xaa]);
    let gpt = [512, 4096].into_iter().find_map(|sector| gpt(head, sector, len));
    gpt.or_else(|| if is_signed { mbr(head, len) } else { None })
}

fn mbr(head: &[u8], len: u64) -> Option<Table> {
    let mut partitions = Vec::new();
    for (entry, number) in head.get(446..510)?.chunks_exact(16).zip(1..) {
        // The boot sector of a file system has the same signature, and code or text here.
        if entry[0] & 0x7f != 0 {
            return None;
        }
        let (start, sectors) = (u64::from(le32(entry, 8)?), u64::from(le32(entry, 12)?));
        if entry[4] == 0 || sectors == 0 {
            continue;
        }
        let (start, bytes) = (start * 512, sectors * 512);
        if start == 0 && entry[4] != 0xee || start >= len {
            return None;
        }
        let kind = mbr_kind(entry[4]);
        partitions.push(Partition { number, start, len: bytes.min(len - start), kind, name: String::new() });
    }
    partitions.sort_by_key(|partition| partition.start);
    (!partitions.is_empty()).then_some(Table { scheme: Scheme::Mbr, partitions })
}

fn gpt(head: &[u8], sector: usize, len: u64) -> Option<Table> {
    let header = head.get(sector..)?;
    if !header.starts_with(b"EFI PART") {
        return None;
    }
    let bytes = le32(header, 12)? as usize;
    let mut copy = header.get(..bytes).filter(|_| (GPT_HEADER_BYTES..=sector).contains(&bytes))?.to_vec();
    // Its own CRC counts as zeros.
    let crc = le32(&copy, 16)?;
    copy[16..20].fill(0);
    if crc32fast::hash(&copy) != crc {
        return None;
    }
    let (count, entry_bytes) = (le32(header, 80)?.min(GPT_ENTRIES_MAX), le32(header, 84)? as usize);
    let from = usize::try_from(le64(header, 72)?).ok()?.checked_mul(sector)?;
    if entry_bytes < GPT_ENTRY_BYTES || entry_bytes > sector {
        return None;
    }
    let entries = head.get(from..)?.chunks_exact(entry_bytes).zip(1..=count);
    let mut partitions: Vec<Partition> = entries
        .filter(|(entry, _)| entry[..16] != [0; 16])
        .filter_map(|(entry, number)| gpt_entry(entry, number, sector as u64, len))
        .collect();
    partitions.sort_by_key(|partition| partition.start);
    Some(Table { scheme: Scheme::Gpt, partitions })
}

fn gpt_entry(entry: &[u8], number: u32, sector: u64, len: u64) -> Option<Partition> {
    let start = le64(entry, 32)?.checked_mul(sector).filter(|start| *start < len)?;
    let end = le64(entry, 40)?.checked_add(1)?.checked_mul(sector).filter(|end| *end > start)?;
    let units: Vec<u16> =
        entry[56..128].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let name = String::from_utf16_lossy(&units);
    let name = name.split('\0').next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    let kind = gpt_kind(entry[..16].try_into().ok()?);
    Some(Partition { number, start, len: end.min(len) - start, kind, name })
}

fn mbr_kind(kind: u8) -> String {
    match kind {
        0x05 | 0x0f | 0x85 => "extended".into(),
        0x06 | 0x0b | 0x0c | 0x0e => "FAT".into(),
        0x07 => "NTFS or exFAT".into(),
        0x82 => "Linux swap".into(),
        0x83 => "Linux".into(),
        0x8e => "Linux LVM".into(),
        0xa5 | 0xa6 | 0xa9 => "BSD".into(),
        0xee => "protective".into(),
        0xef => "EFI system".into(),
        0xfd => "Linux RAID".into(),
        other => format!("type {other:#04x}"),
    }
}

/// Types that virtual machines have (UEFI; the Discoverable Partitions Specification; Microsoft).
fn gpt_kind(guid: [u8; 16]) -> String {
    let text = format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        le32(&guid, 0).unwrap_or(0),
        u16::from_le_bytes([guid[4], guid[5]]),
        u16::from_le_bytes([guid[6], guid[7]]),
        u16::from_be_bytes([guid[8], guid[9]]),
        guid[10..].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
    );
    let word = match text.as_str() {
        "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" => "EFI system",
        "21686148-6449-6e6f-744e-656564454649" => "BIOS boot",
        "0fc63daf-8483-4772-8e79-3d69d8477de4" => "Linux",
        "4f68bce3-e8cd-4db1-96e7-fbcaf984b709" | "b921b045-1df0-41c3-af44-4c6f280d3fae" => "Linux root",
        "bc13c2ff-59e6-4262-a352-b275fd6f7172" => "Linux /boot",
        "933ac7e1-2eb4-4f13-b844-0e14e2aef915" => "Linux /home",
        "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f" => "Linux swap",
        "e6d6d379-f507-44c2-a23c-238f2a3df928" => "Linux LVM",
        "a19d880f-05fc-4d3b-a006-743f0f84911e" => "Linux RAID",
        "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7" => "NTFS, exFAT or FAT",
        "e3c9e316-0b5c-4db8-817d-f92df00215ae" => "Microsoft reserved",
        "de94bba4-06d1-4d40-a16a-bfd50179d6ac" => "Windows recovery",
        _ => return format!("type {text}"),
    };
    word.into()
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn mbr_disk(entries: &[(u8, u32, u32)]) -> Vec<u8> {
        let mut head = vec![0; 4096];
        for (index, (kind, start, sectors)) in entries.iter().enumerate() {
            let entry = &mut head[446 + 16 * index..][..16];
            entry[4] = *kind;
            entry[8..12].copy_from_slice(&start.to_le_bytes());
            entry[12..16].copy_from_slice(&sectors.to_le_bytes());
        }
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        head
    }

    fn gpt_disk(sector: usize) -> Vec<u8> {
        let mut head = mbr_disk(&[(0xee, 1, u32::MAX)]);
        head.resize(HEAD_BYTES, 0);
        let at = 2 * sector + 128;
        let guid =
            [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4];
        head[at..at + 16].copy_from_slice(&guid);
        head[at + 32..at + 40].copy_from_slice(&(MIB / sector as u64).to_le_bytes());
        head[at + 40..at + 48].copy_from_slice(&(3 * MIB / sector as u64 - 1).to_le_bytes());
        for (index, unit) in "ro\u{1b}öt".encode_utf16().enumerate() {
            head[at + 56 + 2 * index..][..2].copy_from_slice(&unit.to_le_bytes());
        }
        let header = &mut head[sector..];
        header[..8].copy_from_slice(b"EFI PART");
        header[12..16].copy_from_slice(&92u32.to_le_bytes());
        header[72..80].copy_from_slice(&2u64.to_le_bytes());
        header[80..84].copy_from_slice(&u32::MAX.to_le_bytes());
        header[84..88].copy_from_slice(&128u32.to_le_bytes());
        let crc = crc32fast::hash(&header[..92]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        head
    }

    #[test]
    fn both_kinds_are_read() {
        let found = table(&mbr_disk(&[(0x83, 4096, 100), (0xef, 2048, 2048)]), 16 * MIB).unwrap();
        let seen: Vec<_> =
            found.partitions.iter().map(|part| (part.number, part.start, part.len, &*part.kind)).collect();
        assert_eq!(seen, [(2, MIB, MIB, "EFI system"), (1, 2 * MIB, 51_200, "Linux")]);
        for sector in [512, 4096] {
            let found = table(&gpt_disk(sector), 16 * MIB).unwrap();
            assert_eq!(found.scheme, Scheme::Gpt);
            let part =
                Partition { number: 2, start: MIB, len: 2 * MIB, kind: "Linux".into(), name: "roöt".into() };
            assert_eq!(found.partitions, [part]);
        }
    }

    #[test]
    fn what_is_no_table_is_none() {
        assert_eq!(table(&[], 0), None);
        assert_eq!(table(&[0; 4096], MIB), None);
        assert_eq!(table(&mbr_disk(&[]), MIB), None, "a signature alone");
        assert_eq!(table(&mbr_disk(&[(0x83, 2048, 5)]), MIB), None, "behind the end");
        let mut code = mbr_disk(&[(0x83, 8, 5)]);
        code[446] = b'x';
        assert_eq!(table(&code, MIB), None);
        let mut damaged = gpt_disk(512);
        damaged[512 + 40] ^= 1;
        assert_eq!(table(&damaged, 16 * MIB).unwrap().scheme, Scheme::Mbr, "only its protective MBR");
    }

    #[test]
    fn any_bytes_are_borne() {
        let mut state = 7u64;
        for sector in [512usize, 4096] {
            let good = gpt_disk(sector);
            for _ in 0..20_000 {
                let mut head = good.clone();
                for _ in 0..4 {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let at = [446, sector, 2 * sector + 128][(state >> 20) as usize % 3]
                        + (state >> 40) as usize % 128;
                    head[at] = (state >> 56) as u8;
                }
                let crc = {
                    head[sector + 16..sector + 20].fill(0);
                    let len = le32(&head, sector + 12).unwrap() as usize;
                    head.get(sector..sector + len).map_or(0, crc32fast::hash)
                };
                head[sector + 16..sector + 20].copy_from_slice(&crc.to_le_bytes());
                head.truncate((state >> 30) as usize % HEAD_BYTES + 1);
                for part in table(&head, 16 * MIB).into_iter().flat_map(|table| table.partitions) {
                    assert!(part.start + part.len <= 16 * MIB && part.len > 0);
                }
            }
        }
    }
}
