//! Memory that a process has and that is no leak: what is free and cannot be given back, what a peak left
//! behind, what stopped being shared after a fork.

use crate::growth::Explained;
use crate::inspect::Inspection;
use wmr_alloc::State;
use wmr_memory::Target;

/// Bytes of each kind; they are beside each other, and no leak is in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Idle {
    /// Free between blocks in use, of pymalloc and of malloc: fragmentation.
    pub pymalloc_free: u64,
    pub malloc_free: u64,
    /// Arenas of pymalloc that are less than a quarter full: each is kept by what is left in it.
    pub sparse_arenas: u64,
    pub arenas: u64,
    /// Free at malloc's end.
    pub top: u64,
    /// Whole free pages of malloc: `malloc_trim(0)` gives them back.
    pub trimmable: u64,
    /// Was in RAM at the peak, and was given back.
    pub returned: u64,
    /// Private pages that forked relatives have too: reference counts un-share them.
    pub shared: u64,
    /// In use, and held.
    pub objects: u64,
    pub total: u64,
}

const PAGE: u64 = 4096;
/// `sizeof(struct malloc_chunk)`: what `mtrim` leaves at the beginning of a free chunk.
const CHUNK: u64 = 48;

impl Idle {
    pub fn of(target: &Target, inspection: &Inspection) -> Idle {
        let explained = Explained::of(inspection);
        let rows = inspection.by_kind();
        let charged = |domain, kinds: &[&str]| {
            let rows =
                rows.iter().filter(|r| r.kind.domain == domain && kinds.contains(&r.kind.kind.as_str()));
            rows.map(|r| r.amount.charge.total()).sum::<u64>()
        };
        let arenas = &inspection.pymalloc.arenas;
        let runs = target.mappings.iter().flat_map(|m| &m.residency.runs);
        let shared = runs.filter(|r| r.state.present && !r.state.file && !r.state.zero && !r.state.exclusive);
        let process = &target.process;
        let malloc_free = charged(crate::Domain::Malloc, &["free chunk", "tcache", "fastbin"]);
        let top = charged(crate::Domain::Malloc, &["top"]);
        Idle {
            pymalloc_free: charged(crate::Domain::Pymalloc, &["free block", "free pool", "never carved"]),
            malloc_free,
            sparse_arenas: arenas.iter().filter(|a| a.used_bytes < a.bytes / 4).count() as u64,
            arenas: arenas.len() as u64,
            top,
            trimmable: trimmable(inspection).min(malloc_free + top),
            returned: process.peak_rss.zip(process.rss).map_or(0, |(peak, now)| peak.saturating_sub(now)),
            shared: if target.knows_residency() { shared.map(|r| r.end - r.start).sum() } else { 0 },
            objects: explained.objects,
            total: inspection.tally.ledger.total,
        }
    }

    /// Free between blocks in use.
    pub fn fragmented(&self) -> u64 {
        self.pymalloc_free + self.malloc_free
    }
}

/// Whole pages that `malloc_trim` finds free.
fn trimmable(inspection: &Inspection) -> u64 {
    let blocks = &inspection.blocks;
    let mut bytes = 0;
    for (at, _) in blocks.spans().iter().enumerate().filter(|(_, span)| span.kind.is_malloc()) {
        blocks.for_each_piece(at, |range, state| {
            if matches!(state, State::FreeChunk | State::Top) {
                let begin = range.start.saturating_add(CHUNK).next_multiple_of(PAGE);
                bytes += (range.end & !(PAGE - 1)).saturating_sub(begin);
            }
        });
    }
    bytes
}

/// Free slots of a size class among all of its pools: 0 is full, 100 empty.
pub fn fragmentation_percent(used: u64, free: u64) -> f64 {
    let all = used + free;
    if all == 0 { 0.0 } else { (free as f64 * 1000.0 / all as f64).round() / 10.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_as_fragmented_as_it_is_empty() {
        assert!(fragmentation_percent(0, 0).abs() < f64::EPSILON);
        assert!((fragmentation_percent(1, 3) - 75.0).abs() < f64::EPSILON);
    }
}
