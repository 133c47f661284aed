//! What the program was built from and runs on, for the report.

use serde_json::{Map, Value, json};

/// As locked when it was built.
const LOCK: &str = include_str!("../../Cargo.lock");

/// The libraries on which the bytes of an image and its proofs depend.
const LIBRARIES: [&str; 8] =
    ["crc32fast", "isal-sys", "libdeflater", "ruzstd", "sha2", "zlib-rs", "zstd-safe", "zstd-sys"];

/// Program, libraries and machine.
pub fn versions() -> Value {
    let uname = rustix::system::uname();
    let libraries: Map<String, Value> = LIBRARIES
        .into_iter()
        .filter(|&name| name != "isal-sys" || cfg!(feature = "isal-sys"))
        .filter_map(|name| Some((name.to_owned(), locked(name)?.into())))
        .collect();
    json!({
        "snapcow": env!("CARGO_PKG_VERSION"),
        "libraries": libraries,
        "architecture": std::env::consts::ARCH,
        "zero_kernel": snapcow::scan::zero::preferred().name,
        "kernel": format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
        "optimised": !cfg!(debug_assertions),
    })
}

fn locked(name: &str) -> Option<&'static str> {
    let (_, rest) = LOCK.split_once(&format!("\nname = \"{name}\"\nversion = \""))?;
    rest.split('"').next()
}
