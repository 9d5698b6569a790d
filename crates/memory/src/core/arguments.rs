//! Which program ran, and with what arguments.

use super::layout::Area;
use super::memory::CoreMemory;
use super::notes::{AT_ENTRY, AT_EXECFN, AT_PHDR, Notes};
use crate::Reader;

/// The kernel allows a quarter of the stack limit for arguments and environment, at most 6 MiB
/// unless the limit was raised; the vector lies right below them.
const SEARCH: u64 = 16 << 20;
const MAX_ARGUMENTS: usize = 4096;
const MAX_BYTES: usize = 1 << 20;

/// Path of the file whose program headers the kernel gave the process.
pub(super) fn executable(areas: &[Area], notes: &Notes, memory: &CoreMemory) -> Vec<u8> {
    for key in [AT_PHDR, AT_ENTRY] {
        let area = notes.auxv(key).and_then(|at| areas.iter().find(|a| a.start <= at && at < a.end));
        if let Some(area) = area.filter(|a| a.name.starts_with(b"/")) {
            return area.name.clone();
        }
    }
    let name = notes.auxv(AT_EXECFN).and_then(|at| Reader::new(memory).cstr(at, 4096).ok());
    name.unwrap_or_default()
}

/// All arguments by the stack; else the 80 bytes in the notes, cut at blanks.
pub(super) fn command_line(notes: &Notes, memory: &CoreMemory) -> Vec<Vec<u8>> {
    by_stack(notes, memory).unwrap_or_else(|| {
        let words = notes.arguments.split(|&b| b == b' ');
        words.filter(|w| !w.is_empty()).map(<[u8]>::to_vec).collect()
    })
}

/// The first stack holds, upwards: argc, argv, 0, envp, 0, the auxiliary vector, strings, the path
/// that `AT_EXECFN` points at (fs/binfmt_elf.c, create_elf_tables). The notes have a copy of the
/// vector to find it by.
fn by_stack(notes: &Notes, memory: &CoreMemory) -> Option<Vec<Vec<u8>>> {
    let pattern = notes.auxv.get(..32)?;
    let top = notes.auxv(AT_EXECFN)?;
    let region = memory.below(top, SEARCH)?;
    let words = region.as_chunks::<8>().0;
    let vector = words.windows(4).rposition(|w| w.as_flattened() == pattern)?;

    let value = |i: usize| words.get(i).map(|b| u64::from_le_bytes(*b));
    let zero_before = |i: usize| (0..i).rev().find(|&j| value(j) == Some(0));
    let environment_end = vector.checked_sub(1).filter(|&i| value(i) == Some(0))?;
    let arguments_end = zero_before(environment_end)?;
    let count = (0..arguments_end)
        .rev()
        .take(MAX_ARGUMENTS)
        .position(|i| value(i) == Some((arguments_end - 1 - i) as u64))?;
    let mut reader = Reader::new(memory);
    let mut left = MAX_BYTES;
    let mut out = Vec::new();
    for i in arguments_end - count..arguments_end {
        let argument = reader.cstr(value(i)?, left).ok()?;
        left = left.saturating_sub(argument.len());
        out.push(argument);
    }
    (!out.is_empty()).then_some(out)
}
