//! Near misses: what somebody may have meant whose file, option or command does not exist.

use std::path::Path;

use snapcow::error::Error;

/// How alike two names must be, from 0 to 1 (normalized Damerau-Levenshtein distance): one slip in three letters.
const ALIKE: f64 = 0.66;
/// A folder with more entries is not looked through for a guess.
const ENTRIES_MAX: usize = 10_000;

/// The name that comes nearest, if one is near.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    let alike = |name: &str| strsim::normalized_damerau_levenshtein(&wanted, &name.to_lowercase());
    let all = names.into_iter().map(|name| (alike(name), name)).filter(|(alike, _)| *alike >= ALIKE);
    all.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

/// The failure to open what `words` name, with what may have been meant where there is no such file.
pub fn hint(error: Error, words: &str) -> Error {
    let path = Path::new(words);
    match path.symlink_metadata() {
        Err(absent) if absent.kind() == std::io::ErrorKind::NotFound => {}
        _ => return error,
    }
    match meant(path, words) {
        Some(advice) => error.advise(advice),
        None => error,
    }
}

fn meant(path: &Path, words: &str) -> Option<String> {
    if let Some((scheme, rest)) = words.split_once(':')
        && nearest(scheme, ["glance", "image"]).is_some()
    {
        return Some(format!("did you mean glance:{}?", rest.trim_start_matches('/')));
    }
    let folder = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return None,
    };
    let Ok(entries) = std::fs::read_dir(folder) else {
        return (!folder.exists()).then(|| format!("there is no folder `{}`", folder.display()));
    };
    let names: Vec<String> = entries
        .flatten()
        .take(ENTRIES_MAX)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let near = nearest(&path.file_name()?.to_string_lossy(), names.iter().map(String::as_str));
    let near = near.map(|near| format!("did you mean `{}`?", path.with_file_name(near).display()));
    let image = (path.components().count() == 1).then(|| format!("for an image write glance:{words}"));
    match (near, image) {
        (Some(near), Some(image)) => Some(format!("{near} {image}")),
        (near, image) => near.or(image),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_seen_and_strangers_are_not() {
        let names = ["memory", "cluster-size", "compression"];
        assert_eq!(nearest("memroy", names), Some("memory"));
        assert_eq!(nearest("Cluster_Size", names), Some("cluster-size"));
        assert_eq!(nearest("x", names), None);
        assert_eq!(nearest("", names), None);
    }

    #[test]
    fn files_folders_and_images_are_proposed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("web-disk.raw"), "").unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let told = |words: &str| meant(Path::new(words), words).unwrap_or_default();
        assert_eq!(told(&at("web-dsik.raw")), format!("did you mean `{}`?", at("web-disk.raw")));
        assert_eq!(told(&at("other")), "");
        assert_eq!(told(&at("gone/disk.raw")), format!("there is no folder `{}`", at("gone")));
        assert_eq!(told("my-snapshot-of-nothing"), "for an image write glance:my-snapshot-of-nothing");
        assert_eq!(told("Glance://web"), "did you mean glance:web?");
    }
}
