//! Layouts of glibc's structures, x86-64 and other LP64 targets: data, tried against memory.
//!
//! From the DWARF of Debian's libc6-dbg 2.31, 2.36, 2.41 and 2.43. Each structure is recognised by
//! itself: which release changed which is not known for those in between, and need not be.

/// `struct malloc_state`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Ten list heads; 2.43 has none.
    pub fastbins: Option<u64>,
    pub top: u64,
    /// 127 pairs of fd and bk.
    pub bins: u64,
    pub next: u64,
    pub system_mem: u64,
    pub size: u64,
}

/// `mutex` is at 0 in all, `flags` at 4.
pub(super) const FLAGS: u64 = 4;
pub(super) const NONCONTIGUOUS: u32 = 2;
pub(super) const BINS: u64 = 127;
pub(super) const FASTBINS: u64 = 10;

pub(super) static STATES: [State; 2] = [
    // 2.31 to 2.41
    State { fastbins: Some(16), top: 96, bins: 112, next: 2160, system_mem: 2184, size: 2200 },
    // 2.43
    State { fastbins: None, top: 8, bins: 24, next: 2072, system_mem: 2096, size: 2112 },
];

/// `struct malloc_par`, of which there is one: `mp_`.
#[derive(Debug)]
pub(super) struct Par {
    pub n_mmaps: u64,
    pub max_n_mmaps: u64,
    pub mmapped_mem: u64,
    pub max_mmapped_mem: u64,
    pub sbrk_base: u64,
    pub tcache_bins: u64,
    pub tcache_count: u64,
    pub size: u64,
}

pub(super) static PARS: [Par; 3] = [
    // 2.31
    Par {
        n_mmaps: 40,
        max_n_mmaps: 48,
        mmapped_mem: 56,
        max_mmapped_mem: 64,
        sbrk_base: 72,
        tcache_bins: 80,
        tcache_count: 96,
        size: 112,
    },
    // 2.36, 2.41: huge pages
    Par {
        n_mmaps: 60,
        max_n_mmaps: 68,
        mmapped_mem: 80,
        max_mmapped_mem: 88,
        sbrk_base: 96,
        tcache_bins: 104,
        tcache_count: 120,
        size: 136,
    },
    // 2.43: thp_mode
    Par {
        n_mmaps: 68,
        max_n_mmaps: 76,
        mmapped_mem: 88,
        max_mmapped_mem: 96,
        sbrk_base: 104,
        tcache_bins: 112,
        tcache_count: 128,
        size: 144,
    },
];

/// `struct tcache_perthread_struct`.
#[derive(Debug)]
pub(super) struct Tcache {
    /// `u16` per bin at 0, then a list head per bin.
    pub bins: u64,
    /// The numbers are what still fits (`num_slots`), not what is there (`counts`).
    pub counts_down: bool,
    /// Of the chunk it lives in, if malloc found one that fits exactly. It may be one of 16 bytes more,
    /// too little to be split off: 2.43 makes a cache as late as at the thread's first free.
    pub chunk_size: u64,
}

impl Tcache {
    pub fn fits(&self, chunk_size: u64) -> bool {
        chunk_size == self.chunk_size || chunk_size == self.chunk_size + 16
    }
}

/// Bins of one chunk size each, 32 bytes and up in steps of 16. Those of 2.43 beyond hold sizes of one
/// power of two each, from 1,024 on.
pub(super) const TCACHE_SMALL_BINS: u64 = 64;

pub(super) static TCACHES: [Tcache; 2] = [
    // 2.30 to 2.41
    Tcache { bins: 64, counts_down: false, chunk_size: 0x290 },
    // 2.43
    Tcache { bins: 76, counts_down: true, chunk_size: 0x300 },
];

/// `HEAP_MAX_SIZE`, to which the heaps of thread arenas are aligned.
pub(super) const HEAP_MAX: u64 = 64 << 20;
/// `sizeof(heap_info)`, which the first heap's arena follows: up to 2.34, and later (`pagesize`).
pub(super) const HEAP_INFO: [u64; 2] = [32, 48];
pub(super) const HEAP_PREV: u64 = 8;
pub(super) const HEAP_SIZE: u64 = 16;

/// Low bits of a chunk's size.
pub(super) const PREV_INUSE: u64 = 1;
pub(super) const IS_MMAPPED: u64 = 2;
pub(super) const NON_MAIN: u64 = 4;
pub(super) const FLAG_BITS: u64 = 7;
/// Smallest chunk. A fencepost is smaller.
pub(super) const MIN_CHUNK: u64 = 32;
/// Size field of each of the two fenceposts that end a part of the main heap.
pub(super) const FENCEPOST: u64 = 16 | PREV_INUSE;
