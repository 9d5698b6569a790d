//! What looking costs the process that is looked at, and how often it may be done for that.

use std::time::{Duration, Instant};

/// What a page takes that it writes to first while a clone lives: it is copied. By the rounds of a process that
/// touches all it has 2.5 to 5 µs, as busy as the machine is (`cargo xtask bench pause`), with pages that it finds
/// protected still when the clone has gone.
const FAULT: Duration = Duration::from_micros(5);
/// One part of its time in so many: less than 1 %, as no estimate is exact.
const SHARE: u32 = 125;

pub struct Costs {
    every: Duration,
    next: Duration,
    /// When the look before ended, and how many faults there were by then.
    before: Option<(Instant, u64)>,
}

impl Costs {
    pub fn new(every: Duration) -> Costs {
        Costs { every, next: every, before: None }
    }

    /// A look that took so long, with a pause and faults, of which some would have been without it: as many as
    /// there were between looks. What it cost.
    pub fn add(&mut self, took: Duration, pause: Duration, faults: u64, more: u64) -> Duration {
        let usual = self.before.map_or(0.0, |(when, count)| {
            let time = when.elapsed().saturating_sub(took).as_secs_f64().max(1e-3);
            faults.saturating_sub(count) as f64 / time * took.as_secs_f64()
        });
        let copied = (more as f64 - usual).max(0.0);
        let cost = pause + FAULT.mul_f64(copied);
        self.before = Some((Instant::now(), faults + more));
        self.next = self.every.max(cost.saturating_mul(SHARE));
        cost
    }

    /// From the beginning of a look to that of the next.
    pub fn next(&self) -> Duration {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_costs_more_is_taken_less_often() {
        let every = Duration::from_secs(10);
        let mut costs = Costs::new(every);
        let second = Duration::from_secs(1);
        assert_eq!(costs.add(second, Duration::from_millis(8), 0, 0), Duration::from_millis(8));
        assert_eq!(costs.next(), every);
        // 62,000 pages copied: 310 ms, and one part in 125 of 39.75 s.
        let mut costs = Costs::new(every);
        costs.add(second, Duration::from_millis(8), 0, 62_000);
        assert_eq!(costs.next(), Duration::from_millis(39_750));
        // A process that faults all the time does not so because of us.
        costs.before = Some((Instant::now().checked_sub(Duration::from_secs(11)).unwrap(), 0));
        costs.add(second, Duration::from_millis(8), 1_000_000, 90_000);
        assert_eq!(costs.next(), every);
    }
}
