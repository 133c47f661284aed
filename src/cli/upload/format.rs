//! What a file is, by its content: its name is not believed.
//!
//! Magic numbers: QEMU's `block/` (vpc.c, qed.c, parallels.c), ISO 9660 at byte 32769, POSIX tar at byte 257, and the
//! compressors' own formats (RFC 1952, RFC 8878, xz-file-format.txt).

use clap::ValueEnum;
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::read::{CheckOptions, Class, Input, Report, Severity, check};
use snapcow::source::{PROBE_BYTES, image_format};

/// The formats that are uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Raw,
    Qcow2,
}

/// Bytes at the beginning that are looked at: an ISO 9660 file system is known by its byte 32769.
const HEAD_BYTES: usize = 32_774;
/// The footer of a VHD, which is all that one of fixed size has.
const FOOTER_BYTES: u64 = 512;
/// Where a qcow2 header says how its data are encrypted; 0 is not at all.
const CRYPT_METHOD_AT: usize = 32;

/// What must not be taken for a raw disk: where which bytes are, what they mean, and what to do.
const OTHERS: &[(usize, &[u8], &str, &str)] = &[
    (0, b"conectix", "VHD image", CONVERT),
    (0, b"QED\0", "QED image", CONVERT),
    (0, b"WithoutFreeSpace", "Parallels image", CONVERT),
    (0, b"WithouFreSpacExt", "Parallels image", CONVERT),
    (0, b"\x1f\x8b", "gzip file", UNPACK),
    (0, b"\xfd7zXZ\0", "xz file", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "zstd file", UNPACK),
    (0, b"BZh", "bzip2 file", UNPACK),
    (0, b"PK\x03\x04", "zip file", UNPACK),
    (257, b"ustar", "tar archive (as an OVA is)", UNPACK),
    (32_769, b"CD001", "ISO 9660 image", "upload it as what it is: openstack image create --disk-format iso"),
];
const CONVERT: &str = "convert it first: qemu-img convert -O qcow2 FILE NEW.qcow2";
const UNPACK: &str = "unpack it first";

