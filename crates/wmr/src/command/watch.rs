//! `wmr watch`: tells what grows, or waits until a process has grown to a size, and keeps the evidence.

mod cost;
pub mod growth;

use super::saving;
use super::snapshot::{self, How};
use crate::Answer;
use crate::cli::Options;
use crate::failure::{self, Failure, code};
use crate::numbers::scaled;
use crate::open;
use std::ffi::OsStr;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use wmr_memory::live::Watched;

/// What to wait for.
#[derive(Debug, Clone, Copy)]
pub struct Goal<'a> {
    /// Resident bytes; nothing else is looked at then.
    pub rss: Option<u64>,
    /// Growth since the first look.
    pub until: Option<u64>,
    /// Where to keep it when that is so.
    pub snapshot: Option<&'a Path>,
}

/// What to wait for when it is a size.
#[derive(Debug, Clone, Copy)]
struct Wait {
    rss: u64,
    every: Duration,
    /// Looks, then it is given up.
    times: Option<u64>,
}

pub fn run(
    word: &OsStr,
    goal: Goal,
    every: Option<Duration>,
    times: Option<u64>,
    force: bool,
    how: How,
    options: &Options,
) -> Result<Answer, Failure> {
    let Some(pid) = open::pid(word)? else {
        return Err(Failure::new(code::USAGE, "only a process can be watched").advise("wmr watch PID"));
    };
    if let (Some(rss), Some(path)) = (goal.rss, goal.snapshot) {
        let wait = Wait { rss, every: every.unwrap_or(Duration::from_secs(1)), times };
        return size(word, pid, wait, path, force, how, options);
    }
    if goal.snapshot.is_some() && goal.until.is_none() {
        return Err(Failure::new(code::USAGE, "when is the snapshot to be written?")
            .advise("wmr watch PID --rss 2G --snapshot FILE")
            .advise("wmr watch PID --until 500M --snapshot FILE"));
    }
    if let Some(path) = goal.snapshot {
        drop(saving::create(path, force)?);
    }
    let every = every.unwrap_or(Duration::from_secs(30));
    let wait = growth::Wait { every, times, until: goal.until, snapshot: goal.snapshot, force, how };
    growth::run(word, pid, wait, options)
}

/// Waits for a size.
fn size(
    word: &OsStr,
    pid: i32,
    wait: Wait,
    path: &Path,
    force: bool,
    how: How,
    options: &Options,
) -> Result<Answer, Failure> {
    // A file that cannot be written is better known now than when the process is about to be killed.
    drop(saving::create(path, force)?);
    let watched = Watched::open(pid).map_err(failure::of_attach)?;
    let began = Instant::now();
    let mut look = 0;
    loop {
        let rss = watched.rss().map_err(failure::of_attach)?;
        if rss >= wait.rss {
            return snapshot::run(word, Some(path), force, how, options);
        }
        look += 1;
        if wait.times.is_some_and(|times| look >= times) {
            return Ok(Answer {
                text: String::new(),
                code: code::FAILED,
                complaint: Some(format!(
                    "wmr: process {pid} has {} after {look} looks, less than {}",
                    scaled(rss),
                    scaled(wait.rss)
                )),
            });
        }
        let mut stderr = std::io::stderr();
        if stderr.is_terminal() {
            // Watching goes on whether or not somebody sees it.
            let _ = write!(
                stderr,
                "\r{} of {} after {} s  ",
                scaled(rss),
                scaled(wait.rss),
                began.elapsed().as_secs()
            );
        }
        std::thread::sleep(wait.every);
    }
}
