//! Which parts of an ELF file tell what its bytes in memory mean.

use super::elf::Headers;
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, SectionHeader as _};
use std::ops::Range;

/// Ranges nearer than this are one: a page.
const GAP: u64 = 4096;
const MAX_SECTIONS: usize = 4096;

/// Headers, symbol tables and constants, in order and apart: everything but code and what debuggers want.
/// Empty for what is no ELF file.
pub(crate) fn worth_keeping(file: &[u8]) -> Vec<Range<u64>> {
    let Some(headers) = Headers::parse(file) else { return Vec::new() };
    let len = file.len() as u64;
    let mut parts: Vec<Range<u64>> = std::iter::once(0..GAP).collect();
    parts.extend(headers.notes.iter().map(|&(offset, _, size)| offset..offset.saturating_add(size)));
    let sections = sections(file);
    for load in &headers.loads {
        // Linkers used to put constants and code into one segment; the sections tell them apart.
        if !load.exec || sections.is_none() {
            parts.push(load.offset..load.offset.saturating_add(load.filesz));
        }
    }
    parts.extend(sections.into_iter().flatten());
    for part in &mut parts {
        *part = part.start.min(len)..part.end.min(len);
    }
    parts.retain(|part| part.start < part.end);
    parts.sort_by_key(|part| part.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for part in parts {
        match joined.last_mut() {
            Some(last) if part.start <= last.end.saturating_add(GAP) => last.end = last.end.max(part.end),
            _ => joined.push(part),
        }
    }
    joined
}

/// The section headers themselves, and the sections that are constants or symbols. `None` without any.
fn sections(file: &[u8]) -> Option<Vec<Range<u64>>> {
    let header = FileHeader64::<LE>::parse(file).ok()?;
    let sections = header.sections(LE, file).ok().filter(|sections| !sections.is_empty())?;
    let table = header.e_shoff(LE);
    let size = u64::from(header.e_shentsize(LE)).saturating_mul(sections.len() as u64);
    let mut parts: Vec<Range<u64>> = std::iter::once(table..table.saturating_add(size)).collect();
    for section in sections.iter().take(MAX_SECTIONS) {
        let flags = section.sh_flags(LE).0;
        let kind = section.sh_type(LE);
        let loaded = flags & elf::SHF_ALLOC.0 != 0;
        let wanted = match kind {
            elf::SHT_NOBITS => false,
            elf::SHT_SYMTAB | elf::SHT_STRTAB | elf::SHT_NOTE => true,
            _ => loaded && flags & elf::SHF_EXECINSTR.0 == 0,
        };
        if wanted {
            let offset = section.sh_offset(LE);
            parts.push(offset..offset.saturating_add(section.sh_size(LE)));
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_this_program_symbols_are_kept_and_code_is_not() {
        let file = std::fs::read("/proc/self/exe").unwrap();
        let parts = worth_keeping(&file);
        assert!(parts.windows(2).all(|w| w[0].end < w[1].start));
        let headers = Headers::parse(&file).unwrap();
        let inside = |at: u64| parts.iter().any(|part| part.contains(&at));
        for load in &headers.loads {
            assert_eq!(inside(load.offset + load.filesz / 2), !load.exec);
        }
        let kept: u64 = parts.iter().map(|part| part.end - part.start).sum();
        assert!(kept < file.len() as u64);
        assert_eq!(worth_keeping(b"not an ELF file"), []);
    }
}
