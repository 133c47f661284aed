//! One seeded disk for all tests: a partition table, a real ext4 file system with real files, random
//! data, holes; 2 GiB, 15 % full. It is built once and uploaded once for a lab, and stays there.
//! All servers of the lab share one database, so one upload is enough.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;

use super::Lab;
use super::rest::Rest;

/// Raise this when the disk is to be built anew.
const VERSION: u32 = 1;
pub const PARTITION_START: u64 = 1 << 20;
const MIB: u64 = 1 << 20;

/// The disk as a file and as an image in Glance.
#[derive(Debug)]
pub struct Disk {
    pub raw: PathBuf,
    pub id: String,
    pub name: String,
    pub len: u64,
}

/// The shared disk.
pub fn disk(lab: &Lab) -> &'static Disk {
    static DISK: OnceLock<Disk> = OnceLock::new();
    DISK.get_or_init(|| {
        let folder = lab.folder.join("test-disk");
        std::fs::create_dir_all(&folder).unwrap();
        // Test programs may run at once, and each would build it.
        let lock = File::create(folder.join("lock")).unwrap();
        lock.lock().unwrap();
        let gib = if std::env::var("SNAPCOW_FULL").as_deref() == Ok("1") { 10 } else { 2 };
        let folder = std::fs::canonicalize(folder).unwrap();
        let raw = folder.join(format!("disk-{VERSION}-{gib}.raw"));
        let len = gib << 30;
        if !raw.exists() {
            build(&raw, len);
        }
        let name = format!("snapcow-test-disk-{VERSION}-{gib}");
        let id = uploaded(lab, &name, &raw);
        Disk { raw, id, name, len }
    })
}

fn build(raw: &Path, len: u64) {
    let folder = tempfile::tempdir_in(raw.parent().unwrap()).unwrap();
    let (content, half_made) = (folder.path().join("content"), folder.path().join("disk"));
    let share = len * 15 / 100;
    copy_files(&content, share * 6 / 10);
    let mut noise = Noise(1);
    File::create(content.join("noise")).unwrap().write_all(&noise.bytes(share * 3 / 10)).unwrap();
    let disk = File::create(&half_made).unwrap();
    disk.set_len(len).unwrap();
    let made = Command::new("mkfs.ext4")
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
        .args(["-q", "-F", "-d"])
        .arg(&content)
        .args(["-E", &format!("offset={PARTITION_START}")])
        .arg(&half_made)
        .arg(format!("{}k", (len - 4 * PARTITION_START) >> 10))
        .status()
        .expect("mkfs.ext4, of Debian's e2fsprogs");
    assert!(made.success(), "mkfs.ext4: {made}");
    disk.write_all_at(&partition_table(len), 0).unwrap();
    // What no file system has put there: noise across cluster borders, a single byte, the last byte.
    disk.write_all_at(&noise.bytes(share / 10), len / 2 + 12_345).unwrap();
    disk.write_all_at(b"x", len * 3 / 4 + 65_535).unwrap();
    disk.write_all_at(b"z", len - 1).unwrap();
    drop(disk);
    std::fs::rename(&half_made, raw).unwrap();
}

/// Files of this machine, in order of their names, until there are so many bytes.
fn copy_files(to: &Path, bytes: u64) {
    std::fs::create_dir_all(to).unwrap();
    let mut left = bytes;
    let mut folders = vec![PathBuf::from("/usr/lib"), PathBuf::from("/usr/share")];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let Ok(meta) = path.symlink_metadata() else { continue };
            if meta.is_dir() {
                folders.push(path);
            } else if meta.is_file()
                && meta.len() <= left.min(16 * MIB)
                && std::fs::copy(&path, to.join(format!("{count}"))).is_ok()
            {
                left -= meta.len();
                count += 1;
            }
            if left < MIB {
                return;
            }
        }
    }
}

/// A master boot record with one partition of type Linux.
fn partition_table(len: u64) -> [u8; 512] {
    let mut sector = [0; 512];
    sector[450] = 0x83;
    sector[454..458].copy_from_slice(&((PARTITION_START / 512) as u32).to_le_bytes());
    sector[458..462].copy_from_slice(&((len / 512 - 4 * PARTITION_START / 512) as u32).to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// Seeded bytes that do not get smaller (xorshift64*).
pub struct Noise(pub u64);

impl Noise {
    pub fn bytes(&mut self, len: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(len as usize + 8);
        while (out.len() as u64) < len {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            out.extend_from_slice(&self.0.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
        }
        out.truncate(len as usize);
        out
    }
}

/// The image in Glance, uploaded if it is not there.
fn uploaded(lab: &Lab, name: &str, raw: &Path) -> String {
    let rest = Rest::new(lab);
    let meta = raw.metadata().unwrap();
    // A disk that was built anew has other bytes.
    let (len, built) = (meta.len(), format!("{:?}", meta.modified().unwrap()));
    for image in rest.named(name) {
        if image["status"] == "active" && image["size"] == len && image["test_built"] == built.as_str() {
            return image["id"].as_str().unwrap().to_owned();
        }
        rest.delete(image["id"].as_str().unwrap());
    }
    for _ in 0..5 {
        let id = rest.create(json!({
            "name": name, "disk_format": "raw", "container_format": "bare", "visibility": "private",
            "min_disk": 12, "min_ram": 96, "tags": ["seeded", "snapshot"],
            "hw_disk_bus": "virtio", "os_distro": "debian", "base_image_ref": "",
            "owner_specified.openstack.md5": "0", "img_signature_hash_method": "SHA-256",
            "cinder_encryption_key_deletion_policy": "on_image_deletion", "test_built": built,
        }));
        super::run(|lab| async move {
            let cloud = lab.connect("lab-noranges").await;
            let body = file_body(raw);
            let sent = cloud.upload(&id, len, None, body).await;
            if !matches!(sent, snapcow::openstack::Upload::Done) {
                eprintln!("upload: {sent:?}");
            }
        });
        let active = rest.named(name).into_iter().find(|image| image["status"] == "active");
        match active {
            Some(image) => return image["id"].as_str().unwrap().to_owned(),
            None => rest.named(name).iter().for_each(|image| rest.delete(image["id"].as_str().unwrap())),
        }
    }
    panic!("the disk could not be uploaded");
}

fn file_body(raw: &Path) -> reqwest::Body {
    let file = File::open(raw).unwrap();
    let frames = futures_util::stream::unfold((file, 0), |(file, at)| async move {
        let mut bytes = vec![0; 1 << 20];
        let len = file.read_at(&mut bytes, at).unwrap();
        bytes.truncate(len);
        (len > 0).then(|| (Ok::<_, std::io::Error>(bytes::Bytes::from(bytes)), (file, at + len as u64)))
    });
    reqwest::Body::wrap_stream(frames)
}
