//! The disk as the guest of an image sees it.

use super::Input;
use super::decode::Decoder;
use super::finding::{Findings, Severity};
use super::image::Image;
use super::walk::Walk;
use crate::error::Result;
use crate::qcow2::parse::entries;
use crate::qcow2::{L1Entry, L2Entry, Mapping};
use crate::units::HostOffset;

/// An image that can be read as a disk. Shared by as many [`GuestReader`]s as there are threads.
#[derive(Debug)]
pub struct GuestImage {
    pub(super) image: Image,
    l1: Vec<u64>,
}

/// A stretch of the disk that is all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The guest offset behind it.
    pub end: u64,
    /// Whether the image says that it is all zeros; nothing needs to be read then.
    pub is_zero: bool,
}

impl GuestImage {
    /// Opens an image that needs no other file.
    ///
    /// # Errors
    /// No qcow2 image, one that cannot be read by itself (encrypted, a backing file, an external data
    /// file), or a header that contradicts itself.
    pub fn open(input: Input) -> Result<Self> {
        let image = header(input)?;
        let input = &image.input;
        if let Some(name) = image.backing_name() {
            return Err(input
                .refuse(&format!("has a backing file, `{name}`"))
                .advise("flatten it with qemu-img"));
        }
        if let Some(name) = image.data_file_name() {
            return Err(input.refuse(&format!("keeps its data in another file, `{name}`")));
        }
        if image.header.crypt_method != 0 {
            return Err(input.refuse("is encrypted"));
        }
        Self::with_l1(image)
    }

    /// Opens an image for a [`Walk`] alone: it may need other files, or be encrypted.
    ///
    /// # Errors
    /// No qcow2 image, or a header that contradicts itself.
    pub fn open_tables(input: Input) -> Result<Self> {
        Self::with_l1(header(input)?)
    }

    fn with_l1(image: Image) -> Result<Self> {
        let mut table = vec![0; image.header.l1_entries as usize * 8];
        if image.input.read(&mut table, image.header.l1_offset)? < table.len() {
            return Err(image.input.damaged("its L1 table lies behind the end of the file"));
        }
        Ok(Self { l1: entries(&table).collect(), image })
    }

    /// An entry of the L1 table, if it has so many.
    pub(super) fn l1(&self, index: u64) -> Option<u64> {
        self.l1.get(usize::try_from(index).ok()?).copied()
    }

    /// All of the disk, as the tables tell it.
    pub fn walk(&self) -> Walk<'_> {
        Walk::new(self)
    }

    /// Size of the disk in bytes.
    pub fn virtual_size(&self) -> u64 {
        self.image.header.virtual_size
    }

    /// A reader for one thread.
    pub fn reader(&self) -> GuestReader<'_> {
        let cluster = self.image.cluster_size.size();
        GuestReader {
            guest: self,
            table: vec![0; cluster],
            table_at: None,
            decoder: Decoder::new(self.image.compression),
            stored: Vec::new(),
            cluster: vec![0; cluster],
            cluster_entry: None,
        }
    }
}

/// An image whose header can be relied on.
fn header(input: Input) -> Result<Image> {
    let mut findings = Findings::default();
    let image = Image::open(input.clone(), &mut findings)?;
    image.ok_or_else(|| {
        let mut kept = findings.kept().iter();
        let first_error = kept.find(|finding| finding.class.severity() == Severity::Error);
        input.damaged(first_error.map_or("its header", |finding| finding.text.as_str()))
    })
}

/// Reads an image in any order, best in rising order: it holds one L2 table and one decoded cluster.
#[derive(Debug)]
pub struct GuestReader<'a> {
    guest: &'a GuestImage,
    table: Vec<u8>,
    table_at: Option<HostOffset>,
    decoder: Decoder,
    stored: Vec<u8>,
    cluster: Vec<u8>,
    /// The L2 entry whose cluster is in `cluster`.
    cluster_entry: Option<L2Entry>,
}

