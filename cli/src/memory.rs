//! The allocator of this program, and how a node gives memory back.
//!
//! A large object goes through a node in small pieces, on many threads. The C library's allocator keeps
//! what one thread has freed for that thread's part of the heap: a node whose buffers never took 30 MiB
//! together grew by 100 MiB. jemalloc shares what is free, and a thread of its own returns pages to the
//! system that nobody has used for a moment (jemalloc(3), `dirty_decay_ms`, `background_thread`).

use tikv_jemalloc_ctl::{Access as _, AsName as _, Result, background_thread};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long freed pages stay for the next who wants some, in milliseconds. Without it (0) small writes of
/// 256 clients cost the nodes about twice the processor time; with jemalloc's 10 seconds, all that an
/// upload has used stays until it is over.
const KEEP_MS: isize = 50;
/// The part of the heap that is in use from the start, and those that are made for later threads.
const DECAYS: [&[u8]; 2] = [b"arena.0.dirty_decay_ms\0", b"arenas.dirty_decay_ms\0"];

/// Lets freed memory go back to the system from now on, without anybody who allocates waiting for it.
///
/// Call it once, before other threads are started.
pub(crate) fn give_back() -> Result<()> {
    DECAYS.iter().try_for_each(|name| name.name().write(KEEP_MS))?;
    background_thread::write(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_freed_is_not_kept_for_long() {
        give_back().expect("jemalloc knows these names");
        for name in DECAYS {
            let keep_ms: isize = name.name().read().expect("it is read");
            assert_eq!(keep_ms, KEEP_MS);
        }
        assert!(background_thread::read().expect("it is read"));
    }
}
