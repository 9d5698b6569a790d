//! What the cyclic collector says of itself: is it on, when does it run, what could it not take.

use crate::gc::Generation;
use crate::runtime::Python;
use wmr_memory::{Reader, Target};

/// Objects of `gc.garbage` that are listed.
const MAX_GARBAGE: u64 = 1 << 24;

/// The collector of one interpreter, or of all where they share it (up to 3.8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collector {
    pub enabled: bool,
    /// `gc.set_debug`: 32 is `DEBUG_SAVEALL`.
    pub debug: u32,
    /// Youngest first. 3.14.0 to 3.14.4 have young, old, old here.
    pub generations: Vec<GenerationState>,
    /// The list object `gc.garbage`.
    pub garbage: Option<u64>,
    /// What it holds.
    pub uncollectable: Vec<u64>,
}

/// One generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GenerationState {
    /// Collected when the count is above it; 0 switches it off.
    pub threshold: u32,
    /// Of the youngest: allocations less deallocations; of the others: collections of the one before.
    pub count: i32,
    pub stats: Option<GenerationStats>,
}

/// As `gc.get_stats()` has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GenerationStats {
    pub collections: u64,
    pub collected: u64,
    pub uncollectable: u64,
}

impl Python {
    /// Every collector there is. What the layout or the symbols do not say is absent.
    pub fn collectors(&self, target: &Target) -> Vec<Collector> {
        let mut reader = target.reader();
        let heads = |interpreter: u64| -> Vec<u64> {
            let lists = self.gc.lists.iter().filter(|list| list.interpreter == interpreter);
            lists
                .filter(|list| matches!(list.generation, Generation::Young(_)))
                .map(|list| list.head)
                .collect()
        };
        let mut seen = Vec::new();
        for list in &self.gc.lists {
            if !seen.contains(&list.interpreter) {
                seen.push(list.interpreter);
            }
        }
        seen.into_iter()
            .filter_map(|interpreter| self.collector(target, &mut reader, &heads(interpreter)))
            .collect()
    }

    fn collector(&self, target: &Target, reader: &mut Reader, heads: &[u64]) -> Option<Collector> {
        let (first, second) = (*heads.first()?, *heads.get(1)?);
        let stride = second.wrapping_sub(first);
        let table = &self.layout.table;
        let image = self.image(target);
        let field = |name: &str| -> Option<u64> {
            let base = first.wrapping_sub(table.offset("_gc_runtime_state", "generations")?);
            Some(base.wrapping_add(table.offset("_gc_runtime_state", name)?))
        };
        // Behind the generations a table of another patch level, with heads of another size, does not hold.
        let behind = |name: &str| field(name).filter(|_| table.size("gc_generation") == Some(stride));
        // 2.7 and 3.6: static variables.
        let symbol =
            |name: &str| image.filter(|_| self.runtime.is_none()).and_then(|image| image.symbol(name));
        let enabled = reader.u32(field("enabled").or_else(|| symbol("enabled"))?).ok()? != 0;
        let debug =
            field("debug").or_else(|| symbol("debug")).and_then(|at| reader.u32(at).ok()).unwrap_or(0);
        // Inline up to 3.14; a pointer to more than that after it.
        let offset = |name: &str| table.offset("_gc_runtime_state", name);
        let inline = offset("collecting")
            .zip(offset("generation_stats"))
            .is_none_or(|(end, at)| end.wrapping_sub(at) >= STATS * heads.len() as u64);
        let stats = behind("generation_stats").filter(|_| inline).or_else(|| symbol("generation_stats"));
        let generations = heads
            .iter()
            .zip(0u64..)
            .filter_map(|(head, i)| {
                Some(GenerationState {
                    threshold: reader.u32(head.wrapping_add(stride).wrapping_sub(8)).ok()?,
                    count: reader.u32(head.wrapping_add(stride).wrapping_sub(4)).ok()?.cast_signed(),
                    stats: stats.and_then(|at| generation_stats(reader, at.wrapping_add(STATS * i))),
                })
            })
            .collect();
        let garbage = behind("garbage").or_else(|| symbol("garbage")).and_then(|at| reader.u64(at).ok());
        let garbage = garbage.filter(|list| *list != 0);
        let uncollectable = garbage.and_then(|list| self.items(reader, list)).unwrap_or_default();
        Some(Collector { enabled, debug, generations, garbage, uncollectable })
    }

    /// What a list holds.
    fn items(&self, reader: &mut Reader, list: u64) -> Option<Vec<u64>> {
        let count = reader.u64(list.wrapping_add(self.layout.object.size)).ok()?;
        let allocated = reader.u64(list.wrapping_add(self.layout.list.allocated)).ok()?;
        let first = reader.u64(list.wrapping_add(self.layout.list.ob_item)).ok()?;
        let mut items = Vec::new();
        for i in 0..count.min(allocated).min(MAX_GARBAGE) {
            items.push(reader.u64(first.wrapping_add(8 * i)).ok()?);
        }
        Some(items)
    }
}

/// `struct gc_generation_stats`: three counts.
const STATS: u64 = 24;

fn generation_stats(reader: &mut Reader, at: u64) -> Option<GenerationStats> {
    Some(GenerationStats {
        collections: reader.u64(at).ok()?,
        collected: reader.u64(at.wrapping_add(8)).ok()?,
        uncollectable: reader.u64(at.wrapping_add(16)).ok()?,
    })
}
