//! A picture by copy-on-write: one injected `clone` makes a child of the target that never runs, and
//! that child is what is read while the target goes on.
//!
//! What the target can see of it is nothing: the child's end sends no signal (`exit_signal` 0), the
//! child is collected by an injected `wait4`, registers, signal mask and interrupted system calls are
//! as they were. The kernel sees one short-lived process more.
//!
//! The dangerous window is our own death between the first register that is changed and the last that
//! is put back, a few hundred microseconds and what the clone takes. So that part is done by a small
//! process of its own, [`helper`], which goes on whatever happens to this program. Only a SIGKILL
//! aimed at the helper itself in that window would harm the target.

#[cfg(target_arch = "aarch64")]
#[path = "clone/aarch64.rs"]
mod arch;
#[cfg(target_arch = "x86_64")]
#[path = "clone/x86_64.rs"]
mod arch;
mod dispatch;
mod helper;
mod inject;
mod instruction;
mod interrupted;
mod quiet;
mod record;
mod rseq;
mod wire;

use super::error::AttachError;
use super::headroom::Groups;
use super::procdir::ProcDir;
use super::room::Room;
use super::stop::{self, Failure};
use crate::Thread;
use helper::{Outcome, Task};
use memmap2::MmapMut;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

pub(super) use instruction::find as find_instruction;
pub(super) use quiet::Quiet;

/// A system call as its registers show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Call {
    number: i64,
    arguments: [u64; 6],
}

/// What a clone is asked for.
pub(super) struct Order<'a> {
    pub dir: &'a ProcDir,
    pub mem: &'a File,
    pub pagemap: &'a File,
    /// Address of a system call instruction.
    pub instruction: u64,
    /// Memory that the child will lack, in address order.
    pub apart: &'a [Range<u64>],
    /// Room for what of it is in RAM, bytes.
    pub apart_room: u64,
    /// The target has system call filters.
    pub seccomp: bool,
    /// Limits of the target's memory, watched while the child lives.
    pub groups: &'a Groups,
    /// The child is given up when they have less left, bytes.
    pub reserve: u64,
    /// Private bytes that a census will read, for which it has room made beforehand; 0 for none.
    pub room_for: u64,
    pub budget: Duration,
    pub patience: Duration,
}

/// The child, and what was found during the stop.
pub(super) struct Cloned {
    pub child: Child,
    /// To be kept until the child has ended.
    pub room: Option<Room>,
    pub threads: Vec<Thread>,
    pub pause: Duration,
    pub time: SystemTime,
    /// Copied from memory that the child lacks: addresses, one behind the other in `copied`.
    pub extents: Vec<Range<u64>>,
    pub copied: Option<MmapMut>,
}

/// Why there is no clone.
pub(super) enum NoClone {
    /// The target can be looked at in another way.
    Refused(String),
    Failed(AttachError),
}

impl From<AttachError> for NoClone {
    fn from(error: AttachError) -> Self {
        NoClone::Failed(error)
    }
}

/// The child ended before all was read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("the memory the process may use ran short, so the clone of it was given up")]
    NoRoom,
    #[error("the clone lived too long and was given up")]
    TooLong,
    #[error("the clone was killed, by the system for lack of memory or by somebody else")]
    Killed,
}

