//! `wmr watch`: waits until a process has grown to a size, and keeps the evidence.

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
pub struct Wait {
    /// Resident bytes.
    pub rss: u64,
    pub every: Duration,
    /// Looks, then it is given up.
    pub times: Option<u64>,
}

pub fn run(
    word: &OsStr,
    wait: Wait,
    path: &Path,
    force: bool,
    how: How,
    options: &Options,
) -> Result<Answer, Failure> {
    let Some(pid) = open::pid(word)? else {
        return Err(Failure::new(code::USAGE, "only a process can be watched").advise("wmr watch PID"));
    };
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
