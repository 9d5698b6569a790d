//! Restartable sequences (rseq(2), Linux 4.18): a thread that is taken off its processor within one goes on at the
//! sequence's abort handler. When it is taken over instead, the kernel sees it outside of the sequence and forgets
//! that there was one; to be put back into the middle would have it finish on data that are no longer its own.
//! tcmalloc's caches are such sequences.

use crate::live::stop::ptrace;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Linux 5.13. Before, nobody tells; then a thread in a system call, which no sequence contains, is the safe one.
const GET_CONFIGURATION: libc::c_uint = 0x420f;

/// `struct ptrace_rseq_configuration`: where the thread's `struct rseq` is; its size, signature, flags.
#[repr(C)]
#[derive(Default)]
struct Configuration {
    addr: u64,
    rest: [u32; 4],
}

/// `struct rseq_cs` (linux/rseq.h), as the words behind its version and flags.
struct Sequence {
    start: u64,
    length: u64,
    abort: u64,
}

impl Sequence {
    /// The one that the thread says it is in.
    fn of(tid: i32, mem: &File) -> Option<Sequence> {
        let mut configuration = Configuration::default();
        let place = &raw mut configuration as usize;
        ptrace(GET_CONFIGURATION, tid, size_of::<Configuration>(), place).ok()?;
        let word = |addr: u64| {
            let mut bytes = [0; 8];
            mem.read_exact_at(&mut bytes, addr).ok()?;
            Some(u64::from_le_bytes(bytes))
        };
        // Behind `cpu_id_start` and `cpu_id`.
        let at = word(configuration.addr.checked_add(8)?).filter(|at| *at != 0)?;
        let field = |offset: u64| word(at.checked_add(offset)?);
        Some(Sequence { start: field(8)?, length: field(16)?, abort: field(24)? })
    }
}

/// Where a stopped thread that would go on at `ip` has to go on instead.
pub(super) fn aborted(tid: i32, mem: &File, ip: u64) -> Option<u64> {
    let sequence = Sequence::of(tid, mem)?;
    (ip.wrapping_sub(sequence.start) < sequence.length).then_some(sequence.abort)
}
