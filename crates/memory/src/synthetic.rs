//! A memory built by hand, for tests and fuzzing: no process, no file.

use crate::{Capture, Fault, Image, Mapping, Memory, Method, Process, Target, TargetKind, Why};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Regions of bytes at chosen addresses.
#[derive(Debug, Clone, Default)]
pub struct SyntheticMemory {
    regions: BTreeMap<u64, Vec<u8>>,
    /// Answer [`Memory::extent`] with `None`, as a streamed source does.
    pub streamed: bool,
}

impl SyntheticMemory {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a region. Panics when it overlaps another: a test's own mistake.
    pub fn map(&mut self, start: u64, bytes: Vec<u8>) -> &mut Self {
        let end = start + bytes.len() as u64;
        let before = self.regions.range(..end).next_back();
        assert!(before.is_none_or(|(s, b)| s + b.len() as u64 <= start), "regions overlap at {start:#x}");
        self.regions.insert(start, bytes);
        self
    }

    /// Overwrites bytes inside a region. Panics outside of one.
    pub fn write(&mut self, addr: u64, bytes: &[u8]) {
        let (start, region) = self.regions.range_mut(..=addr).next_back().expect("mapped");
        let at = (addr - start) as usize;
        region[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn write_u64(&mut self, addr: u64, value: u64) {
        self.write(addr, &value.to_le_bytes());
    }

    pub fn write_u32(&mut self, addr: u64, value: u32) {
        self.write(addr, &value.to_le_bytes());
    }

    /// A target that has these bytes: a process without threads, captured at the epoch.
    pub fn into_target(self, mappings: Vec<Mapping>, images: Vec<Image>) -> Target {
        Target {
            kind: TargetKind::Process,
            memory: Arc::new(self),
            mappings,
            images,
            threads: Vec::new(),
            process: Process::default(),
            capture: Capture {
                method: Method::File,
                pause: Duration::ZERO,
                consistent: true,
                time: SystemTime::UNIX_EPOCH,
            },
            page_size: 4096,
            notes: Vec::new(),
        }
    }

    fn region(&self, addr: u64) -> Option<(u64, &[u8])> {
        let (start, bytes) = self.regions.range(..=addr).next_back()?;
        (addr - start < bytes.len() as u64).then_some((*start, bytes))
    }
}

impl Memory for SyntheticMemory {
    fn extent(&self, addr: u64) -> Option<(u64, &[u8])> {
        if self.streamed { None } else { self.region(addr) }
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0;
        while done < buf.len() {
            let at = addr.checked_add(done as u64).ok_or(Fault::new(addr, Why::NotMapped))?;
            let (start, bytes) = self.region(at).ok_or(Fault::new(at, Why::NotMapped))?;
            let bytes = &bytes[(at - start) as usize..];
            let n = bytes.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&bytes[..n]);
            done += n;
        }
        Ok(())
    }
}
