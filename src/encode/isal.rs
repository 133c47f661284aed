//! Raw deflate by ISA-L's level 2, through its C interface: the one place of this stage where
//! `unsafe` stands.
#![allow(unsafe_code)]

use isal_sys::igzip_lib::{
    COMP_OK, IGZIP_DEFLATE, ISAL_DEF_LVL2_DEFAULT, NO_FLUSH, isal_deflate_stateless,
    isal_deflate_stateless_init, isal_zstream,
};

const LEVEL: u32 = 2;

/// A compressor: the library's stream of 80 KiB and the level's own buffer, both kept
/// between clusters.
pub(super) struct Isal {
    stream: Box<isal_zstream>,
    /// Aligned as what `malloc` gives, which is what the library is used to.
    level_buffer: Vec<u128>,
    window_bits: u8,
}

// SAFETY: the pointers in `stream` are set anew by each call of `compress` and are not followed
// between two of them, so they tie the struct to no thread.
unsafe impl Send for Isal {}

impl Isal {
    /// With a window of two to the power of `window_bits` bytes, 9 to 15.
    pub(super) fn new(window_bits: u8) -> Self {
        // SAFETY: numbers, arrays of numbers and raw pointers may all be zero.
        let stream = Box::new(unsafe { std::mem::zeroed() });
        let level_buffer = vec![0; (ISAL_DEF_LVL2_DEFAULT as usize).div_ceil(size_of::<u128>())];
        Self { stream, level_buffer, window_bits }
    }

    /// Compresses `input` to the start of `output`; `None` where it does not fit.
    pub(super) fn compress(&mut self, input: &[u8], output: &mut [u8]) -> Option<usize> {
        let stream = &mut *self.stream;
        // SAFETY: a valid and exclusive pointer; the call sets fields and follows none of them.
        unsafe { isal_deflate_stateless_init(stream) };
        // The library takes `*mut`, but only reads what it compresses.
        stream.next_in = input.as_ptr().cast_mut();
        stream.avail_in = u32::try_from(input.len()).ok()?;
        stream.next_out = output.as_mut_ptr();
        stream.avail_out = u32::try_from(output.len()).ok()?;
        stream.level = LEVEL;
        stream.level_buf = self.level_buffer.as_mut_ptr().cast();
        stream.level_buf_size = ISAL_DEF_LVL2_DEFAULT;
        stream.hist_bits = u16::from(self.window_bits);
        stream.end_of_stream = 1;
        stream.flush = NO_FLUSH as u16;
        stream.gzip_flag = IGZIP_DEFLATE as u16;
        // SAFETY: `next_in`, `next_out` and `level_buf` each lead to as many bytes as the length beside
        // it says; they are borrowed or owned for the length of this call and do not overlap.
        let status = unsafe { isal_deflate_stateless(stream) };
        (status == COMP_OK as i32).then_some(stream.total_out as usize)
    }
}
