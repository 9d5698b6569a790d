//! How long a stop will be, told from what is known before it.

use super::smaps::Entry;
use std::time::Duration;

/// What decides the length of a stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Burden {
    /// Private pages of 4 KiB in RAM or swapped, bytes.
    pub small: u64,
    /// The same in huge pages.
    pub huge: u64,
    /// Pinned for a device or io_uring: copied by a clone, not shared.
    pub pinned: u64,
    /// Kept out of clones (`MADV_DONTFORK`, `MADV_WIPEONFORK`): copied while it stands still.
    pub apart: u64,
    pub mappings: u64,
    pub threads: u64,
}

impl Burden {
    pub(super) fn of(entries: &[Entry], pinned: u64, threads: u64) -> Self {
        let mut burden = Burden { pinned, threads, mappings: entries.len() as u64, ..Burden::default() };
        for Entry { mapping, flags } in entries {
            let private = mapping.usage.anonymous.saturating_add(mapping.usage.swap);
            if flags.apart() {
                burden.apart += private;
            } else {
                burden.huge += mapping.usage.anon_huge;
                burden.small += private.saturating_sub(mapping.usage.anon_huge);
            }
        }
        burden
    }

    /// Private bytes in all.
    pub fn private(&self) -> u64 {
        self.small + self.huge + self.apart
    }

    /// The stop of a clone. Measured on Linux 6.18, two processors: 26–35 ms a GiB of small pages, 1 ms of
    /// huge ones, 340 ms of pinned ones; the upper ends are taken.
    pub fn of_clone(&self) -> Duration {
        self.stopping()
            + per_gib(self.small, 35.0)
            + per_gib(self.huge, 1.0)
            + per_gib(self.pinned, 340.0)
            + per_gib(self.apart, 300.0)
            + Duration::from_nanos(self.mappings.saturating_mul(1500))
    }

    /// The stop of a copy: 199–310 ms a GiB of small pages, 75–79 of huge ones.
    pub fn of_copy(&self) -> Duration {
        self.stopping() + per_gib(self.small + self.apart, 310.0) + per_gib(self.huge, 80.0)
    }

    /// 13 µs a thread, to stop it and to let it go.
    fn stopping(&self) -> Duration {
        Duration::from_micros(self.threads.saturating_mul(13).saturating_add(200))
    }
}

fn per_gib(bytes: u64, millis: f64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / f64::from(1 << 30) * millis / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gigabyte_of_small_pages() {
        let burden = Burden { small: 1 << 30, threads: 1, ..Burden::default() };
        assert_eq!(burden.of_clone().as_millis(), 35);
        assert_eq!(burden.of_copy().as_millis(), 310);
        let huge = Burden { huge: 1 << 30, threads: 100, ..Burden::default() };
        assert_eq!(huge.of_clone().as_micros(), 2500);
    }
}
