//! What the pages of a generated disk look like, each from the seed and its number alone.

/// The unit of a generated disk, in bytes; extents and gaps are whole pages.
pub(super) const PAGE_BYTES: u64 = 4096;

/// What the pages of an extent look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Log lines and configuration: a third to a quarter of their size when compressed.
    Text,
    /// Program-like records: about half.
    Binary,
    /// Already compressed or encrypted: does not get smaller.
    Noise,
}

/// Words of which text pages are made, space included: the usual vocabulary of logs and settings.
const WORDS: [&[u8]; 64] = [
    b"systemd[1]: ",
    b"Started ",
    b"Stopped ",
    b"session ",
    b"kernel: ",
    b"INFO ",
    b"WARNING ",
    b"ERROR ",
    b"connection ",
    b"from ",
    b"port ",
    b"accepted ",
    b"request ",
    b"GET /index.html ",
    b"HTTP/1.1\" ",
    b"200 ",
    b"user ",
    b"root ",
    b"daemon ",
    b"opened ",
    b"closed ",
    b"for ",
    b"by ",
    b"(uid=0) ",
    b"sshd[811]: ",
    b"service ",
    b"server ",
    b"address ",
    b"listen ",
    b"timeout ",
    b"retry ",
    b"failed ",
    b"success ",
    b"configuration ",
    b"loaded ",
    b"module ",
    b"device ",
    b"eth0 ",
    b"disk ",
    b"vda1 ",
    b"mounted ",
    b"filesystem ",
    b"with ",
    b"ordered ",
    b"data ",
    b"mode ",
    b"cron[204]: ",
    b"job ",
    b"finished ",
    b"in ",
    b"seconds ",
    b"queue ",
    b"worker ",
    b"process ",
    b"thread ",
    b"memory ",
    b"cache ",
    b"update ",
    b"package ",
    b"python3 ",
    b"library ",
    b"version ",
    b"the ",
    b"# ",
];

impl Look {
    /// What a random extent looks like: noise with the chance of the threshold, else text or program
    /// alike.
    pub(super) fn draw(random: &mut Random, noise: u64) -> Self {
        let compressible = u64::MAX - noise;
        match random.next() {
            _ if compressible == 0 => Self::Noise,
            drawn if drawn <= compressible / 2 => Self::Text,
            drawn if drawn <= compressible => Self::Binary,
            _ => Self::Noise,
        }
    }

    /// Fills a page.
    pub(super) fn fill(self, seed: u64, page: u64, out: &mut [u8; PAGE_BYTES as usize]) {
        let mut random = Random::new(seed ^ 0x05ee_d0f9_a6e5, page);
        match self {
            Self::Text => fill_text(&mut random, page, out),
            Self::Binary => fill_binary(&mut random, page, out),
            Self::Noise => {
                for word in out.as_chunks_mut::<8>().0 {
                    *word = random.next().to_le_bytes();
                }
            }
        }
    }
}

/// Lines of a time stamp, an identifier and up to eleven words.
fn fill_text(random: &mut Random, page: u64, out: &mut [u8; PAGE_BYTES as usize]) {
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        let len = bytes.len().min(out.len() - at);
        out[at..at + len].copy_from_slice(&bytes[..len]);
        at += len;
        at < PAGE_BYTES as usize
    };
    let mut second = page % 86_400;
    loop {
        let mut stamp = *b"2026-07-14T00:00:00.000Z ";
        second = (second + 1) % 86_400;
        for (position, number) in [(11, second / 3600), (14, second / 60 % 60), (17, second % 60)] {
            stamp[position] = b'0' + (number / 10) as u8;
            stamp[position + 1] = b'0' + (number % 10) as u8;
        }
        let mut bits = random.next();
        let millisecond = bits >> 48;
        for (position, digit) in stamp[20..23].iter_mut().enumerate() {
            *digit = b'0' + ((millisecond >> (4 * position)) & 7) as u8;
        }
        let id = format_hex((bits >> 40) as u32);
        if !put(&stamp) || !put(&id) {
            return;
        }
        for _ in 0..2 + bits as usize % 10 {
            bits >>= 6;
            if !put(WORDS[bits as usize % WORDS.len()]) {
                return;
            }
        }
        if !put(b"\n") {
            return;
        }
    }
}

