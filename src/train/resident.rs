//! Memory of this process, from the operating system.

use crate::runtime::kibibytes;

/// Resident bytes now; 0 where the system does not say.
pub fn resident_bytes() -> u64 {
    status("VmRSS")
}

/// The most that was ever resident, in bytes; 0 where the system does not say.
pub fn peak_bytes() -> u64 {
    status("VmHWM")
}

fn status(key: &str) -> u64 {
    kibibytes("/proc/self/status", key).unwrap_or(0)
}
