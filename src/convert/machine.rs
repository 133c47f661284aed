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

/// What the process's control group (version 2) and those above it leave to it.
fn cgroup_left() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/').to_owned();
    let mut dir = Path::new("/sys/fs/cgroup").join(path);
    let mut least = None;
    while dir.starts_with("/sys/fs/cgroup") {
        let number = |name: &str| std::fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u64>().ok();
        if let (Some(max), Some(current)) = (number("memory.max"), number("memory.current")) {
            let left = max.saturating_sub(current);
            least = Some(least.map_or(left, |other: u64| other.min(left)));
        }
        if !dir.pop() {
            break;
        }
    }
    least
}
