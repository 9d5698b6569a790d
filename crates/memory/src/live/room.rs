//! Room for what a census writes while it reads a clone, had before there is one.
//!
//! A page that is touched for the first time costs the system as long as reading four from the clone (1.6 µs on a
//! virtual machine), and until the clone has gone each page that the target writes to is copied. So malloc's heap is
//! made to grow beforehand. Behind the fork of the helper, though: pages that both have would be copied too.

use super::headroom;

/// Of a clone's private memory so much is written about it at least: a quarter.
const PART: u64 = 4;
const MOST: u64 = 64 << 20;
/// Of what the system and the cgroups around this program have left.
const PART_OF_WHAT_IS_LEFT: u64 = 8;

/// Memory that malloc has at hand. Given back when dropped, as far as it is free then.
pub(super) struct Room(());

impl Room {
    /// For the clone of so many private bytes.
    pub fn before_a_clone_of(private: u64) -> Room {
        let bytes = (private / PART).min(MOST).min(headroom::available() / PART_OF_WHAT_IS_LEFT);
        heap::keep(true);
        // Smaller than what malloc would map by itself. Freed, they are one piece at the end of the heap.
        const PIECE: usize = 32 << 10;
        let pieces: Vec<Vec<u8>> = (0..bytes / PIECE as u64)
            .map(|_| {
                let mut piece = Vec::with_capacity(PIECE);
                for page in piece.spare_capacity_mut().chunks_mut(super::pagemap::PAGE as usize) {
                    page[0].write(0);
                }
                std::hint::black_box(piece)
            })
            .collect();
        drop(pieces);
        Room(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        heap::keep(false);
    }
}

/// Other allocators than glibc's do as they like.
#[cfg(not(target_env = "gnu"))]
mod heap {
    pub fn keep(_: bool) {}
}

#[cfg(target_env = "gnu")]
mod heap {
    /// malloc's own (`DEFAULT_TRIM_THRESHOLD`, glibc's malloc.c).
    const USUAL: i32 = 128 << 10;

    /// Whether what is free at the end of the heap stays with this program.
    pub fn keep(keep: bool) {
        let threshold = if keep { i32::MAX } else { USUAL };
        // SAFETY: sets a number, under the lock of the heap.
        unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, threshold) };
        if !keep {
            // SAFETY: gives back what nobody has; takes an integer.
            unsafe { libc::malloc_trim(0) };
        }
    }
}
