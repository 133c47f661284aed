//! Independent readers of qcow2: the crate `imago` for plain and zlib, and `qemu-img` for all.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use imago::file::File as ImagoFile;
use imago::qcow2::Qcow2;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder as _, StorageOpenOptions};

/// Whether a missing helper is a failure, as `tools/test` wants it.
pub fn is_required() -> bool {
    std::env::var_os("SNAPCOW_REQUIRE").is_some_and(|value| value == "1")
}

/// Whether `qemu-img` is here. If not, that is said loudly, or is a failure where it is required.
pub fn has_qemu_img() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let has =
            Command::new("qemu-img").arg("--version").output().is_ok_and(|output| output.status.success());
        assert!(has || !is_required(), "qemu-img is required, but not here (Debian: qemu-utils)");
        if !has {
            // Not by a macro, whose output the test harness would swallow.
            let _ =
                writeln!(std::io::stderr(), "SKIPPED: everything that needs qemu-img (Debian: qemu-utils)");
        }
        has
    })
}

fn qemu_img(args: &[&str], paths: &[&Path]) -> Output {
    Command::new("qemu-img").args(args).args(paths).output().unwrap()
}

/// `qemu-img check` finds neither errors nor leaks, and `qemu-img compare` no difference.
pub fn qemu_img_agrees(raw: &Path, qcow2: &Path, what: &str) {
    if !has_qemu_img() {
        return;
    }
    let check = qemu_img(&["check", "-q", "-f", "qcow2"], &[qcow2]);
    assert!(check.status.success(), "{what}: qemu-img check: {check:?}");
    let compare = qemu_img(&["compare", "-q", "-f", "raw", "-F", "qcow2"], &[raw, qcow2]);
    assert!(compare.status.success(), "{what}: qemu-img compare: {compare:?}");
}

/// What a guest reads from an image, through `imago`.
pub fn imago_reads(qcow2: &Path) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let file = std::fs::File::open(qcow2).unwrap();
        let storage = ImagoFile::from_open_file(file, StorageOpenOptions::new().write(false)).unwrap();
        let builder = Qcow2::<ImagoFile>::builder(storage).write(false);
        let image: Qcow2<ImagoFile> = builder.open(DenyImplicitOpenGate::default()).await.unwrap();
        let image = FormatAccess::new(image);
        let mut disk = vec![0xa5; image.size() as usize];
        if !disk.is_empty() {
            image.read(&mut disk[..], 0).await.unwrap();
        }
        disk
    })
}

/// `imago` reads the disk, with zeros up to the next whole sector.
pub fn imago_agrees(disk: &[u8], qcow2: &Path, what: &str) {
    let read = imago_reads(qcow2);
    assert_eq!(read.len(), disk.len().next_multiple_of(512), "{what}: size");
    let differs = (0..read.len()).find(|&at| read[at] != disk.get(at).copied().unwrap_or(0));
    assert_eq!(differs, None, "{what}: imago reads another byte there");
}