/// `number` as eight digits and a space.
fn format_hex(number: u32) -> [u8; 9] {
    let mut text = *b"00000000 ";
    for (position, digit) in text[..8].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * position) & 15) as usize];
    }
    text
}

/// Records of 16 bytes as a program's file has them: a few opcodes, a small operand, an address
/// that grows, and something that cannot be foretold.
fn fill_binary(random: &mut Random, page: u64, out: &mut [u8; PAGE_BYTES as usize]) {
    const OPCODES: [[u8; 4]; 8] = [
        [0x48, 0x8b, 0x45, 0xf8],
        [0x48, 0x89, 0xe5, 0x55],
        [0xe8, 0x00, 0x00, 0x00],
        [0x0f, 0x1f, 0x44, 0x00],
        [0x48, 0x83, 0xec, 0x20],
        [0xc3, 0x90, 0x90, 0x90],
        [0x4c, 0x8d, 0x3d, 0x00],
        [0x85, 0xc0, 0x74, 0x0a],
    ];
    let mut address = 0x40_0000 + (page as u32).wrapping_mul(PAGE_BYTES as u32);
    for record in out.as_chunks_mut::<16>().0 {
        let bits = random.next();
        address = address.wrapping_add(bits as u32 & 0x3c);
        record[..4].copy_from_slice(&OPCODES[(bits >> 8) as usize % OPCODES.len()]);
        record[4..8].copy_from_slice(&address.to_le_bytes());
        record[8..12].copy_from_slice(&((bits >> 16) as u32).to_le_bytes());
        record[12..].copy_from_slice(&OPCODES[(bits >> 48) as usize % OPCODES.len()]);
    }
}

/// SplitMix64: small, fast, and ours, so that no dependency's update changes the generated disk.
pub(super) struct Random(u64);

impl Random {
    /// The numbers of one stream of a seed.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        random.0 = random.next();
        random
    }

    /// Any number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// A length of at least 1 with about that mean, of which what is left never depends on what has
    /// passed.
    pub(super) fn length(&mut self, mean: f64) -> u64 {
        // Rounding down takes half away on average.
        if mean <= 1.0 { 1 } else { 1 + (self.exponential() * (mean - 0.5).min(1e15)) as u64 }
    }

    /// Exponentially distributed with mean 1, by comparisons alone (von Neumann 1951), so that no
    /// mathematical library's rounding gets into a disk.
    fn exponential(&mut self) -> f64 {
        let mut whole = 0.0;
        loop {
            let first = self.next();
            let (mut last, mut falls) = (first, 0);
            loop {
                let next = self.next();
                if next >= last {
                    break;
                }
                (last, falls) = (next, falls + 1);
            }
            if falls % 2 == 0 {
                return whole + first as f64 / 2f64.powi(64);
            }
            whole += 1.0;
        }
    }

    /// From 1 to 2^`bits`, small numbers as likely as large ones.
    pub(super) fn log_uniform(&mut self, bits: u64) -> u64 {
        let top = 1 << self.below(bits);
        top + self.below(top + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_compress_as_the_files_that_they_stand_for() {
        let mut compressor =
            libdeflater::Compressor::new(libdeflater::CompressionLvl::new(1).expect("level"));
        for (look, from, to) in [(Look::Text, 2.8, 4.5), (Look::Binary, 1.6, 2.5), (Look::Noise, 0.9, 1.01)] {
            let mut cluster = vec![0; 65_536];
            for (number, page) in cluster.as_chunks_mut::<4096>().0.iter_mut().enumerate() {
                look.fill(5, 1000 + number as u64, page);
            }
            let mut out = vec![0; 70_000];
            let len = compressor.deflate_compress(&cluster, &mut out).expect("room");
            let ratio = cluster.len() as f64 / len as f64;
            assert!((from..to).contains(&ratio), "{look:?}: {ratio:.2}");
        }
    }
}
