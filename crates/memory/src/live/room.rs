//! Room for what a census writes while it reads a clone, had before there is one.
//!
//! A page that is touched for the first time costs the system more than one that is read from the clone (1.6 and 1.1 µs
//! on a virtual machine), and until the clone has gone each page that the target writes to is copied. So malloc's heap
//! is made to grow beforehand. Behind the fork of the helper, though: pages that both have would be copied too.

use super::headroom;
use super::pagemap::PAGE;

/// Of a heap full of small objects, until the clone may go: a third of its bytes is written about it.
const PART: u64 = 3;
/// What is free between what is in use malloc cannot give back: of millions of lists, more would make our peak.
const MOST: u64 = 48 << 20;
/// Of what the system and the cgroups around this program have left.
const PART_OF_WHAT_IS_LEFT: u64 = 8;
/// Smaller than what malloc maps by itself; many, freed, are one piece at the end of its heap.
const PIECE: usize = 32 << 10;

/// Memory that malloc has at hand, for all threads where they share one heap. What of it is free when this is dropped is
/// given back.
pub(super) struct Room(());

impl Room {
    /// For the clone of so many private bytes.
    pub fn before_a_clone_of(private: u64) -> Room {
        let bytes = (private / PART).min(MOST).min(headroom::available() / PART_OF_WHAT_IS_LEFT);
        if heap::keep_what_is_free() {
            let pieces: Vec<Vec<u8>> = (0..bytes / PIECE as u64).map_while(|_| touched(PIECE)).collect();
            drop(pieces);
        }
        Room(())
    }
}

/// `None` where a limit is reached: then it is the room that there is.
fn touched(bytes: usize) -> Option<Vec<u8>> {
    let mut room = Vec::new();
    room.try_reserve_exact(bytes).ok()?;
    for page in room.spare_capacity_mut().chunks_mut(PAGE as usize) {
        page[0].write(0);
    }
    // Or the compiler would leave out what nobody reads.
    Some(std::hint::black_box(room))
}

impl Drop for Room {
    fn drop(&mut self) {
        heap::give_back_what_is_free();
    }
}

/// Other allocators than glibc's do as they like.
#[cfg(not(target_env = "gnu"))]
mod heap {
    pub fn keep_what_is_free() -> bool {
        false
    }

    pub fn give_back_what_is_free() {}
}

#[cfg(target_env = "gnu")]
mod heap {
    /// malloc's own (`DEFAULT_TRIM_THRESHOLD`, glibc's malloc.c).
    const USUAL: i32 = 128 << 10;

    /// At the end of the heap, however much it is. False when malloc does not.
    pub fn keep_what_is_free() -> bool {
        // SAFETY: sets a number, under the lock of the heap.
        unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX) == 1 }
    }

    pub fn give_back_what_is_free() {
        // SAFETY: sets a number as above, and gives back what nobody has.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, USUAL);
            libc::malloc_trim(0);
        }
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    /// Pages that were new to this thread while it ran.
    fn faults(run: impl FnOnce()) -> i64 {
        let so_far = || {
            // SAFETY: fills in the structure, which lives across the call and may be all zeroes.
            unsafe {
                let mut usage: libc::rusage = std::mem::zeroed();
                libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
                usage.ru_minflt
            }
        };
        let before = so_far();
        run();
        so_far() - before
    }

    #[test]
    fn what_is_written_later_touches_no_new_page() {
        const COLUMNS: usize = 12;
        let write = || drop((0..COLUMNS).map(|_| touched(1 << 20)).collect::<Vec<_>>());
        let pages = (COLUMNS << 20) as i64 / PAGE as i64;
        assert!(faults(write) > pages / 2);
        let mut room = None;
        assert!(faults(|| room = Some(Room::before_a_clone_of(48 << 20))) > pages);
        assert!(faults(write) < pages / 20);
        drop(room);
    }
}
