//! An allocator that counts what a test's process allocates. Having this module is having that allocator.

// Each test binary uses its part of this.
#![allow(dead_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How often the calling thread has allocated.
pub(crate) fn of_this_thread() -> u64 {
    OF_THIS_THREAD.get()
}

/// How often all threads together have.
pub(crate) fn of_all_threads() -> u64 {
    OF_ALL_THREADS.load(Ordering::Relaxed)
}

/// How many bytes have been asked for and not given back.
pub(crate) fn live_bytes() -> usize {
    LIVE_BYTES.load(Ordering::Relaxed)
}

/// The same with what the allocator itself takes: 8 bytes each, in steps of 16, at least 32.
pub(crate) fn taken_bytes() -> usize {
    TAKEN_BYTES.load(Ordering::Relaxed)
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static OF_THIS_THREAD: Cell<u64> = const { Cell::new(0) };
}

static OF_ALL_THREADS: AtomicU64 = AtomicU64::new(0);

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

static TAKEN_BYTES: AtomicUsize = AtomicUsize::new(0);

const fn taken(bytes: usize) -> usize {
    let with_own = (bytes + 8).next_multiple_of(16);
    if with_own < 32 { 32 } else { with_own }
}

fn count(bytes: usize) {
    OF_THIS_THREAD.set(OF_THIS_THREAD.get() + 1);
    OF_ALL_THREADS.fetch_add(1, Ordering::Relaxed);
    LIVE_BYTES.fetch_add(bytes, Ordering::Relaxed);
    TAKEN_BYTES.fetch_add(taken(bytes), Ordering::Relaxed);
}

fn uncount(bytes: usize) {
    LIVE_BYTES.fetch_sub(bytes, Ordering::Relaxed);
    TAKEN_BYTES.fetch_sub(taken(bytes), Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps to the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        uncount(layout.size());
        // SAFETY: the caller keeps to the contract of `dealloc`, which is the same.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        uncount(layout.size());
        // SAFETY: the caller keeps to the contract of `realloc`, which is the same.
        unsafe { System.realloc(memory, layout, size) }
    }
}
