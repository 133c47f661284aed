//! What the types of partitions say, in words.

use super::Role;
use crate::free::bytes::{le16, le32};

/// The word for the type of an MBR's entry, and what follows from it.
pub(super) fn of_mbr(kind: u8) -> (String, Role) {
    let word = match kind {
        0x05 | 0x0f | 0x85 => return ("extended".into(), Role::Container),
        0x06 | 0x0b | 0x0c | 0x0e => "FAT",
        0x07 => "NTFS or exFAT",
        0x41 => return ("PReP boot".into(), Role::Boot),
        0x82 => "Linux swap",
        0x83 => "Linux",
        0x8e => "Linux LVM",
        0xa5 | 0xa6 | 0xa9 => "BSD",
        0xee => return ("protective".into(), Role::Container),
        0xef => return ("EFI system".into(), Role::Boot),
        0xfd => return ("Linux RAID".into(), Role::Raid),
        other => return (format!("type {other:#04x}"), Role::Data),
    };
    (word.into(), Role::Data)
}

/// The word for the type of a GPT's entry (UEFI; the Discoverable Partitions Specification; Microsoft).
pub(super) fn of_gpt(guid: &[u8]) -> (String, Role) {
    let text = guid_text(guid);
    let word = match text.as_str() {
        "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" => return ("EFI system".into(), Role::Boot),
        "21686148-6449-6e6f-744e-656564454649" => return ("BIOS boot".into(), Role::Boot),
        "9e1a2d38-c612-4316-aa26-8b49521e5a8b" => return ("PReP boot".into(), Role::Boot),
        "a19d880f-05fc-4d3b-a006-743f0f84911e" => return ("Linux RAID".into(), Role::Raid),
        "0fc63daf-8483-4772-8e79-3d69d8477de4" => "Linux",
        "4f68bce3-e8cd-4db1-96e7-fbcaf984b709" | "b921b045-1df0-41c3-af44-4c6f280d3fae" => "Linux root",
        "bc13c2ff-59e6-4262-a352-b275fd6f7172" => "Linux /boot",
        "933ac7e1-2eb4-4f13-b844-0e14e2aef915" => "Linux /home",
        "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f" => "Linux swap",
        "e6d6d379-f507-44c2-a23c-238f2a3df928" => "Linux LVM",
        "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7" => "NTFS, exFAT or FAT",
        "e3c9e316-0b5c-4db8-817d-f92df00215ae" => "Microsoft reserved",
        "de94bba4-06d1-4d40-a16a-bfd50179d6ac" => "Windows recovery",
        _ => return (format!("type {text}"), Role::Data),
    };
    (word.into(), Role::Data)
}

/// A GUID as people write it: its first three fields are little-endian on the disk (UEFI, appendix A).
fn guid_text(guid: &[u8]) -> String {
    let rest: String = guid.iter().skip(10).map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{rest}",
        le32(guid, 0).unwrap_or(0),
        le16(guid, 4).unwrap_or(0),
        le16(guid, 6).unwrap_or(0),
        le16(guid, 8).unwrap_or(0).swap_bytes(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_reads_as_its_document_has_it() {
        let linux =
            [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4];
        assert_eq!(of_gpt(&linux), ("Linux".into(), Role::Data));
        assert_eq!(guid_text(&[0; 16]), "00000000-0000-0000-0000-000000000000");
        assert_eq!(of_mbr(0x0f).1, Role::Container);
        assert_eq!(of_mbr(0x77), ("type 0x77".into(), Role::Data));
    }
}
