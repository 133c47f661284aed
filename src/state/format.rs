//! The bytes of a state file, version 1. All numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `snapcowS` |
//! | 4 | version, 1 |
//! | 4 | cluster size as a power of two; 0: there is no survey, and the next four numbers are 0 |
//! | 8 | length of the disk in bytes |
//! | 8 | length of the image in bytes: the plan that the map leads to |
//! | 8 | guest clusters |
//! | 8 | data clusters |
//! | 7 × (4 + n) | texts, each its length in bytes and UTF-8: build, format, source, target, ID of the new image or nothing, hash of the source as `sha512:…` or nothing, digest of the guest's content or nothing |
//! | ⌈clusters ÷ 8⌉ | one bit for each guest cluster, lowest bit first: 1 for data |
//! | data clusters × 8 | 4 bytes stored length, 4 bytes CRC-32 of the guest bytes |
//! | 32 | SHA-256 of everything before |
//!
//! Whoever reads it believes nothing: lengths are bounded before anything is allocated, and what is allocated
//! grows only with bytes that have come.

use std::io::{self, Read, Write};

use crate::hash::{Algorithm, Digest, Hasher};
use crate::map::{DataCluster, ImageMap};
use crate::units::ClusterSize;

pub(super) const MAGIC: &[u8; 8] = b"snapcowS";
const VERSION: u32 = 1;
/// Longest text, in bytes: a path has at most 4096.
const TEXT_BYTES_MAX: u32 = 16 << 10;
/// Bytes read at once.
const PIECE_BYTES: usize = 4096;
const SUM_BYTES: usize = 32;

/// What has to be the same in both runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The program and its codec, down to the instructions that it uses: [`crate::encode`]'s bytes may differ
    /// where this differs.
    pub build: String,
    /// Format and compression of the image.
    pub format: String,
    /// The source, its length and its hash.
    pub source: String,
    /// Where the image goes.
    pub target: String,
}

/// What pass 1 found.
#[derive(Debug)]
pub struct Survey {
    /// Length of the disk in bytes.
    pub len: u64,
    /// Its hash, where it was computed.
    pub digest: Option<Digest>,
    /// The digest of the guest's content, where it was computed.
    pub guest_digest: Option<String>,
    /// Length of the image in bytes.
    pub image_len: u64,
    /// The image map.
    pub map: ImageMap,
}

/// The same, lent.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Length of the disk in bytes.
    pub len: u64,
    /// Its hash, where it was computed.
    pub digest: Option<&'a Digest>,
    /// The digest of the guest's content, where it was computed.
    pub guest_digest: Option<&'a str>,
    /// Length of the image in bytes.
    pub image_len: u64,
    /// The image map.
    pub map: &'a ImageMap,
}

impl Survey {
    /// Lends it.
    pub fn found(&self) -> Found<'_> {
        Found {
            len: self.len,
            digest: self.digest.as_ref(),
            guest_digest: self.guest_digest.as_deref(),
            image_len: self.image_len,
            map: &self.map,
        }
    }
}

/// A whole state file.
#[derive(Debug)]
pub struct Saved {
    /// What has to be the same.
    pub key: Key,
    /// The new image's ID, in the cloud of the target.
    pub image: Option<String>,
    /// What pass 1 found, if it came to its end.
    pub survey: Option<Survey>,
}

/// Writes a state file.
///
/// # Errors
/// What the writer says; a text that is too long.
pub fn write(key: &Key, image: Option<&str>, found: Option<Found<'_>>, to: &mut dyn Write) -> io::Result<()> {
    let mut to = Summing { inner: to, sum: Hasher::new(Algorithm::Sha256) };
    to.put(MAGIC)?;
    to.put(&VERSION.to_le_bytes())?;
    let bits = found.map_or(0, |found| found.map.cluster_size().bits());
    to.put(&bits.to_le_bytes())?;
    let numbers = found.map_or([0; 4], |found| {
        [found.len, found.image_len, found.map.clusters(), found.map.data_clusters()]
    });
    numbers.iter().try_for_each(|number| to.put(&number.to_le_bytes()))?;
    let digest = found.and_then(|found| found.digest);
    let digest = digest.map(|digest| format!("{}:{}", digest.algorithm.name(), digest.hex));
    let (image, digest) = (image.unwrap_or_default(), digest.unwrap_or_default());
    let guest_digest = found.and_then(|found| found.guest_digest).unwrap_or_default();
    for text in [&key.build, &key.format, &key.source, &key.target, image, &digest, guest_digest] {
        let len = u32::try_from(text.len()).ok().filter(|len| *len <= TEXT_BYTES_MAX);
        let len = len.ok_or_else(|| io::Error::other("a text is too long for a state file"))?;
        to.put(&len.to_le_bytes())?;
        to.put(text.as_bytes())?;
    }
    if let Some(found) = found {
        write_map(found.map, &mut to)?;
    }
    let sum = unhex(&to.sum.clone().finish().hex);
    to.inner.write_all(&sum)
}

fn write_map(map: &ImageMap, to: &mut Summing<&mut dyn Write>) -> io::Result<()> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    let mut first = 0;
    while first < map.clusters() {
        let end = map.clusters().min(first + 8 * PIECE_BYTES as u64);
        piece.clear();
        piece.resize((end - first).div_ceil(8) as usize, 0);
        for cluster in (first..end).filter(|&cluster| map.is_data(crate::units::ClusterIndex(cluster))) {
            piece[((cluster - first) / 8) as usize] |= 1 << ((cluster - first) % 8);
        }
        to.put(&piece)?;
        first = end;
    }
    piece.clear();
    for (_, data) in map.data() {
        piece.extend_from_slice(&data.stored_len.to_le_bytes());
        piece.extend_from_slice(&data.guest_crc.to_le_bytes());
        if piece.len() >= PIECE_BYTES {
            to.put(&piece)?;
            piece.clear();
        }
    }
    to.put(&piece)
}