/// Stops the target, has it cloned, lets it go on.
pub(super) fn take(order: &Order) -> Result<Cloned, NoClone> {
    let pid = order.dir.pid;
    let system = |what| move |source| AttachError::System { pid, what, source };
    let mut shared = match order.apart_room {
        0 => None,
        room => Some(shared_memory(room).map_err(system("make room for a copy"))?),
    };
    let mut refused = None;
    let made = stop::repeatedly(order.dir, order.patience, || {
        let gone = |source| Failure::Fatal(AttachError::System { pid, what: "start a helper", source });
        let (socket, other) = UnixStream::pair().map_err(gone)?;
        let task = Task { order, copied: shared.as_deref_mut() };
        let helper = helper::start(task, other).map_err(gone)?;
        let mut child = Child { pid: 0, helper, socket };
        let room = (order.room_for > 0).then(|| Room::before_a_clone_of(order.room_for));
        wire::send(&child.socket, &[helper::GO]).map_err(gone)?;
        let words = wire::receive(&child.socket).map_err(gone)?;
        match helper::outcome(&words) {
            Some(Outcome::Cloned(made)) => {
                child.pid = made.child;
                Ok(Some((child, made, room)))
            }
            Some(Outcome::Busy(tid)) => Err(Failure::Busy(tid)),
            Some(Outcome::NotTraced(tid, errno)) => {
                Err(Failure::Refused(io::Error::from_raw_os_error(errno), tid))
            }
            Some(Outcome::Vanished) => Err(Failure::Fatal(AttachError::Vanished { pid })),
            Some(Outcome::Replaced) => Err(Failure::Fatal(AttachError::Replaced { pid })),
            Some(Outcome::Grown) => Err(Failure::Fatal(AttachError::Growing { pid })),
            Some(Outcome::Refused(reason, errno)) => {
                refused = Some(reason.words(errno));
                Ok(None)
            }
            None => Err(gone(io::Error::other("it said nothing that makes sense"))),
        }
    })?;
    let Some((child, made, room)) = made else {
        return Err(NoClone::Refused(refused.unwrap_or_default()));
    };
    let threads = made.threads.into_iter().map(|(tid, words)| stop::thread(tid, words)).collect();
    let copied = shared.filter(|_| !made.extents.is_empty());
    Ok(Cloned { child, room, threads, pause: made.pause, time: made.time, extents: made.extents, copied })
}

/// Memory that this program and the helper have in common.
fn shared_memory(bytes: u64) -> io::Result<MmapMut> {
    let file = memfd()?;
    file.set_len(bytes)?;
    // SAFETY: the file has no name and no other user than this program and its helper, who has ended
    // its writing before we read.
    unsafe { MmapMut::map_mut(&file) }
}

fn memfd() -> io::Result<File> {
    use std::os::fd::FromRawFd;
    // SAFETY: the name is a string that ends in NUL.
    let fd = unsafe { libc::memfd_create(c"wmr".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and that nobody else has.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// The cloned process with the helper that holds it. Ends both when dropped.
pub(super) struct Child {
    /// 0 until there is one.
    pub pid: i32,
    helper: i32,
    socket: UnixStream,
}

impl Child {
    /// Ends it: all is read. How long it lived.
    fn end(&mut self) -> Result<Duration, Lost> {
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
        let words = wire::receive(&self.socket);
        // Its parent is this program, which has to collect it.
        let mut status = 0;
        // SAFETY: `status` is an integer that lives across the call.
        unsafe { libc::waitpid(std::mem::take(&mut self.helper), &raw mut status, 0) };
        match words.as_deref() {
            Ok([helper::DONE, nanos]) => Ok(Duration::from_nanos(*nanos)),
            Ok([helper::NO_ROOM, ..]) => Err(Lost::NoRoom),
            Ok([helper::TOO_LONG, ..]) => Err(Lost::TooLong),
            _ => Err(Lost::Killed),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.helper != 0 {
            let _ = self.end();
        }
    }
}

/// A child that can be ended through a shared reference, once.
pub(super) struct Holder {
    child: Mutex<Option<Child>>,
    ended: std::sync::OnceLock<Result<Duration, Lost>>,
}

impl Holder {
    pub fn new(child: Child) -> Self {
        Holder { child: Mutex::new(Some(child)), ended: std::sync::OnceLock::new() }
    }

    /// How long it lived; ends it on the first call. `gone`: a read found nothing there. Of a child that was killed
    /// just now nobody is told yet.
    pub fn end(&self, gone: bool) -> Result<Duration, Lost> {
        let mut child = self.child.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *self.ended.get_or_init(|| {
            let life = child.take().map_or(Err(Lost::Killed), |mut child| child.end())?;
            if gone { Err(Lost::Killed) } else { Ok(life) }
        })
    }
}

/// `CLOCK_MONOTONIC`.
fn monotonic() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills in the structure, which lives across the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Descriptors the helper needs of what it inherits.
fn needed(order: &Order, socket: &UnixStream) -> Vec<i32> {
    vec![order.dir.as_raw_fd(), order.mem.as_raw_fd(), order.pagemap.as_raw_fd(), socket.as_raw_fd()]
}
