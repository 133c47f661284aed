//! Names of files for images, and the room where they go.

use std::path::Path;

use snapcow::openstack::Image;

use super::super::terminal;

/// Bytes of a name at most, with room for what is put behind it while the file is made (file systems take 255).
const NAME_MAX: usize = 200;

/// A file name for an image: its own name as far as it can be one, and the ending of its format.
pub fn file_name(image: &Image, expands: bool) -> String {
    let format = if expands { "raw" } else { image.disk_format.as_deref().unwrap_or_default() };
    let plain = |c: &char| c.is_ascii_alphanumeric();
    let ending: String = format.chars().filter(plain).take(16).collect();
    let replaced =
        |c: char| if c == '/' || c == '\\' || terminal::commands(c) || c == '\n' { '_' } else { c };
    let name: String = image.name.as_deref().unwrap_or_default().chars().map(replaced).collect();
    // A name that begins with a dot is hidden, one with a dash is an option to other programs.
    let name = name.trim().trim_start_matches(['.', '-', ' ']);
    let mut stem = if name.is_empty() { image.id.as_str() } else { name };
    if let Some(known) = image.disk_format.as_deref().filter(|format| !format.is_empty())
        && let Some(shorter) = stem.strip_suffix(known).and_then(|stem| stem.strip_suffix('.'))
        && !shorter.is_empty()
    {
        stem = shorter;
    }
    let mut end = stem.len().min(NAME_MAX);
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    if ending.is_empty() { stem[..end].to_owned() } else { format!("{}.{ending}", &stem[..end]) }
}

/// Free bytes where a file would lie; `None` where that cannot be told.
pub fn space(path: &Path) -> Option<u64> {
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, format: &str) -> Image {
        Image {
            id: "some-id".into(),
            name: Some(name.into()),
            disk_format: Some(format.into()),
            ..Image::default()
        }
    }

    #[test]
    fn a_name_from_a_service_is_a_file_of_this_folder() {
        for (name, format, expands, expected) in [
            ("snapshot", "raw", false, "snapshot.raw"),
            ("Debian 12 (März)", "qcow2", false, "Debian 12 (März).qcow2"),
            ("disk.qcow2", "qcow2", false, "disk.qcow2"),
            ("disk.qcow2", "qcow2", true, "disk.raw"),
            ("disk.raw", "qcow2", false, "disk.raw.qcow2"),
            ("../../etc/passwd", "raw", false, "_.._etc_passwd.raw"),
            ("..", "raw", false, "some-id.raw"),
            ("-rf", "raw", false, "rf.raw"),
            ("", "iso", false, "some-id.iso"),
            (".raw", "raw", false, "raw.raw"),
            ("a\nb\u{1b}[2J\u{202e}", "raw", false, "a_b_[2J_.raw"),
            ("a", "../x", false, "a.x"),
            ("a", "", false, "a"),
        ] {
            assert_eq!(file_name(&named(name, format), expands), expected, "{name}");
        }
        let long = file_name(&named(&"ü".repeat(255), "qcow2"), false);
        assert_eq!(long.len(), NAME_MAX + ".qcow2".len());
    }
}
