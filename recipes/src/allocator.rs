//! The allocator's habits: a training step frees and takes the same large blocks over and over.

/// Keeps freed blocks of up to 32 MiB, the most glibc allows, in the process instead of giving their pages back to
/// the kernel at each free and faulting them in again. Call before the first thread starts.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn keep_freed_blocks() {
    const LARGEST: libc::c_int = 32 << 20;
    // SAFETY: mallopt only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 16 * LARGEST);
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_freed_blocks() {}
