//! What this machine permits, so that nothing is left out that could be done: takes `SNAPCOW_REQUIRE`, gives
//! capabilities (capabilities(7)) of this process.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

/// The bit of `CAP_SETUID`: to become somebody else.
pub const SETUID: u32 = 7;
/// The bit of `CAP_SYS_PTRACE`: to look into processes that keep secrets.
pub const SYS_PTRACE: u32 = 19;
/// The bit of `CAP_SYS_ADMIN`: to mount file systems.
pub const SYS_ADMIN: u32 = 21;

/// Whether this process has a capability. Root in a container lacks many.
pub fn has_capability(bit: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|set| set >> bit & 1 == 1)
}

/// Says that something is left out; what is required, as by `tools/test`, and possible here must not be.
#[track_caller]
pub fn left_out(what: &str, is_possible: bool) {
    let is_required = std::env::var("SNAPCOW_REQUIRE").as_deref() == Ok("1");
    assert!(!(is_required && is_possible), "{what}, although this machine permits it");
    eprintln!("SKIPPED: {what}");
}
