//! What this machine has: the I/O that planning itself must not do.

use std::path::Path;

use crate::facts::{MEMORY_FILE_SYSTEMS, MachineFacts};

/// Looks at processors, memory and the directory of the spool.
pub fn machine_facts(spool_dir: &Path) -> MachineFacts {
    let statfs = rustix::fs::statfs(spool_dir).ok();
    MachineFacts {
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        memory_bytes: memory_bytes(),
        spool_free_bytes: statfs.as_ref().map(|fs| fs.f_bavail.saturating_mul(fs.f_bsize as u64)),
        spool_is_memory: statfs.is_some_and(|fs| MEMORY_FILE_SYSTEMS.contains(&(fs.f_type as u64))),
    }
}

/// Available memory, or what is left of the control group's limit if that is less.
fn memory_bytes() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = field_kib(&meminfo, "MemAvailable:").or_else(|| field_kib(&meminfo, "MemTotal:"));
    let available = available.map_or(u64::MAX, |kib| kib << 10);
    cgroup_left().map_or(available, |left| left.min(available))
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// What the process's control groups, version 2 and version 1, and those above them leave to it.
fn cgroup_left() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    left_of(&own, Path::new("/sys/fs/cgroup"))
}

/// The same by the text of `/proc/self/cgroup` and the folder that the groups lie in.
fn left_of(own: &str, root: &Path) -> Option<u64> {
    // `ID:CONTROLLERS:PATH`; version 2 has no controllers there.
    let groups = own.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            Some((root.to_owned(), path, "memory.max", "memory.current"))
        } else if controllers.split(',').any(|name| name == "memory") {
            Some((root.join("memory"), path, "memory.limit_in_bytes", "memory.usage_in_bytes"))
        } else {
            None
        }
    });
    let mut least: Option<u64> = None;
    for (top, path, limit, usage) in groups {
        let mut dir = top.join(path);
        while dir.starts_with(&top) {
            let number =
                |name: &str| std::fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
            if let (Some(max), Some(current)) = (number(limit), number(usage)) {
                let left = max.saturating_sub(current);
                least = Some(least.map_or(left, |other| other.min(left)));
            }
            dir.pop();
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_group_of_either_version_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, number: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, number).unwrap();
        };
        let left = |own: &str| left_of(own, root.path());
        assert_eq!(left("0::/a/b\n"), None);
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "10\n");
        assert_eq!(left("0::/a/b\n"), None);
        write("a/memory.max", "1000\n");
        write("a/memory.current", "400\n");
        assert_eq!(left("0::/a/b\n"), Some(600));
        write("memory/c/memory.limit_in_bytes", "500\n");
        write("memory/c/memory.usage_in_bytes", "100\n");
        assert_eq!(left("5:cpu:/c\n4:memory,misc:/c/d\n"), Some(400));
        assert_eq!(left("4:memory:/c\n0::/a/b\n"), Some(400));
        assert_eq!(left("nonsense\n"), None);
    }
}
