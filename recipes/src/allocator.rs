//! The allocator of the programs.

use std::ffi::{c_int, c_long};

/// A training step frees and takes the same large blocks over and over; mimalloc keeps them without tearing holes into
/// the heap, where glibc's allocator either faults the pages in again each time or grows to several times the need.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// Declared in mimalloc.h. The bindings have it behind a feature that brings another crate along.
unsafe extern "C" {
    fn mi_option_set_default(option: c_int, value: c_long);
    fn mi_collect(force: bool);
}

/// `mi_option_purge_delay`, for which the bindings have no name.
const PURGE_DELAY: c_int = 15;

/// Milliseconds after which mimalloc gives freed memory back to the system, unless told otherwise.
const AT_ONCE: c_long = 10;

/// From now on freed memory stays the process's: what one step frees the next one takes, and pages that went back to the system
/// in between would be cleared again. What is free already goes back. `MIMALLOC_PURGE_DELAY` in the environment has precedence.
pub(crate) fn keep_pages() {
    // SAFETY: mimalloc allows both at any time, and ignores what is no option.
    unsafe {
        mi_collect(true);
        mi_option_set_default(PURGE_DELAY, -1);
    }
}

/// From now on freed memory goes back to the system.
pub(crate) fn give_back_pages() {
    // SAFETY: as above.
    unsafe { mi_option_set_default(PURGE_DELAY, AT_ONCE) }
}

/// Pages of 2 MiB are resident as a whole when any of their bytes is, which costs up to a quarter more memory between blocks
/// of a few megabytes, and training gains nothing from them (measured).
pub(crate) fn small_pages() {
    #[cfg(target_os = "linux")]
    // SAFETY: this option of prctl changes how the process's later page faults are served, and touches no memory.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::Duration;

    /// Pages that this process had to be given so far.
    fn faults() -> i64 {
        // SAFETY: zeros are a valid value, and it is written before it is read.
        unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_SELF, &mut usage);
            usage.ru_minflt
        }
    }

    #[test]
    fn memory_is_taken_again_without_page_faults() {
        const SIZE: usize = 16 << 20;
        super::keep_pages();
        let take = |fill| std::hint::black_box(vec![fill; SIZE]);
        drop(take(1u8));
        let before = faults();
        for fill in 2..12 {
            drop(take(fill));
            // Longer than mimalloc waits by default.
            std::thread::sleep(Duration::from_millis(150));
        }
        let taken = faults() - before;
        assert!(taken < (SIZE / 4096) as i64, "{taken} page faults");
    }
}
