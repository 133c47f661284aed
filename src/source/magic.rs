//! Image formats by their first bytes, so that nobody gets a qcow2 inside a qcow2.

/// How many bytes [`image_format`] looks at.
pub const PROBE_BYTES: usize = 68;

/// The image format that a file beginning with these bytes has; `None` for a raw disk.
///
/// qcow2 and qcow: QEMU `block/qcow2.h`; VMDK: `block/vmdk.c`; VDI: `block/vdi.c`, at byte 64; VHDX:
/// `block/vhdx.h`.
pub fn image_format(head: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    if at(0, b"QFI\xfb") {
        Some("qcow2")
    } else if at(0, b"KDMV") || at(0, b"COWD") || at(0, b"# Disk DescriptorFile") {
        Some("VMDK")
    } else if at(64, &0xbeda_107fu32.to_le_bytes()) {
        Some("VDI")
    } else if at(0, b"vhdxfile") {
        Some("VHDX")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_first_bytes() {
        let mut vdi = vec![0; PROBE_BYTES];
        vdi[64..].copy_from_slice(&[0x7f, 0x10, 0xda, 0xbe]);
        assert_eq!(image_format(&vdi), Some("VDI"));
        assert_eq!(image_format(b"QFI\xfb\0\0\0\x03"), Some("qcow2"));
        assert_eq!(image_format(b"KDMV"), Some("VMDK"));
        assert_eq!(image_format(b"vhdxfile"), Some("VHDX"));
        assert_eq!(image_format(b"\xeb\x63\x90"), None);
        assert_eq!(image_format(b""), None);
    }
}
