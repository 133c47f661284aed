//! What the machine is, and how much memory this process has taken.

use serde::{Deserialize, Serialize};

/// The machine that was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor, as the kernel names it.
    pub cpu_model: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Memory of the machine in bytes.
    pub memory_bytes: u64,
    /// Name and release of the kernel.
    pub kernel: String,
    /// Mean number of running tasks over the last minute, before the start: a busy machine tells
    /// less.
    pub load_average: f64,
}

impl Machine {
    pub(super) fn look() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let model = ["model name", "Model", "cpu"].iter().find_map(|name| field(&cpu, name));
        let uname = rustix::system::uname();
        Self {
            cpu_model: model.unwrap_or(std::env::consts::ARCH).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib(&read("/proc/meminfo"), "MemTotal").unwrap_or(0),
            kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
            load_average: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0.0),
        }
    }
}

/// The value of `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let number = field(text, name)?.split(' ').next()?;
    number.parse::<u64>().ok().map(|kib| kib << 10)
}

/// Most memory that this process had since the start, or since [`forget_peak`], in bytes; 0 where the
/// kernel does not tell.
pub(super) fn peak_rss_bytes() -> u64 {
    std::fs::read_to_string("/proc/self/status").ok().and_then(|text| kib(&text, "VmHWM")).unwrap_or(0)
}

/// Lets the peak begin anew with what is taken now; false where the kernel does not permit it.
pub(super) fn forget_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}
