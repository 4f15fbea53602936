//! Memory of this process, from the operating system.

/// Resident bytes now; 0 where the system does not say.
pub fn resident_bytes() -> u64 {
    status("VmRSS:")
}

/// The most that was ever resident, in bytes; 0 where the system does not say.
pub fn peak_bytes() -> u64 {
    status("VmHWM:")
}

fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
