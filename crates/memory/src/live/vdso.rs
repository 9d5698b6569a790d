//! The whole of `[vdso]`, though the target has not touched all of its pages.

use super::smaps;
use crate::{Mapping, Memory};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The target's, as this process has it: the kernel has one for all 64-bit programs, and asking the target for
/// a page would make it resident there. `None` when a page that the target has tells otherwise, as after a move
/// from another kernel (CRIU).
pub(super) fn of(mapping: &Mapping, memory: &dyn Memory) -> Option<Vec<u8>> {
    let vdso = own().filter(|vdso| vdso.len() as u64 == mapping.len())?;
    // A page that is not the kernel's has a breakpoint or a patch, and tells nothing of the others.
    let mut witnesses = mapping.residency.runs.iter().filter(|run| run.state.present && run.state.file);
    let same = witnesses.all(|run| {
        let theirs = &mut vec![0; (run.end - run.start) as usize];
        let at = (run.start - mapping.start) as usize;
        memory.read(run.start, theirs).is_ok() && vdso.get(at..at + theirs.len()) == Some(theirs)
    });
    same.then_some(vdso)
}

fn own() -> Option<Vec<u8>> {
    let entries = smaps::parse(&std::fs::read("/proc/self/maps").ok()?);
    let mapping = entries.into_iter().map(|entry| entry.mapping).find(Mapping::is_vdso)?;
    let mut bytes = vec![0; mapping.len() as usize];
    File::open("/proc/self/mem").ok()?.read_exact_at(&mut bytes, mapping.start).ok()?;
    Some(bytes)
}
