//! The threads that compute.

/// Makes the calling thread one of the pool's, if nobody has made the pool yet. Work that a thread outside the pool shares out
/// costs it a sleep until the pool is done, and each piece of a training step is short: from inside, it does its part at once
/// and wakes the others alone.
pub(crate) fn join_pool() {
    // A pool of this thread alone would do nothing for the others, such as the dashboard's, while it is busy elsewhere.
    let alone = std::thread::available_parallelism().is_ok_and(|threads| threads.get() == 1)
        || std::env::var("RAYON_NUM_THREADS").is_ok_and(|threads| threads.trim() == "1");
    if !alone {
        // Fails where the pool is there already, and then everything is as before.
        let _ = rayon::ThreadPoolBuilder::new().use_current_thread().build_global();
    }
}
