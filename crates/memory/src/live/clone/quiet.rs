//! Threads that are stopped and go on as if nothing had been: those whose system call was interrupted do not
//! notice.

use super::inject::{Injection, set_registers};
use super::interrupted::{Restarted, Waiting, mend};
use super::{arch, monotonic, record};
use crate::live::procdir::ProcDir;
use crate::live::stop::{self, Stopped, register_set};
use std::fs::File;

/// What is known before a stop.
pub(in crate::live) struct Quiet<'a> {
    dir: &'a ProcDir,
    mem: &'a File,
    waiting: Waiting,
    /// What earlier captures began anew.
    earlier: Vec<Restarted>,
}

/// What a stop found, and did.
pub(in crate::live) struct Quietened {
    /// Registers of each thread, as they were.
    pub threads: Vec<(i32, Vec<u64>)>,
    /// Calls that begin anew.
    restarted: Vec<Restarted>,
}

impl<'a> Quiet<'a> {
    /// Before all threads are stopped.
    pub fn of(dir: &'a ProcDir, mem: &'a File) -> Self {
        Quiet { dir, mem, waiting: Waiting::of(dir), earlier: record::restarted(dir) }
    }

    /// Before a single one is.
    pub fn of_thread(dir: &'a ProcDir, mem: &'a File, tid: i32) -> Self {
        Quiet { dir, mem, waiting: Waiting::of_thread(dir, tid), earlier: record::restarted(dir) }
    }

    /// Is it known since when that thread waits?
    pub fn knows(&self, tid: i32) -> bool {
        self.waiting.knows(tid)
    }

    /// Notes the registers of all that are stopped, then changes those of interrupted calls. From here on it does
    /// not matter how the stop ends.
    pub fn quieten(&self, stopped: &Stopped) -> Quietened {
        self.quieten_with(stopped, None)
    }

    /// The same where one of them has been taken over.
    pub(super) fn quieten_with(&self, stopped: &Stopped, mut injection: Option<&mut Injection>) -> Quietened {
        let now = monotonic();
        let mut threads = Vec::with_capacity(stopped.tracees().len());
        let mut restarted = Vec::new();
        for tracee in stopped.tracees().iter().filter(|tracee| tracee.stopped) {
            let mut injected = injection.as_deref_mut().filter(|injection| injection.tid() == tracee.tid);
            let found = match &injected {
                Some(injection) => injection.registers().to_vec(),
                None => register_set(tracee.tid, libc::NT_PRSTATUS),
            };
            let mut mended = found.clone();
            if found.len() >= arch::WORDS {
                let stack = stop::thread(tracee.tid, found.clone()).sp;
                let at = (self.dir, self.mem);
                let (changed, again) =
                    mend(&mut mended, (tracee, stack), at, &self.waiting, &self.earlier, now);
                restarted.extend(again);
                match injected.as_mut().filter(|_| changed) {
                    Some(injection) => injection.replace(mended),
                    None if changed => {
                        let _ = set_registers(tracee.tid, &mended);
                    }
                    None => {}
                }
            }
            threads.push((tracee.tid, found));
        }
        Quietened { threads, restarted }
    }

    /// Lets threads go that were stopped for nothing, those too that were told to stop and have yet to: the call
    /// that one of them waited in is over when it is told.
    pub fn give_up(&self, mut held: Stopped) {
        let mut all = Vec::new();
        loop {
            let mut quietened = self.quieten(&held);
            quietened.recount(self.dir);
            all.append(&mut quietened.restarted);
            if !held.next_late(self.dir) {
                break;
            }
        }
        record::remember(self.dir, &all);
    }
}

impl Quietened {
    /// Counts the stops of an injection in. Just before the threads are let go.
    pub fn recount(&mut self, dir: &ProcDir) {
        self.restarted.iter_mut().for_each(|call| call.recount(dir));
    }

    /// For the captures to come. When the threads run again, as it takes its time.
    pub fn remember(&self, dir: &ProcDir) {
        record::remember(dir, &self.restarted);
    }
}
