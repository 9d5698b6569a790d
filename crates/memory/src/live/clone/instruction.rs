//! A system call instruction in the target, on a page that is in RAM: to execute another would bring
//! it there.

use super::arch::{SYSCALL, SYSCALL_ALIGN};
use crate::Residency;
use crate::live::pagemap;
use crate::live::smaps::Entry;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Code looked through, bytes. A thread that waits in the C library has left one in RAM.
const LOOK_AT: u64 = 16 << 20;

/// The address of one.
pub(in crate::live) fn find(mem: &File, pages: &File, entries: &[Entry]) -> Option<u64> {
    let code = |entry: &&Entry| {
        entry.mapping.perms.exec
            && entry.mapping.perms.read
            && !entry.flags.device
            && !entry.mapping.perms.shared
    };
    // Every program has a vdso that nobody changes.
    let vdso = |entry: &&Entry| entry.mapping.name == b"[vdso]";
    let first = entries.iter().filter(code).filter(vdso);
    let rest = entries.iter().filter(code).filter(|entry| !vdso(entry));
    let mut left = LOOK_AT;
    for entry in first.chain(rest) {
        let mut residency = Residency::default();
        let range = entry.mapping.start..entry.mapping.end;
        if range.end - range.start > 1 << 30 || pagemap::present(pages, range, &mut residency).is_err() {
            continue;
        }
        for run in residency.runs.iter().filter(|run| run.state.present) {
            let mut bytes = vec![0; (run.end - run.start).min(left) as usize];
            left -= bytes.len() as u64;
            if mem.read_exact_at(&mut bytes, run.start).is_ok()
                && let Some(at) = find_in(run.start, &bytes)
            {
                return Some(at);
            }
        }
    }
    None
}

/// Is there one at this address?
pub(super) fn is_at(mem: &File, addr: u64) -> bool {
    let mut found = [0; SYSCALL.len()];
    mem.read_exact_at(&mut found, addr).is_ok() && found == SYSCALL
}

fn find_in(start: u64, bytes: &[u8]) -> Option<u64> {
    let at = bytes.windows(SYSCALL.len()).enumerate().position(|(at, window)| {
        window == SYSCALL && (start as usize).wrapping_add(at).is_multiple_of(SYSCALL_ALIGN)
    })?;
    Some(start + at as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::smaps;

    #[test]
    fn this_program_has_one() {
        let open = |name: &str| File::open(format!("/proc/self/{name}")).unwrap();
        let entries = smaps::parse(&std::fs::read("/proc/self/smaps").unwrap());
        let (mem, pages) = (open("mem"), open("pagemap"));
        let found = find(&mem, &pages, &entries).unwrap();
        assert!(is_at(&mem, found) && !is_at(&mem, 16));
        assert!(
            entries.iter().any(|e| e.mapping.perms.exec && (e.mapping.start..e.mapping.end).contains(&found))
        );
    }
}