impl GuestReader<'_> {
    /// What lies at `from`: zeros by the image's word, or data, up to `until` at most.
    ///
    /// # Errors
    /// A table that cannot be read.
    pub fn extent(&mut self, from: u64, until: u64) -> Result<Extent> {
        let (bits, until) = (self.guest.image.cluster_size.bits(), until.min(self.guest.virtual_size()));
        let mut at = from;
        let mut is_zero = None;
        while at < until {
            let (zero, end) = match self.entry(at >> bits)? {
                Some(entry) => (self.is_zero(entry), ((at >> bits) + 1) << bits),
                None => (true, self.table_end(at)),
            };
            if *is_zero.get_or_insert(zero) != zero {
                break;
            }
            at = end.min(until);
        }
        Ok(Extent { end: at, is_zero: is_zero.unwrap_or(true) })
    }

    /// Fills `out` with what the guest reads at `offset`; callers stay within the disk.
    ///
    /// # Errors
    /// What keeps the bytes from coming, and [`Kind::Damaged`](crate::error::Kind::Damaged) for a cluster
    /// that lies outside of the file or cannot be decoded.
    pub fn read(&mut self, out: &mut [u8], offset: u64) -> Result<()> {
        let cs = self.guest.image.cluster_size;
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let within = cs.offset_in(at) as usize;
            let take = (cs.size() - within).min(out.len() - done);
            let Some(entry) = self.entry(at >> cs.bits())? else {
                out[done..done + take].fill(0);
                done += take;
                continue;
            };
            match entry.mapping(cs, self.guest.image.header.version) {
                Mapping::Unallocated | Mapping::Zero(_) => out[done..done + take].fill(0),
                Mapping::Plain(host) => {
                    let more = self.following(host, at, out.len() - done - take)?;
                    let piece = &mut out[done..done + take + more];
                    self.read_plain(piece, host, within as u64, at)?;
                    done += more;
                }
                Mapping::Compressed { host, len } => {
                    self.decode(entry, host, len, at)?;
                    out[done..done + take].copy_from_slice(&self.cluster[within..within + take]);
                }
            }
            done += take;
        }
        Ok(())
    }

    /// The L2 entry of a guest cluster; `None` if no L2 table covers it.
    pub(super) fn entry(&mut self, cluster: u64) -> Result<Option<L2Entry>> {
        let cs = self.guest.image.cluster_size;
        let per_table = cs.bytes() / 8;
        let l1_index = usize::try_from(cluster / per_table).unwrap_or(usize::MAX);
        let Some(&l1_entry) = self.guest.l1.get(l1_index) else {
            return Err(self.damaged("no L1 entry covers it", cluster << cs.bits()));
        };
        let Some(table) = L1Entry(l1_entry).l2_table() else { return Ok(None) };
        if self.table_at != Some(table) {
            self.table_at = None;
            if cs.offset_in(table.0) != 0 {
                return Err(self.damaged("its L2 table is not aligned", cluster << cs.bits()));
            }
            if self.guest.image.input.read(&mut self.table, table.0)? < self.table.len() {
                return Err(
                    self.damaged("its L2 table lies behind the end of the file", cluster << cs.bits())
                );
            }
            self.table_at = Some(table);
        }
        let at = (cluster % per_table * 8) as usize;
        Ok(entries(&self.table[at..at + 8]).next().map(L2Entry))
    }

    /// The guest offset behind what the L2 table of `at` covers.
    fn table_end(&self, at: u64) -> u64 {
        let bits = self.guest.image.cluster_size.bits() * 2 - 3;
        ((at >> bits) + 1) << bits
    }

    fn is_zero(&self, entry: L2Entry) -> bool {
        let mapping = entry.mapping(self.guest.image.cluster_size, self.guest.image.header.version);
        matches!(mapping, Mapping::Unallocated | Mapping::Zero(_))
    }

    /// How many of the next `wanted` bytes follow the cluster at `host` without a gap, in whole clusters.
    fn following(&mut self, host: HostOffset, at: u64, wanted: usize) -> Result<usize> {
        let cs = self.guest.image.cluster_size;
        let mut more = 0;
        while more < wanted {
            let clusters = 1 + more as u64 / cs.bytes();
            let next = self.entry((at >> cs.bits()) + clusters)?;
            let expected = Mapping::Plain(HostOffset(host.0 + clusters * cs.bytes()));
            if next.map(|entry| entry.mapping(cs, self.guest.image.header.version)) != Some(expected) {
                break;
            }
            more += cs.size();
        }
        Ok(more.min(wanted))
    }

    fn read_plain(&mut self, out: &mut [u8], host: HostOffset, within: u64, at: u64) -> Result<()> {
        if self.guest.image.cluster_size.offset_in(host.0) != 0 {
            return Err(self.damaged("its cluster is not aligned", at));
        }
        if self.guest.image.input.read(out, host.0 + within)? < out.len() {
            return Err(self.damaged("its cluster lies behind the end of the file", at));
        }
        Ok(())
    }

    fn decode(&mut self, entry: L2Entry, host: HostOffset, len: u64, at: u64) -> Result<()> {
        if self.cluster_entry == Some(entry) {
            return Ok(());
        }
        self.cluster_entry = None;
        self.stored.resize(len as usize, 0);
        // The last sector may be cut: what counts is whether the stream is whole.
        let there = self.guest.image.input.read(&mut self.stored, host.0)?;
        match self.decoder.decode(&self.stored[..there], &mut self.cluster) {
            Ok(()) => {
                self.cluster_entry = Some(entry);
                Ok(())
            }
            Err(why) => {
                Err(self.damaged(&format!("its compressed cluster at host offset {}: {why}", host.0), at))
            }
        }
    }

    fn damaged(&self, why: &str, guest: u64) -> crate::error::Error {
        self.guest.image.input.damaged(&format!("guest offset {guest}: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::Kind;
    use crate::qcow2::{Compat, CompressionType, Header};
    use crate::units::ClusterSize;

    /// An image by hand: clusters of 512 bytes, a disk of 4 KiB; header, refcount table, L1, L2, then data.
    fn image(l2: &[u64], data: &[u8]) -> Vec<u8> {
        let header = Header {
            compat: Compat::V1_1,
            cluster_size: ClusterSize::from_bytes(512).unwrap(),
            virtual_size: 4096,
            l1_entries: 1,
            l1_offset: HostOffset(1024),
            refcount_table_offset: HostOffset(512),
            refcount_table_clusters: 1,
            compression: CompressionType::Zlib,
        };
        let mut file = header.to_bytes();
        file.resize(2048, 0);
        file[1024..1032].copy_from_slice(&L1Entry::table(HostOffset(1536)).0.to_be_bytes());
        for (index, entry) in l2.iter().enumerate() {
            file[1536 + 8 * index..][..8].copy_from_slice(&entry.to_be_bytes());
        }
        file.extend_from_slice(data);
        file
    }

    fn open(file: Vec<u8>) -> Result<GuestImage> {
        let len = file.len() as u64;
        GuestImage::open(Input { bytes: Arc::new(file), len, name: "image".into() })
    }

    #[test]
    fn extents_and_bytes_come_from_the_tables() {
        let data: Vec<u8> = (0..1024u32).map(|at| (at % 251) as u8 + 1).collect();
        let plain = |host| L2Entry::plain(HostOffset(host)).0;
        let guest = open(image(&[0, plain(2048), plain(2560), 1, plain(2048)], &data)).unwrap();
        let mut reader = guest.reader();
        let mut seen = Vec::new();
        let mut at = 0;
        while at < 4096 {
            let extent = reader.extent(at, u64::MAX).unwrap();
            seen.push((extent.end, extent.is_zero));
            at = extent.end;
        }
        assert_eq!(seen, [(512, true), (1536, false), (2048, true), (2560, false), (4096, true)]);
        assert_eq!(reader.extent(600, 700).unwrap(), Extent { end: 700, is_zero: false });
        let mut disk = vec![0xa5; 4096];
        reader.read(&mut disk, 0).unwrap();
        let expected = [&[0; 512][..], &data, &[0; 512], &data[..512], &[0; 1536]].concat();
        assert!(disk == expected);
        for (from, to) in [(511, 513), (700, 1600), (1535, 2049), (2500, 4096)] {
            let mut part = vec![0xa5; to - from];
            reader.read(&mut part, from as u64).unwrap();
            assert!(part == expected[from..to], "{from}..{to}");
        }
    }

    #[test]
    fn what_lies_outside_of_the_file_is_damage_and_not_zeros() {
        let plain = L2Entry::plain(HostOffset(2048)).0;
        let packed = L2Entry::compressed(HostOffset(2048), 100, ClusterSize::from_bytes(512).unwrap()).0;
        for (l2, data) in [(plain, 0), (plain, 511), (packed, 0), (packed, 512), (plain | 1 << 20, 512)] {
            let guest = open(image(&[l2], &vec![7; data])).unwrap();
            let error = guest.reader().read(&mut [0; 512], 0).unwrap_err();
            assert_eq!(error.kind(), Kind::Damaged, "{l2:#x}, {data} bytes: {error}");
        }
    }

    #[test]
    fn an_image_that_needs_another_file_is_refused() {
        let mut backed = image(&[], &[]);
        backed[8..16].copy_from_slice(&200u64.to_be_bytes());
        backed[16..20].copy_from_slice(&4u32.to_be_bytes());
        backed[200..204].copy_from_slice(b"b\x1b[m");
        let error = open(backed).unwrap_err();
        assert!(error.to_string().contains("`b\\u{1b}[m`"), "{error}");
        let mut encrypted = image(&[], &[]);
        encrypted[35] = 2;
        assert!(open(encrypted).unwrap_err().to_string().contains("encrypted"));
        let mut external = image(&[], &[]);
        external[79] = 4;
        assert!(open(external).unwrap_err().to_string().contains("another file"));
    }
}
