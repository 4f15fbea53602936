//! The machine around the devices: its processor and its memory.

/// What a person asks first when a program is slow or out of memory.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Host {
    /// What the processor calls itself, where the system says.
    pub processor: Option<String>,
    pub threads: usize,
    /// Instruction sets found now, not those the program was compiled for.
    pub features: Vec<&'static str>,
    /// Bytes of memory, where the system says.
    pub memory: Option<u64>,
    /// Bytes of it that programs may still have.
    pub available: Option<u64>,
}

impl Host {
    /// Looks at this machine.
    pub fn new() -> Self {
        Self {
            processor: entry("/proc/cpuinfo", "model name"),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            features: features(),
            memory: kibibytes("/proc/meminfo", "MemTotal"),
            available: kibibytes("/proc/meminfo", "MemAvailable"),
        }
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

/// The value of the first `key: value` line, on Linux.
fn entry(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.into_iter().find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_string())
}

/// Bytes of the first `key: N kB` line, on Linux.
pub(crate) fn kibibytes(path: &str, key: &str) -> Option<u64> {
    let value = entry(path, key)?;
    value.strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Those that the CPU backends' products and decoders can make use of.
#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    macro_rules! detected {
        ($($name:tt)*) => { [$(($name, std::arch::is_x86_feature_detected!($name))),*] };
    }
    let by_std = detected!("avx" "f16c" "fma" "avx2" "avxvnni" "avx512f" "avx512bw" "avx512vl" "avx512vnni" "avx512bf16" "avx512fp16");
    by_std.into_iter().chain(amx()).filter(|(_, found)| *found).map(|(name, _)| name).collect()
}

/// Tiles, which std does not detect in stable Rust: bits of leaf 7 (Intel SDM volume 2A, CPUID). Whether the system
/// lets a program use them is another question.
#[cfg(target_arch = "x86_64")]
fn amx() -> [(&'static str, bool); 3] {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let edx = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).edx } else { 0 };
    let bit = |bit: u32| edx & (1 << bit) != 0;
    [("amx-tile", bit(24)), ("amx-int8", bit(25)), ("amx-bf16", bit(22))]
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<&'static str> {
    macro_rules! detected {
        ($($name:tt)*) => { [$(($name, std::arch::is_aarch64_feature_detected!($name))),*] };
    }
    let found = detected!("neon" "fp16" "dotprod" "bf16" "i8mm" "sve" "sve2");
    found.into_iter().filter(|(_, found)| *found).map(|(name, _)| name).collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    fn what_the_kernel_says_is_what_is_found() {
        let host = Host::new();
        assert!(host.threads >= 1 && host.available <= host.memory && host.memory > Some(1 << 20));
        let flags = entry("/proc/cpuinfo", "flags").unwrap();
        let flags: Vec<&str> = flags.split_whitespace().collect();
        for (ours, theirs) in [("avx2", "avx2"), ("fma", "fma"), ("avx512f", "avx512f"), ("amx-tile", "amx_tile")] {
            assert_eq!(host.features.contains(&ours), flags.contains(&theirs), "{ours}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_made_up() {
        assert_eq!(entry("/no/such/file", "key"), None);
        assert_eq!(kibibytes("/proc/meminfo", "NoSuchEntry"), None);
    }
}
