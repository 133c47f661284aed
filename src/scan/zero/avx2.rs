//! The AVX2 kernel: 256 bytes, eight vectors, for each test.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, _mm256_loadu_si256, _mm256_or_si256, _mm256_setzero_si256, _mm256_testz_si256,
};

/// The kernel, if this machine has AVX2.
pub(super) fn is_zero() -> Option<fn(&[u8]) -> bool> {
    if !std::is_x86_feature_detected!("avx2") {
        return None;
    }
    // SAFETY: AVX2 has just been detected, and this function pointer is made nowhere else.
    Some(|bytes| unsafe { is_zero_avx2(bytes) })
}

#[target_feature(enable = "avx2")]
fn is_zero_avx2(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<256>();
    blocks.iter().all(|block| is_zero_block(block)) && rest.iter().all(|&byte| byte == 0)
}

#[target_feature(enable = "avx2")]
fn is_zero_block(block: &[u8; 256]) -> bool {
    let (vectors, _) = block.as_chunks::<32>();
    let mut all = _mm256_setzero_si256();
    for vector in vectors {
        // SAFETY: `vector` is 32 readable bytes, and this load needs no alignment.
        let loaded = unsafe { _mm256_loadu_si256(vector.as_ptr().cast::<__m256i>()) };
        all = _mm256_or_si256(all, loaded);
    }
    _mm256_testz_si256(all, all) == 1
}
