//! Where frames of pure Python code live from 3.11 on: chunks of each thread's data stack.

use crate::frames::code_at;
use crate::model::Model;
use crate::runtime::Python;
use rustc_hash::FxHashSet;
use std::ops::Range;
use wmr_memory::{Reader, Target};

/// Chunks of all threads; deep recursion makes one per 16 KiB of frames.
const MAX_CHUNKS: usize = 1 << 20;

/// A `_PyStackChunk`: a mapping of its own, 16 KiB or more (`_PyObject_VirtualAlloc`: mmap).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackChunk {
    pub addr: u64,
    /// Bytes, header included.
    pub size: u64,
    /// Where the live part ends.
    pub live_end: u64,
    /// The `PyThreadState` it belongs to.
    pub thread: u64,
    /// 3.14+: kept for the next call, nothing in it lives.
    pub spare: bool,
}

/// `DATA_STACK_CHUNK_SIZE` (Python/pystate.c): larger ones have it doubled.
const CHUNK: u64 = 16 << 10;
const PAGE: u64 = 4096;

/// Chunks within a range of unknown use that no thread has: the frames of a greenlet that waits, which keeps
/// them until it is switched to. Their addresses and sizes; `pages` is how many may be looked at still.
pub fn parked_chunks(
    model: &Model,
    reader: &mut Reader,
    range: Range<u64>,
    pages: &mut usize,
) -> Vec<Range<u64>> {
    let (Some(layout), Some(_)) = (model.layout.stack_chunk, model.layout.iframe) else { return Vec::new() };
    let mut found = Vec::new();
    let mut code_type = None;
    let mut at = range.start.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
    while at < range.end && *pages > 0 {
        *pages -= 1;
        let mut word = |field: u64| reader.u64(at.wrapping_add(field)).ok();
        let chunk = word(layout.chunk_size).zip(word(layout.previous)).filter(|(size, previous)| {
            let sized = size.is_multiple_of(CHUNK) && (size / CHUNK).is_power_of_two();
            sized && *size <= range.end - at && previous.is_multiple_of(PAGE)
        });
        // The first word of a stack's first chunk is left out, so that nothing is at its bottom (`push_chunk`).
        let chunk = chunk.filter(|(_, previous)| {
            let first = at.saturating_add(layout.data).saturating_add(if *previous == 0 { 8 } else { 0 });
            code_at(model, reader, first, &mut code_type).is_some()
        });
        let size = chunk.map_or(PAGE, |(size, _)| {
            found.push(at..at + size);
            size
        });
        at = at.saturating_add(size);
    }
    found
}

impl Python {
    /// The data stack chunks of all threads, by address. Empty up to 3.10.
    pub fn stack_chunks(&self, target: &Target) -> Vec<StackChunk> {
        let mut out = Vec::new();
        let mut reader = target.reader();
        let ts = &self.layout.thread;
        let (Some(chunk_at), Some(top_at), Some(layout)) =
            (ts.datastack_chunk, ts.datastack_top, &self.layout.stack_chunk)
        else {
            return out;
        };
        let mut seen = FxHashSet::default();
        for thread in self.interpreters.iter().flat_map(|i| &i.threads) {
            let mut field = |at: u64| reader.u64(thread.addr.wrapping_add(at)).unwrap_or(0);
            let (current, top) = (field(chunk_at), field(top_at));
            let spare = ts.datastack_cached_chunk.map_or(0, &mut field);
            let mut addr = current;
            while addr != 0 && out.len() < MAX_CHUNKS && seen.insert(addr) {
                let (Ok(size), Ok(words), Ok(previous)) = (
                    reader.u64(addr.wrapping_add(layout.chunk_size)),
                    reader.u64(addr.wrapping_add(layout.top)),
                    reader.u64(addr.wrapping_add(layout.previous)),
                ) else {
                    break;
                };
                let Some(end) = addr.checked_add(size) else { break };
                // `top` of the current chunk is stale; the older ones' counts words of data.
                let data = addr.saturating_add(layout.data);
                let live_end =
                    if addr == current { top } else { data.saturating_add(words.saturating_mul(8)) };
                let live_end = live_end.clamp(data.min(end), end);
                out.push(StackChunk { addr, size, live_end, thread: thread.addr, spare: false });
                addr = previous;
            }
            if spare != 0
                && seen.insert(spare)
                && let Ok(size) = reader.u64(spare.wrapping_add(layout.chunk_size))
            {
                let live_end = spare.saturating_add(layout.data);
                out.push(StackChunk { addr: spare, size, live_end, thread: thread.addr, spare: true });
            }
        }
        out.sort_unstable_by_key(|c| c.addr);
        out
    }
}
