//! Is it all zeros? One safe function over leaves for each instruction set, chosen once at run
//! time. Tests and benchmarks walk [`kernels`].
//!
//! # Decisions
//! - A cheap look at three words decides most data clusters before any kernel runs, as QEMU's
//!   `buffer_is_zero` does (`util/bufferiszero.c`).
//! - There is no AVX-512 and no NEON leaf: on cold memory AVX2 already runs at the read limit, and
//!   neither could be run where this was written. Revisit with a machine that has them.

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
mod avx2;
mod portable;

/// A way to tell whether all bytes are zero.
#[derive(Clone, Copy)]
pub struct Kernel {
    /// Name of the instruction set.
    pub name: &'static str,
    /// The test itself.
    pub is_zero: fn(&[u8]) -> bool,
}

/// The kernels that this machine can run, the portable one first, the preferred one last.
pub fn kernels() -> Vec<Kernel> {
    let mut kernels = vec![Kernel { name: "portable", is_zero: portable::is_zero }];
    #[cfg(target_arch = "x86_64")]
    if let Some(is_zero) = avx2::is_zero() {
        kernels.push(Kernel { name: "avx2", is_zero });
    }
    kernels
}

/// The kernel that [`is_zero`] uses.
pub fn preferred() -> Kernel {
    static PREFERRED: OnceLock<Kernel> = OnceLock::new();
    *PREFERRED.get_or_init(|| *kernels().last().expect("the portable kernel is always there"))
}

/// Whether every byte is zero. True for no bytes at all.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return true;
    };
    (first | last | bytes[bytes.len() / 2]) == 0 && (preferred().is_zero)(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kernel against a marker at every position of buffers of many lengths, at every
    /// alignment that a vector of 32 bytes can have.
    #[test]
    fn every_kernel_sees_a_single_byte_wherever_it_lies() {
        let lengths: Vec<usize> =
            (0..=70).chain([127, 128, 129, 255, 256, 257, 511, 512, 513, 1000]).collect();
        let mut memory = vec![0u8; 2048];
        for kernel in kernels() {
            for start in 0..32 {
                for &len in &lengths {
                    assert!((kernel.is_zero)(&memory[start..start + len]), "{} {start}+{len}", kernel.name);
                    for position in start..start + len {
                        memory[position] = 0x80;
                        let found = !(kernel.is_zero)(&memory[start..start + len]);
                        memory[position] = 0;
                        assert!(found, "{} {start}+{len} at {position}", kernel.name);
                    }
                    if start + len < memory.len() {
                        memory[start + len] = 1;
                        assert!((kernel.is_zero)(&memory[start..start + len]), "{} reads on", kernel.name);
                        memory[start + len] = 0;
                    }
                }
            }
        }
    }

    #[test]
    fn the_facade_agrees_with_the_definition() {
        for len in [0usize, 1, 2, 3, 512, 65536] {
            let mut bytes = vec![0u8; len];
            assert!(is_zero(&bytes));
            for position in [0, len / 3, len / 2, len.saturating_sub(1)] {
                if let Some(byte) = bytes.get_mut(position) {
                    *byte = 1;
                    assert!(!is_zero(&bytes), "{len} at {position}");
                    bytes[position] = 0;
                }
            }
        }
    }
}