/// Reads a state file of a disk of at most `len_max` bytes.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that begins with its name.
pub fn read(from: &mut dyn Read, len_max: u64) -> Result<Saved, String> {
    let mut from = Summing { inner: from, sum: Hasher::new(Algorithm::Sha256) };
    if from.array::<8>()? != *MAGIC {
        return Err("is no state file of snapcow".into());
    }
    let version = u32::from_le_bytes(from.array()?);
    if version != VERSION {
        return Err(format!("has version {version}, and this build knows version {VERSION}"));
    }
    let bits = u32::from_le_bytes(from.array()?);
    let mut numbers = [0; 4];
    for number in &mut numbers {
        *number = u64::from_le_bytes(from.array()?);
    }
    let mut texts: [String; 7] = Default::default();
    for text in &mut texts {
        *text = from.text()?;
    }
    let [build, format, source, target, image, digest, guest_digest] = texts;
    let survey = match bits {
        0 if numbers == [0; 4] && digest.is_empty() && guest_digest.is_empty() => None,
        0 => return Err(damaged("numbers without a survey")),
        _ => Some(read_survey(bits, numbers, [&digest, &guest_digest], len_max, &mut from)?),
    };
    let sum = unhex(&from.sum.clone().finish().hex);
    let mut found = [0; SUM_BYTES];
    from.inner.read_exact(&mut found).map_err(|error| unreadable(&error))?;
    if found != sum {
        return Err(damaged("its checksum is another"));
    }
    if from.inner.read(&mut [0]).map_err(|error| unreadable(&error))? != 0 {
        return Err(damaged("there is something behind its end"));
    }
    let key = Key { build, format, source, target };
    Ok(Saved { key, image: Some(image).filter(|image| !image.is_empty()), survey })
}

fn read_survey(
    bits: u32,
    [len, image_len, clusters, data_clusters]: [u64; 4],
    [digest, guest_digest]: [&str; 2],
    len_max: u64,
    from: &mut Summing<&mut dyn Read>,
) -> Result<Survey, String> {
    let cs = ClusterSize::from_bits(bits).ok_or_else(|| damaged("no such cluster size"))?;
    if len > len_max {
        return Err(format!("is of a larger disk: of {len} bytes, and the source has {len_max}"));
    }
    if clusters != cs.clusters_for(len) || data_clusters > clusters {
        return Err(damaged("its numbers contradict each other"));
    }
    let is_hex = |text: &str| text.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !is_hex(guest_digest) {
        return Err(damaged("no such digest"));
    }
    let guest_digest = Some(guest_digest.to_owned()).filter(|digest| !digest.is_empty());
    let digest = match digest.split_once(':') {
        None if digest.is_empty() => None,
        Some((name, hex)) if is_hex(hex) => {
            let algorithm = Algorithm::from_name(name).ok_or_else(|| damaged("no such hash"))?;
            Some(Digest { algorithm, hex: hex.into() })
        }
        _ => return Err(damaged("no such hash")),
    };
    let bitmap = read_bitmap(clusters, data_clusters, from)?;
    let mut map = ImageMap::new(cs, 0);
    for cluster in 0..clusters {
        if bitmap[(cluster / 8) as usize] >> (cluster % 8) & 1 == 0 {
            map.push_zeros(1);
            continue;
        }
        let (stored_len, guest_crc) = (u32::from_le_bytes(from.array()?), u32::from_le_bytes(from.array()?));
        if !(1..=cs.bytes()).contains(&u64::from(stored_len)) {
            return Err(damaged("a cluster has no possible length"));
        }
        map.push_data(DataCluster { stored_len, guest_crc });
    }
    Ok(Survey { len, digest, guest_digest, image_len, map })
}

fn read_bitmap(
    clusters: u64,
    data_clusters: u64,
    from: &mut Summing<&mut dyn Read>,
) -> Result<Vec<u8>, String> {
    let mut bitmap = Vec::new();
    let mut left = clusters.div_ceil(8);
    let mut piece = [0; PIECE_BYTES];
    while left > 0 {
        let take = left.min(PIECE_BYTES as u64) as usize;
        from.fill(&mut piece[..take])?;
        bitmap.extend_from_slice(&piece[..take]);
        left -= take as u64;
    }
    let beyond = match (clusters % 8, bitmap.last()) {
        (used @ 1.., Some(last)) => last >> used,
        _ => 0,
    };
    let ones: u64 = bitmap.iter().map(|byte| u64::from(byte.count_ones())).sum();
    if beyond != 0 || ones != data_clusters {
        return Err(damaged("its numbers contradict each other"));
    }
    Ok(bitmap)
}

fn damaged(how: &str) -> String {
    format!("is damaged: {how}")
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it ends early"),
        _ => format!("cannot be read: {error}"),
    }
}

/// Bytes of a hash that our own hasher wrote as hexadecimal digits.
fn unhex(hex: &str) -> [u8; SUM_BYTES] {
    std::array::from_fn(|at| {
        hex.get(2 * at..2 * at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or(0)
    })
}

/// Sums up what passes.
struct Summing<T> {
    inner: T,
    sum: Hasher,
}

impl Summing<&mut dyn Write> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.inner.write_all(bytes)
    }
}

impl Summing<&mut dyn Read> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), String> {
        self.inner.read_exact(bytes).map_err(|error| unreadable(&error))?;
        self.sum.update(bytes);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<String, String> {
        let len = u32::from_le_bytes(self.array()?);
        if len > TEXT_BYTES_MAX {
            return Err(damaged("a text is too long"));
        }
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| damaged("a text is no text"))
    }
}
