//! The checksums of filesystems, by the names that their documents use.

use crc::{CRC_16_ARC, CRC_32_ISCSI, Crc, Table};

static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);
static CRC16: Crc<u16> = Crc::<u16>::new(&CRC_16_ARC);

/// Castagnoli's CRC-32 as Linux has it (`crc32c_le`): from any value, without a final inversion.
pub(super) fn crc32c(from: u32, bytes: &[u8]) -> u32 {
    let mut digest = CRC32C.digest_with_initial(from.reverse_bits());
    digest.update(bytes);
    !digest.finalize()
}

/// The CRC-16 of Linux (`crc16`, polynomial 0x8005 reflected), from any value.
pub(super) fn crc16(from: u16, bytes: &[u8]) -> u16 {
    let mut digest = CRC16.digest_with_initial(from.reverse_bits());
    digest.update(bytes);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_go_on_from_where_they_stopped() {
        // The check values of the catalogue of CRCs.
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(crc32c(!0, b"1234"), b"56789"), crc32c(!0, b"123456789"));
        assert_eq!(crc16(0, b"123456789"), 0xbb3d);
        assert_eq!(crc16(crc16(0, b"1234"), b"56789"), 0xbb3d);
    }
}
