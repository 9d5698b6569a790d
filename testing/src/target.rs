//! A process to look at, which says when it is ready.

use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::{Duration, Instant};

/// Ends a script, Python 2 or 3: says `ready PID`, then waits until the test is over, however it
/// ends (even killed, the test leaves no target behind: its end of the pipe closes).
pub const READY: &str = "\nimport os, sys\n\
    sys.stdout.write('ready %d\\n' % os.getpid()); sys.stdout.flush()\n\
    while os.read(0, 1): pass\n";

/// Generous: a loaded machine, or a target under valgrind.
const LIMIT: Duration = Duration::from_secs(180);

/// A running target. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Target {
    child: Child,
    pid: i32,
    truth: Vec<String>,
    lines: Receiver<String>,
    _folder: Option<tempfile::TempDir>,
}

impl Target {
    /// Starts a program, in a temporary folder of its own unless the command names one, and waits
    /// until it prints a line `ready PID`.
    ///
    /// # Errors
    /// It cannot be started, ends or is silent for too long before it is ready; what it wrote to
    /// stderr is in the error.
    pub fn start(mut command: Command) -> io::Result<Target> {
        let mut stderr = tempfile::tempfile()?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr.try_clone()?);
        // Where a kernel core would go: two targets must not share it.
        let folder = command.get_current_dir().is_none().then(tempfile::tempdir).transpose()?;
        if let Some(folder) = &folder {
            command.current_dir(folder.path());
        }
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no stdout"))?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        let mut target = Target { pid: child.id() as i32, child, truth: Vec::new(), lines, _folder: folder };
        loop {
            match target.lines.recv_timeout(LIMIT) {
                Ok(line) => match line.strip_prefix("ready ").and_then(|pid| pid.trim().parse().ok()) {
                    Some(pid) => {
                        target.pid = pid;
                        return Ok(target);
                    }
                    None => target.truth.push(line),
                },
                Err(why) => {
                    let what = match why {
                        RecvTimeoutError::Timeout => "is not ready in time",
                        RecvTimeoutError::Disconnected => "ended before it was ready",
                    };
                    let mut said = String::new();
                    stderr.rewind()?;
                    stderr.read_to_string(&mut said)?;
                    return Err(io::Error::other(format!("the target {what}: {command:?}\n{said}")));
                }
            }
        }
    }

    /// The process, as it is numbered outside any namespace of its own.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The lines it printed before it was ready.
    pub fn truth(&self) -> &[String] {
        &self.truth
    }

    /// The last of those lines that is a JSON object.
    pub fn json(&self) -> Option<serde_json::Value> {
        let mut values = self.truth.iter().rev().filter_map(|line| serde_json::from_str(line).ok());
        values.find(serde_json::Value::is_object)
    }

    /// Writes a line to its stdin.
    ///
    /// # Errors
    /// It is gone.
    pub fn send(&mut self, line: &str) -> io::Result<()> {
        let stdin = self.child.stdin.as_mut().ok_or_else(|| io::Error::other("its stdin is closed"))?;
        writeln!(stdin, "{line}")?;
        stdin.flush()
    }

    /// The next line that it prints after it was ready.
    ///
    /// # Errors
    /// It ends, or prints nothing for too long.
    pub fn line(&self) -> io::Result<String> {
        self.lines.recv_timeout(LIMIT).map_err(|why| io::Error::other(format!("pid {}: {why}", self.pid)))
    }

    /// The next line, if it has printed one by now.
    ///
    /// # Errors
    /// It has ended.
    pub fn line_so_far(&self) -> io::Result<Option<String>> {
        match self.lines.try_recv() {
            Ok(line) => Ok(Some(line)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(why) => Err(io::Error::other(format!("pid {}: {why}", self.pid))),
        }
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a process touches no page it has not touched before: its first thread waits for its
/// stdin or a signal, or has been through a loop that waits a few times, without a page fault. Where other
/// threads want to run, they have had the time to.
///
/// A target that has just said that it is ready still returns from the write; what it touches on the
/// way is in one figure of its memory and not in another that was read before.
///
/// # Errors
/// It ends, or never comes to rest.
pub fn at_rest(pid: i32) -> io::Result<()> {
    let start = Instant::now();
    let (mut faults, mut waits, mut since) = (None, 0, start);
    while start.elapsed() < LIMIT {
        let (faults_now, waits_now) = activity(pid)?;
        let call = std::fs::read_to_string(format!("/proc/{pid}/syscall"))?;
        // read(0, …): call 0 on x86-64, 63 on arm64. pause(): call 34, which arm64 has not.
        let waits_for_ever = ["0 0x0 ", "63 0x0 ", "34 "].iter().any(|begin| call.starts_with(begin));
        if faults != Some(faults_now) {
            (faults, waits, since) = (Some(faults_now), waits_now, Instant::now());
        } else if (waits_for_ever || waits_now >= waits + 3)
            && (since.elapsed() > OTHERS_TURN || !others_run(pid)?)
        {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(io::Error::other(format!("pid {pid} does not come to rest")))
}

/// How long a thread may wait for a processor on a busy machine.
const OTHERS_TURN: Duration = Duration::from_millis(100);

/// Does a thread but the first want to run?
fn others_run(pid: i32) -> io::Result<bool> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        let of_first = task.file_name().to_str() == Some(&pid.to_string());
        // It may have ended meanwhile.
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if !of_first && matches!(state, Some('R' | 'D')) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The page faults of a process, and how often its first thread waited.
fn activity(pid: i32) -> io::Result<(u64, u64)> {
    let number = |text: Option<&str>| text.and_then(|n| n.trim().parse().ok());
    let odd = || io::Error::other(format!("pid {pid}: odd figures in /proc"));
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The tenth field; the second one, in parentheses, may contain anything.
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest).ok_or_else(odd)?;
    let faults = number(fields.split(' ').nth(7)).ok_or_else(odd)?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Ok((faults, number(waits).ok_or_else(odd)?))
}