/// The format of a file that may be uploaded; `wanted` is what its owner says that it is.
///
/// # Errors
/// [`Kind::Source`] for an empty file, another format, or one that is not `wanted`. `wanted` raw takes anything for
/// the bytes of a disk.
pub fn format(input: &Input, wanted: Option<Format>) -> Result<Format> {
    let refuse = |what: String, advice: &str| {
        Err(Error::new(Stage::Source, Kind::Source, format!("`{}` {what}", input.name)).advise(advice))
    };
    if input.len == 0 {
        return refuse("is empty".into(), "look whether whatever wrote it has failed");
    }
    let found = content(input)?;
    match (wanted, found) {
        (Some(Format::Raw), _) | (None, Content::Raw) => Ok(Format::Raw),
        (_, Content::Qcow2) => Ok(Format::Qcow2),
        (_, Content::Other(what, advice)) => refuse(
            format!("begins or ends like a {what}, which is not uploaded"),
            &format!("{advice}, or give -f raw if the guest is to see these bytes"),
        ),
        (Some(Format::Qcow2), Content::Raw) => {
            refuse("is no qcow2 image".into(), "leave -f out, if it is a raw disk")
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Content {
    Raw,
    Qcow2,
    Other(&'static str, &'static str),
}

fn content(input: &Input) -> Result<Content> {
    let mut head = vec![0; (HEAD_BYTES as u64).min(input.len) as usize];
    input.bytes.read_at(&mut head, 0)?;
    let mut foot = [0; 8];
    if input.len >= FOOTER_BYTES {
        input.bytes.read_at(&mut foot, input.len - FOOTER_BYTES)?;
    }
    Ok(classify(&head, &foot))
}

/// By the beginning, and the first bytes of the last sector.
fn classify(head: &[u8], foot: &[u8]) -> Content {
    match image_format(&head[..head.len().min(PROBE_BYTES)]) {
        Some("qcow2") => return Content::Qcow2,
        Some(other) => return Content::Other(other, CONVERT),
        None => {}
    }
    if foot.starts_with(b"conectix") {
        return Content::Other("VHD image", CONVERT);
    }
    let is_there = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
    let other = OTHERS.iter().find(|(at, magic, ..)| is_there(*at, magic));
    other.map_or(Content::Raw, |(_, _, what, advice)| Content::Other(what, advice))
}

/// A qcow2 image that is fit for being uploaded: the size of its disk in bytes, and what is worth a word.
#[derive(Debug)]
pub struct Sound {
    pub virtual_size: u64,
    pub notes: Vec<String>,
}

/// Reads all tables of a qcow2 image.
///
/// # Errors
/// [`Kind::Source`] for one that needs other files or a key, [`Kind::Damaged`] for one that is not sound.
pub fn examine(input: Input, memory_bytes: u64) -> Result<Sound> {
    let name = input.name.clone();
    let mut method = [0; 4];
    if input.len >= (CRYPT_METHOD_AT + method.len()) as u64 {
        input.bytes.read_at(&mut method, CRYPT_METHOD_AT as u64)?;
    }
    if method != [0; 4] {
        let what = format!("`{name}` is encrypted, and a cloud has no key for it");
        return Err(Error::new(Stage::Source, Kind::Source, what)
            .advise("decrypt it first, by qemu-img convert with --object secret"));
    }
    sound(&check(input, CheckOptions { memory_bytes, ..CheckOptions::default() })?, &name)
}

fn sound(report: &Report, name: &str) -> Result<Sound> {
    let first = |severity| report.findings.kept().iter().find(|one| one.class.severity() == severity);
    if let Some(external) = report.findings.kept().iter().find(|one| one.class == Class::ExternalFile) {
        let what = format!("`{name}` is not all of its disk: {}", external.text);
        return Err(Error::new(Stage::Source, Kind::Source, what)
            .advise("make it whole: qemu-img convert -O qcow2 FILE NEW.qcow2"));
    }
    let errors = report.findings.count(Severity::Error);
    let (0, Some(facts)) = (errors, &report.facts) else {
        let text = first(Severity::Error).map_or("its header tells nothing", |one| one.text.as_str());
        let what = format!("`{name}` is damaged: {errors} errors, the first: {text}");
        return Err(Error::new(Stage::Source, Kind::Damaged, what)
            .advise("see `snapcow check`, repair it with qemu-img check -r all, or take another copy"));
    };
    let mut notes = Vec::new();
    if let Some(leak) = first(Severity::Leak) {
        notes.push(format!("the image wastes space, its data are sound: {}", leak.text));
    }
    if facts.snapshots > 0 {
        let count = facts.snapshots;
        notes.push(format!(
            "{count} internal snapshots go along, of use to nobody: qemu-img convert leaves them out"
        ));
    }
    Ok(Sound { virtual_size: facts.virtual_size, notes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn input(bytes: Vec<u8>) -> Input {
        Input { len: bytes.len() as u64, bytes: Arc::new(bytes), name: "x".into() }
    }

    #[test]
    fn every_format_is_known_by_its_content() {
        for (at, magic, what, _) in OTHERS {
            let mut bytes = vec![0; 40_000];
            bytes[*at..*at + magic.len()].copy_from_slice(magic);
            let error = format(&input(bytes.clone()), None).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
            assert_eq!(format(&input(bytes.clone()), Some(Format::Raw)).unwrap(), Format::Raw);
            assert!(format(&input(bytes), Some(Format::Qcow2)).is_err());
        }
        let mut fixed = vec![7; 10_240];
        fixed[9728..9736].copy_from_slice(b"conectix");
        assert!(format(&input(fixed), None).unwrap_err().to_string().contains("VHD"));
        assert!(format(&input(b"KDMV".to_vec()), None).unwrap_err().to_string().contains("VMDK"));
        assert_eq!(format(&input(b"QFI\xfb\0\0\0\x03".to_vec()), None).unwrap(), Format::Qcow2);
        assert_eq!(format(&input(vec![1]), None).unwrap(), Format::Raw);
        assert!(format(&input(vec![1; 600]), Some(Format::Qcow2)).is_err());
        assert!(format(&input(Vec::new()), None).unwrap_err().to_string().contains("empty"));
    }

    #[test]
    fn a_damaged_or_encrypted_image_is_refused_without_a_panic() {
        for len in [4, 33, 72, 104, 512, 70_000] {
            let mut bytes = vec![0xff; len];
            bytes[..4].copy_from_slice(b"QFI\xfb");
            assert!(examine(input(bytes), 1 << 20).is_err(), "{len}");
        }
        let mut bytes = vec![0; 512];
        bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        bytes[35] = 2;
        assert!(examine(input(bytes), 1 << 20).unwrap_err().to_string().contains("encrypted"));
    }
}
