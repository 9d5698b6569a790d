//! Syscall user dispatch (prctl(2), Linux 5.11): a thread may have its own system calls made signals, as Wine has.
//! Ours would be too, and blocked as all signals are then, it would kill.

use crate::live::procdir::ProcDir;
use crate::live::stop::ptrace;
use std::io;

/// Linux 6.4.
const SET_CONFIG: libc::c_uint = 0x4210;
const GET_CONFIG: libc::c_uint = 0x4211;

/// `struct ptrace_sud_config`: mode, selector, offset, length.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Dispatch([u64; 4]);

impl Dispatch {
    /// Switches it off in a stopped thread; what was on. `InvalidData`: it may be on, and the system has no word for
    /// it.
    pub fn suspend(tid: i32, dir: &ProcDir) -> io::Result<Option<Dispatch>> {
        let mut found = Dispatch::default();
        if ptrace(GET_CONFIG, tid, size_of::<Dispatch>(), &raw mut found as usize).is_err() {
            // Whoever uses it catches SIGSYS.
            let is_possible = dir.status()?.caught >> (libc::SIGSYS - 1) & 1 != 0;
            return if is_possible { Err(io::ErrorKind::InvalidData.into()) } else { Ok(None) };
        }
        if found.0[0] == 0 {
            return Ok(None);
        }
        Dispatch::default().set(tid)?;
        Ok(Some(found))
    }

    /// Has a stopped thread have this.
    pub fn set(&self, tid: i32) -> io::Result<()> {
        ptrace(SET_CONFIG, tid, size_of::<Dispatch>(), &raw const *self as usize)
    }
}
