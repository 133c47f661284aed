//! The plain kernel: runs everywhere, and is what the others are tested against.

/// Sixteen bytes at a time, with one look at the result for every 256.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<256>();
    blocks.iter().all(is_zero_block) && rest.iter().all(|&byte| byte == 0)
}

fn is_zero_block(block: &[u8; 256]) -> bool {
    let (words, _) = block.as_chunks::<16>();
    words.iter().fold(0, |all, word| all | u128::from_ne_bytes(*word)) == 0
}
