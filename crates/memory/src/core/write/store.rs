//! From the target into the file, once through and in order.

use super::WriteError;
use super::plan::Plan;
use crate::{Fault, Target, Why};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Read at a time: a system call costs little beside it, and it stays in the cache until it is written.
const CHUNK: u64 = 256 << 10;
/// What is left out of the file when it is zeroes: the block of most file systems.
const BLOCK: usize = 4096;

/// What was stored, and what not.
#[derive(Default)]
pub(super) struct Store {
    /// Bytes written; those in holes are not.
    pub bytes: u64,
    /// Pages that could not be read, by address.
    pub unread: Vec<Range<u64>>,
    first: Option<Fault>,
}

impl Store {
    pub fn of(
        target: &Target,
        plan: &Plan,
        file: &File,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Self, WriteError> {
        let mut store = Store::default();
        let mut scratch = Vec::new();
        let mut segments = plan.segments.iter().peekable();
        for range in &plan.stored {
            while segments.next_if(|segment| segment.end <= range.start).is_some() {}
            let Some(segment) = segments.peek() else { break };
            let mut at = range.start;
            while at < range.end {
                let end = at.saturating_add(CHUNK - at % CHUNK).min(range.end);
                let end = match read(target, at..end, &mut scratch) {
                    Ok(bytes) => {
                        store.bytes += write_sparse(file, segment.offset + (at - segment.start), bytes)?;
                        at + bytes.len() as u64
                    }
                    Err(fault) if fault.why == Why::Gone => return Err(WriteError::Gone(fault)),
                    Err(fault) => {
                        let page = target.page_size.max(1);
                        let end = at.saturating_add(page - at % page).min(range.end);
                        store.fail(at..end, segment.start, fault);
                        end
                    }
                };
                progress(end - at);
                at = end;
            }
        }
        Ok(store)
    }

    fn fail(&mut self, range: Range<u64>, segment: u64, fault: Fault) {
        self.first.get_or_insert(fault);
        match self.unread.last_mut() {
            Some(last) if last.end == range.start && segment < range.start => last.end = range.end,
            _ => self.unread.push(range),
        }
    }

    /// What could not be read, for the user.
    pub fn told(&self) -> Option<String> {
        let fault = self.first?;
        let bytes: u64 = self.unread.iter().map(|range| range.end - range.start).sum();
        Some(format!("{bytes} bytes could not be read and are not in the core, the first at {fault}"))
    }
}

/// The bytes of a range, or as many of its first pages as can be read.
fn read<'b>(target: &'b Target, range: Range<u64>, scratch: &'b mut Vec<u8>) -> Result<&'b [u8], Fault> {
    let at = range.start;
    let len = (range.end - at) as usize;
    // Not through a cursor: it would ask a streamed source for a window besides.
    if let Some((start, bytes)) = target.memory.extent(at)
        && let Some(bytes) = bytes.get((at - start) as usize..).filter(|bytes| !bytes.is_empty())
    {
        return Ok(&bytes[..bytes.len().min(len)]);
    }
    scratch.resize(CHUNK as usize, 0);
    let mut len = len;
    loop {
        let Err(fault) = target.memory.read(at, &mut scratch[..len]) else { return Ok(&scratch[..len]) };
        let page = fault.addr - fault.addr % target.page_size.max(1);
        match page.checked_sub(at) {
            Some(before) if 0 < before && before < len as u64 => len = before as usize,
            _ => return Err(fault),
        }
    }
}

/// Leaves holes for blocks of zeroes; answers the bytes written.
fn write_sparse(file: &File, offset: u64, bytes: &[u8]) -> io::Result<u64> {
    let (mut at, mut written, mut rest) = (offset, 0, bytes);
    while !rest.is_empty() {
        let zero = is_zero(&rest[..rest.len().min(BLOCK)]);
        let alike = rest.chunks(BLOCK).take_while(|block| is_zero(block) == zero);
        let (run, behind) = rest.split_at(alike.map(<[u8]>::len).sum());
        if !zero {
            file.write_all_at(run, at)?;
            written += run.len() as u64;
        }
        at += run.len() as u64;
        rest = behind;
    }
    Ok(written)
}

fn is_zero(block: &[u8]) -> bool {
    // Without a branch for every byte.
    let (words, rest) = block.as_chunks::<64>();
    words.iter().all(|word| word.iter().fold(0, |all, byte| all | byte) == 0) && rest.iter().all(|&b| b == 0)
}
