//! What a guest reads from an image: by a plain reader, written from QEMU's `docs/interop/qcow2.rst`, and by the crate
//! imago.

use std::io::Write as _;

use imago::file::File as ImagoFile;
use imago::qcow2::Qcow2;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder as _, StorageOpenOptions};

fn u32_at(image: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(image[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(image: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(image[at..at + 8].try_into().expect("eight bytes"))
}

/// Reads all of the disk.
///
/// # Panics
/// If the image is not one that snapcow may write.
pub fn guest(image: &[u8]) -> Vec<u8> {
    assert_eq!(&image[..4], b"QFI\xfb");
    let version = u32_at(image, 4);
    let cluster_bits = u32_at(image, 20);
    let size = u64_at(image, 24) as usize;
    let zstd = version == 3 && u64_at(image, 72) & 8 != 0 && image[104] == 1;
    let cluster = 1usize << cluster_bits;
    let (l1_entries, l1_offset) = (u32_at(image, 36) as usize, u64_at(image, 40) as usize);
    let mut disk = vec![0; size.next_multiple_of(cluster)];
    for index in 0..l1_entries {
        let table = (u64_at(image, l1_offset + index * 8) & 0x00ff_ffff_ffff_fe00) as usize;
        if table == 0 {
            continue;
        }
        for slot in 0..cluster / 8 {
            let entry = u64_at(image, table + slot * 8);
            let at = (index * (cluster / 8) + slot) * cluster;
            if entry != 0 {
                let out = disk.get_mut(at..at + cluster).expect("nothing is mapped behind the end");
                read_cluster(image, entry, cluster_bits, zstd, out);
            }
        }
    }
    assert!(disk[size..].iter().all(|&byte| byte == 0), "behind the end of the disk are zeros");
    disk.truncate(size);
    disk
}

fn read_cluster(image: &[u8], entry: u64, cluster_bits: u32, zstd: bool, out: &mut [u8]) {
    if entry >> 62 & 1 == 0 {
        let offset = (entry & 0x00ff_ffff_ffff_fe00) as usize;
        out.copy_from_slice(&image[offset..offset + out.len()]);
        return;
    }
    let offset_bits = 62 - (cluster_bits - 8);
    let offset = (entry & ((1 << offset_bits) - 1)) as usize;
    let sectors = ((entry & !(3 << 62)) >> offset_bits) as usize + 1;
    let end = (offset / 512 + sectors) * 512;
    let stored = &image[offset..end];
    if zstd {
        // QEMU gives its decoder all sectors and stops when the cluster is full.
        let mut context = zstd_safe::DCtx::create();
        let (len, mut output) = (out.len(), zstd_safe::OutBuffer::around(out));
        let mut input = zstd_safe::InBuffer::around(stored);
        while output.pos() < len {
            let before = (output.pos(), input.pos());
            context.decompress_stream(&mut output, &mut input).expect("a zstd frame");
            assert_ne!(before, (output.pos(), input.pos()), "the frame ends early");
        }
    } else {
        let mut decompressor = libdeflater::Decompressor::new();
        let len = decompressor.deflate_decompress(stored, out).expect("a deflate stream");
        assert_eq!(len, out.len());
    }
}

/// The same by imago, which does not know zstd.
///
/// # Panics
/// If imago has anything against the image.
pub fn guest_by_imago(image: &[u8]) -> Vec<u8> {
    let mut file = tempfile::tempfile_in("/dev/shm").expect("a file in memory");
    file.write_all(image).expect("memory");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let storage =
            ImagoFile::from_open_file(file, StorageOpenOptions::new().write(false)).expect("a storage");
        let builder = Qcow2::<ImagoFile>::builder(storage).write(false);
        let image: Qcow2<ImagoFile> =
            builder.open(DenyImplicitOpenGate::default()).await.expect("imago opens the image");
        let image = FormatAccess::new(image);
        let mut disk = vec![0xa5; image.size() as usize];
        if !disk.is_empty() {
            image.read(&mut disk[..], 0).await.expect("imago reads the image");
        }
        disk
    })
}

/// The digest that `blksum` prints for what the guest reads.
pub fn blksum(guest: &[u8]) -> String {
    use aws_lc_rs::digest::{SHA256, digest};
    let mut outer: Vec<u8> =
        guest.chunks(64 << 10).flat_map(|block| digest(&SHA256, block).as_ref().to_vec()).collect();
    outer.extend((guest.len() as u64).to_le_bytes());
    digest(&SHA256, &outer).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
