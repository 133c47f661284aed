//! Checksums of filesystems, bit by bit definitions in tables: no code is shared with the readers.

const fn reflected(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let (mut value, mut bit) = (index as u32, 0);
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ polynomial } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

const fn straight(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let (mut value, mut bit) = ((index as u32) << 24, 0);
        while bit < 8 {
            value = if value >> 31 == 1 { value << 1 ^ polynomial } else { value << 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

static CASTAGNOLI: [u32; 256] = reflected(0x82f6_3b78);
static IEEE: [u32; 256] = reflected(0xedb8_8320);
static CRC16: [u32; 256] = reflected(0xa001);
static IEEE_BE: [u32; 256] = straight(0x04c1_1db7);

fn run(table: &[u32; 256], from: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(from, |sum, byte| sum >> 8 ^ table[(sum as u8 ^ byte) as usize])
}

/// CRC-32C, without inversions: `crc32c_le` of Linux.
pub fn crc32c(from: u32, bytes: &[u8]) -> u32 {
    run(&CASTAGNOLI, from, bytes)
}

/// CRC-32, without inversions.
pub fn crc32(from: u32, bytes: &[u8]) -> u32 {
    run(&IEEE, from, bytes)
}

/// CRC-16: `crc16` of Linux.
pub fn crc16(from: u16, bytes: &[u8]) -> u16 {
    run(&CRC16, from.into(), bytes) as u16
}

/// CRC-32 with the highest bit first: `crc32_be` of Linux.
pub fn crc32_be(from: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(from, |sum, byte| sum << 8 ^ IEEE_BE[((sum >> 24) as u8 ^ byte) as usize])
}
