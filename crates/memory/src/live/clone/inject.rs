//! One system call run by a stopped thread of the target, after which it is as it was.

use super::dispatch::Dispatch;
use super::{Order, arch, rseq};
use crate::live::stop::{ptrace, register_set};
use std::io;

/// Signals blocked in a thread, one bit each.
type Mask = u64;

/// A thread in a ptrace stop, with what has to be put back.
pub(super) struct Injection {
    tid: i32,
    registers: Vec<u64>,
    mask: Mask,
    /// Where it goes on, if not where it was: it was in the middle of a restartable sequence.
    aborted: Option<u64>,
    dispatch: Option<Dispatch>,
    /// SIGSTOP came meanwhile, which no mask holds off: to be sent again.
    pub stopped: bool,
}

/// What a call answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    /// As the kernel returns it: an error is −errno.
    pub value: i64,
    /// The process it made, by the tracer's counting, attached to this tracer.
    pub child: Option<i32>,
}

/// Stops on the way of one system call: its entry, an event, its exit; and somebody's signals.
const MAX_STOPS: u32 = 64;

impl Injection {
    /// Takes over a thread that is in a `PTRACE_EVENT_STOP`. Its filters of system calls must not see the call, one
    /// of them might answer by killing.
    pub fn begin(tid: i32, order: &Order) -> io::Result<Self> {
        let registers = register_set(tid, libc::NT_PRSTATUS);
        if registers.len() < arch::WORDS {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut mask: Mask = 0;
        ptrace(libc::PTRACE_GETSIGMASK, tid, size_of::<Mask>(), &raw mut mask as usize)?;
        let mut options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE;
        if order.seccomp {
            options |= libc::PTRACE_O_SUSPEND_SECCOMP;
        }
        let aborted = rseq::aborted(tid, order.mem, arch::ip(&registers));
        let dispatch = Dispatch::suspend(tid, order.dir)?;
        let injection = Injection { tid, registers, mask, aborted, dispatch, stopped: false };
        // A pending signal would make clone fail (signal_pending in copy_process, kernel/fork.c).
        let begun = ptrace(libc::PTRACE_SETOPTIONS, tid, 0, options as usize)
            .and_then(|()| injection.set_mask(Mask::MAX));
        match begun {
            Ok(()) => Ok(injection),
            Err(error) => {
                let _ = injection.give_back();
                Err(error)
            }
        }
    }

    /// What is not registers and signals.
    fn give_back(&self) -> io::Result<()> {
        if let Some(dispatch) = &self.dispatch {
            dispatch.set(self.tid)?;
        }
        ptrace(libc::PTRACE_SETOPTIONS, self.tid, 0, 0)
    }

    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// As they were, or will be put back.
    pub fn registers(&self) -> &[u64] {
        &self.registers
    }

    /// Puts these back instead.
    pub fn replace(&mut self, registers: Vec<u64>) {
        self.registers = registers;
    }

    /// Runs one call. An error when the thread ended under it or did what no call does.
    pub fn run(&mut self, instruction: u64, number: i64, arguments: [u64; 6]) -> io::Result<Answer> {
        self.set_registers(&arch::call(&self.registers, instruction, number, arguments))?;
        let mut child = None;
        let mut entered = false;
        for _ in 0..MAX_STOPS {
            // From stop to stop, never PTRACE_CONT: not one instruction of the program runs.
            ptrace(libc::PTRACE_SYSCALL, self.tid, 0, 0)?;
            match wait(self.tid)? {
                Stop::Syscall if !entered => entered = true,
                Stop::Syscall => {
                    let registers = register_set(self.tid, libc::NT_PRSTATUS);
                    if registers.len() < arch::WORDS {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    return Ok(Answer { value: arch::result(&registers), child });
                }
                Stop::Clone => {
                    let mut pid: libc::c_ulong = 0;
                    ptrace(libc::PTRACE_GETEVENTMSG, self.tid, 0, &raw mut pid as usize)?;
                    let pid = pid as i32;
                    // At once: without a tracer it would run.
                    wait(pid)?;
                    ptrace(libc::PTRACE_SETOPTIONS, pid, 0, libc::PTRACE_O_EXITKILL as usize)?;
                    child = Some(pid);
                }
                Stop::Event => {}
                Stop::Signal(libc::SIGSTOP) => self.stopped = true,
                // All others are held off, but for those that what it does raises: no call does.
                Stop::Signal(_) => return Err(io::Error::other("the instruction was not a system call's")),
            }
        }
        Err(io::Error::other("the thread stopped too often"))
    }

    /// Puts everything back, in the kind of stop the thread was in: the kernel restarts calls that were
    /// interrupted when it goes on from there.
    pub fn end(&mut self) -> io::Result<()> {
        for _ in 0..MAX_STOPS {
            ptrace(libc::PTRACE_INTERRUPT, self.tid, 0, 0)?;
            ptrace(libc::PTRACE_CONT, self.tid, 0, 0)?;
            match wait(self.tid)? {
                Stop::Event => {
                    if let Some(ip) = self.aborted {
                        arch::set_ip(&mut self.registers, ip);
                    }
                    self.set_registers(&self.registers)?;
                    self.set_mask(self.mask)?;
                    return self.give_back();
                }
                Stop::Signal(libc::SIGSTOP) => self.stopped = true,
                // Raised by what was never the program's: nothing for it.
                Stop::Signal(_) => {}
                Stop::Syscall | Stop::Clone => {}
            }
        }
        Err(io::Error::other("the thread stopped too often"))
    }

    fn set_mask(&self, mask: Mask) -> io::Result<()> {
        ptrace(libc::PTRACE_SETSIGMASK, self.tid, size_of::<Mask>(), &raw const mask as usize)
    }

    fn set_registers(&self, words: &[u64]) -> io::Result<()> {
        set_registers(self.tid, words)
    }
}

pub(super) fn set_registers(tid: i32, words: &[u64]) -> io::Result<()> {
    let iov = libc::iovec { iov_base: words.as_ptr().cast_mut().cast(), iov_len: size_of_val(words) };
    ptrace(libc::PTRACE_SETREGSET, tid, libc::NT_PRSTATUS as usize, &raw const iov as usize)
}

enum Stop {
    /// Entry or exit of a system call.
    Syscall,
    Clone,
    /// `PTRACE_EVENT_STOP`: interrupted, just cloned, or in a group-stop.
    Event,
    /// About to receive a signal.
    Signal(i32),
}

/// Waits for the next stop of one tracee. An error when it has ended.
fn wait(tid: i32) -> io::Result<Stop> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is an integer that lives across the call.
        let waited = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
        if waited < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        if !libc::WIFSTOPPED(status) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        return Ok(match (status >> 16, libc::WSTOPSIG(status)) {
            (libc::PTRACE_EVENT_CLONE, _) => Stop::Clone,
            (0, signal) if signal == libc::SIGTRAP | 0x80 => Stop::Syscall,
            (0, signal) => Stop::Signal(signal),
            _ => Stop::Event,
        });
    }
}
