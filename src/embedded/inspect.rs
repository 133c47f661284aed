//! Glance's look at the first 512 bytes of an upload, and its refusals.

use super::answer::Refused;

/// How much of an image the inspector sees, in bytes.
pub(super) const HEAD_BYTES: usize = 512;
/// The incompatible features that it lets pass: dirty, corrupt, compression type. Bit 2 (external
/// data file) and everything above bit 3 (extended L2 entries) are refused.
const FEATURES: u64 = 0b1011;

/// Checks an upload of `len` bytes that begins with `head`; its virtual size, where it is known.
pub(super) fn inspect(disk_format: &str, head: &[u8], len: u64) -> Result<Option<u64>, Refused> {
    if disk_format != "qcow2" {
        return Ok((disk_format == "raw").then_some(len));
    }
    // Measured: an upload of no bytes at all becomes active.
    if len == 0 {
        return Ok(None);
    }
    let word = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().expect("8 bytes"));
    if head.len() < HEAD_BYTES || !head.starts_with(b"QFI\xfb") {
        return Err(Refused::new(415, "Image disk_format qcow2 does not match stream data raw"));
    }
    let version = u32::from_be_bytes(head[4..8].try_into().expect("4 bytes"));
    let features = if version == 3 { word(72) } else { 0 };
    let failed_check = match () {
        () if !(2..=3).contains(&version) => Some("version"),
        () if word(8) != 0 => Some("backing_file"),
        () if features & 0b100 != 0 => Some("data_file"),
        () if features & !(FEATURES | 0b100) != 0 => Some("unknown_features"),
        () => None,
    };
    match failed_check {
        Some(check) => Err(Refused::new(415, format!("Image failed safety checks: {check}"))),
        None => Ok(Some(word(24))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: u32, features: u64) -> Vec<u8> {
        let mut head = vec![0; HEAD_BYTES];
        head[..4].copy_from_slice(b"QFI\xfb");
        head[4..8].copy_from_slice(&version.to_be_bytes());
        head[24..32].copy_from_slice(&(5u64 << 30).to_be_bytes());
        head[72..80].copy_from_slice(&features.to_be_bytes());
        head
    }

    #[test]
    fn what_glance_takes_and_refuses() {
        for (version, features) in [(2, 0), (3, 0), (3, 0b1000), (3, 0b11)] {
            let size = inspect("qcow2", &head(version, features), 4096).expect("taken");
            assert_eq!(size, Some(5 << 30), "version {version}, features {features:b}");
        }
        for (version, features) in [(1, 0), (4, 0), (3, 0b100), (3, 0b1_0000), (3, 0b10_0000)] {
            assert_eq!(inspect("qcow2", &head(version, features), 4096).expect_err("refused").status, 415);
        }
        let mut backed = head(3, 0);
        backed[15] = 1;
        assert!(inspect("qcow2", &backed, 4096).expect_err("refused").text.contains("safety checks"));
        assert!(inspect("qcow2", &head(3, 0)[..511], 511).is_err());
        assert!(inspect("qcow2", &[0; HEAD_BYTES], 4096).is_err());
        assert_eq!(inspect("qcow2", &[], 0).expect("taken"), None);
        assert_eq!(inspect("raw", &head(3, 0), 4096).expect("taken"), Some(4096));
    }
}
