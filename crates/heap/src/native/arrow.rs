//! Arrow's buffers: C++ objects that say where their memory is, mostly in a pool that no malloc walks.

use super::Native;
use super::cpp::CppObject;
use crate::kinds::{Domain, Sure};
use crate::ledger::KnownRange;
use std::ops::Range;
use wmr_memory::{Backing, Reader};

pub(super) const BUFFER: &str = "arrow buffer";

/// `arrow::Buffer`: vtable, two flags, then data, size and capacity.
const DATA: u64 = 16;
const SIZE: u64 = 24;
const CAPACITY: u64 = 32;
/// From the counts of a `shared_ptr` to the object, when they share a block.
const AFTER_COUNTS: u64 = 16;

impl Native<'_> {
    /// Names the buffers' memory: blocks at once, and ranges of anonymous memory that are returned.
    pub(super) fn name_arrow(&mut self, objects: &[CppObject]) -> Vec<KnownRange> {
        let mut reader = self.target.reader();
        let is_buffer = |class: &str| class.starts_with("arrow::") && class.ends_with("Buffer");
        let mut ranges = Vec::new();
        for object in objects.iter().filter(|o| is_buffer(&o.class)) {
            let start = self.blocks.start(object.block);
            for at in [start, start.wrapping_add(AFTER_COUNTS)] {
                let class = reader.u64(at).ok().and_then(|table| self.class(&mut reader, table));
                if class.as_deref() == Some(object.class.as_str()) {
                    ranges.extend(buffer(&mut reader, at));
                }
            }
        }
        let kind = self.intern(Domain::Native, BUFFER, Sure::Owner);
        let mut outside: Vec<Range<u64>> = Vec::new();
        ranges.sort_unstable_by_key(|range| (range.start, range.end));
        for range in ranges {
            if let Some(block) = self.blocks.containing(range.start) {
                let fits = range.end <= block.start.saturating_add(block.usable);
                if fits && self.census.mark(block.id).is_none() {
                    self.set(block.id, kind);
                }
                continue;
            }
            let Some(mapping) = self.target.mapping(range.start) else { continue };
            if mapping.backing != Backing::Anonymous || range.end > mapping.end {
                continue;
            }
            // Slices share the memory of the whole.
            match outside.last_mut() {
                Some(last) if range.start < last.end => last.end = last.end.max(range.end),
                _ => outside.push(range),
            }
        }
        let pools = self.pools(&outside);
        let known = |kind: &str, sure, range| KnownRange {
            range,
            domain: Domain::Native,
            kind: kind.to_owned(),
            detail: String::new(),
            sure,
        };
        let buffers = outside.into_iter().map(|range| known(BUFFER, Sure::Owner, range));
        buffers.chain(pools.into_iter().map(|range| known("arrow pool", Sure::Signature, range))).collect()
    }

    /// What lies around the buffers in mappings that mimalloc, Arrow's pool, reserved: the pool's own and
    /// what it keeps free. It asks for addresses that the kernel gives to nobody by itself
    /// (`_mi_os_get_aligned_hint`), so nobody's mapping joins them.
    fn pools(&self, buffers: &[Range<u64>]) -> Vec<Range<u64>> {
        const HINTS: Range<u64> = 2 << 40..31 << 40;
        const SEGMENT: u64 = 32 << 20;
        const ALIGNMENT: u64 = 4 << 20;
        let mut pools = Vec::new();
        for mapping in &self.target.mappings {
            let first = buffers.partition_point(|b| b.start < mapping.start);
            let inside = || buffers[first..].iter().take_while(|b| b.start < mapping.end);
            let shaped = HINTS.contains(&mapping.start)
                && mapping.start.is_multiple_of(ALIGNMENT)
                && mapping.end - mapping.start >= SEGMENT;
            if !shaped || inside().next().is_none() {
                continue;
            }
            let mut at = mapping.start;
            for buffer in inside() {
                pools.push(at..buffer.start);
                at = buffer.end;
            }
            pools.push(at..mapping.end);
        }
        pools.retain(|range| range.start < range.end);
        pools
    }
}

/// The memory of the `arrow::Buffer` at an address.
fn buffer(reader: &mut Reader, at: u64) -> Option<Range<u64>> {
    let mut word = |offset| reader.u64(at.wrapping_add(offset)).ok();
    let (data, size, capacity) = (word(DATA)?, word(SIZE)?, word(CAPACITY)?);
    let fits = data != 0 && size <= capacity && capacity > 0;
    fits.then_some(data..data.checked_add(capacity)?)
}
