//! `wmr watch PID --every 30s`: what grows, look by look. A look is a capture of which a summary is kept.

use super::cost::Costs;
use crate::Answer;
use crate::cli::Options;
use crate::command::leaks::growth::{Identity, Steps, Told, summary};
use crate::command::snapshot::{self, How};
use crate::document::{Document, local_time};
use crate::failure::{self, Failure, code};
use crate::numbers::{counted, grouped, scaled};
use crate::open::{self, Subject};
use crate::text::shown;
use serde::Serialize;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use wmr_heap::growth::{self, Growth, Summary};
use wmr_memory::live::{AttachError, LiveOptions, Watched, processes};

#[derive(Debug, Clone, Copy)]
pub struct Wait<'a> {
    pub every: Duration,
    /// Looks, then it is given up.
    pub times: Option<u64>,
    /// Growth of the resident size since the first look.
    pub until: Option<u64>,
    /// Where to keep it then.
    pub snapshot: Option<&'a Path>,
    pub force: bool,
    pub how: How,
}

#[derive(Serialize)]
struct Body {
    /// Counted from 1.
    look: u64,
    /// Since the first look.
    elapsed_s: f64,
    /// The program was started anew since the look before.
    restarted: bool,
    cost: CostFacts,
    /// Looks that are compared: the latest ones.
    compared: usize,
    #[serde(flatten)]
    told: Told,
}

/// What looking costs the process, pages that were copied for it included.
#[derive(Serialize)]
struct CostFacts {
    pause_ms: f64,
    faults: u64,
    /// Of its time until the next look.
    percent: f64,
    next_s: f64,
}

/// Looks that are compared: what grew in each of them.
const COMPARED: usize = 8;
/// Findings of one look.
const SHOWN: usize = 10;
/// How often a successor is looked for when the process has ended, and looks that may fail in a row:
/// another debugger is there, or the program starts itself anew at this moment.
const TRIES: u32 = 5;

struct Watch<'a> {
    wait: Wait<'a>,
    options: &'a Options,
    pid: i32,
    watched: Watched,
    costs: Costs,
    identity: Option<Identity>,
    /// Of the program as it runs now: what it has not had the time to hold again has not shrunk.
    kept: VecDeque<Summary>,
    steps: Steps,
    /// Signatures of what grew at the latest look.
    growing: Vec<String>,
    first_rss: Option<u64>,
    began: Instant,
}

pub fn run(word: &OsStr, pid: i32, wait: Wait, options: &Options) -> Result<Answer, Failure> {
    let watched = Watched::open(pid).map_err(failure::of_attach)?;
    let mut watch = Watch {
        wait,
        options,
        pid,
        watched,
        costs: Costs::new(wait.every),
        identity: None,
        kept: VecDeque::new(),
        steps: Steps::default(),
        growing: Vec::new(),
        first_rss: None,
        began: Instant::now(),
    };
    let mut look = 0;
    let mut restarted = false;
    let mut failed = 0;
    loop {
        look += 1;
        let begin = Instant::now();
        match watch.look(look, restarted) {
            Ok(Outcome::Grown) => {
                let pid = watch.pid.to_string();
                return match wait.snapshot {
                    Some(path) => snapshot::run(OsStr::new(&pid), Some(path), wait.force, wait.how, options),
                    None => Ok(done(0, None)),
                };
            }
            Ok(Outcome::NobodyListens) => return Ok(done(0, None)),
            Ok(Outcome::Looked) => (restarted, failed) = (false, 0),
            Err(LookError::Failed(failure)) => {
                failed += 1;
                look -= 1;
                if watch.identity.is_none() || failed > TRIES {
                    return Err(failure);
                }
                let _ = writeln!(std::io::stderr(), "wmr: {}; it is tried again", failure.message);
                std::thread::sleep(wait.every);
                continue;
            }
            Err(LookError::Ended(error)) => {
                watch.successor(error)?;
                restarted = true;
                look -= 1;
                continue;
            }
        }
        if wait.times.is_some_and(|times| look >= times) {
            let complaint = wait.until.map(|until| {
                let typed = shown(&word.to_string_lossy());
                format!("wmr: {typed} has not grown by {} in {}", scaled(until), counted(look, "look"))
            });
            return Ok(done(if complaint.is_some() { code::FAILED } else { 0 }, complaint));
        }
        std::thread::sleep(watch.costs.next().saturating_sub(begin.elapsed()));
    }
}

fn done(code: u8, complaint: Option<String>) -> Answer {
    Answer { text: String::new(), code, complaint }
}

enum Outcome {
    Looked,
    /// By as much as was waited for.
    Grown,
    NobodyListens,
}

enum LookError {
    Ended(AttachError),
    Failed(Failure),
}

impl Watch<'_> {
    fn look(&mut self, look: u64, restarted: bool) -> Result<Outcome, LookError> {
        let failed = |failure| LookError::Failed(failure);
        let faults = self.watched.faults().map_err(ended)?;
        let begin = Instant::now();
        // A clone that lives no longer than it takes to copy it.
        let how = LiveOptions { hold: true, ..open::live_options(self.options) };
        let target = open::captured(self.pid, &how).map_err(ended)?;
        let pause = target.capture.pause;
        let more = self.watched.faults().unwrap_or(faults).saturating_sub(faults);
        let cost = self.costs.add(begin.elapsed(), pause, faults, more);
        let mut subject = open::examine(target, self.pid.to_string()).map_err(failed)?;
        let identity = Identity::of(&subject);
        // A program may start itself anew in its place.
        let anew = restarted || self.identity.as_ref().is_some_and(|before| before.restarted(&identity));
        let notes = &mut subject.inspection.notes;
        if anew {
            notes.push("the program was started anew: the series goes on by names".to_owned());
        }
        if self.costs.next() > self.wait.every {
            notes.push(format!(
                "looking costs the process {:.1} ms: looked every {:.1} s instead, which is less than 1 % of its time",
                cost.as_secs_f64() * 1e3,
                self.costs.next().as_secs_f64()
            ));
        }
        // A look that fails has noticed nothing: the next one compares with the same.
        let summary = summary(&subject).map_err(failed)?;
        self.identity = Some(identity);
        let rss = subject.target.process.rss;
        if anew {
            self.first_rss = None;
            self.kept.clear();
            self.steps.before.extend(self.growing.drain(..));
        }
        let first = *self.first_rss.get_or_insert(rss.unwrap_or(0));
        if self.kept.len() >= COMPARED {
            self.kept.pop_front();
        }
        self.kept.push_back(summary);
        let growth = growth::compare(&self.kept.iter().collect::<Vec<_>>());
        self.steps.pictures = self.kept.len();
        let told = Told::of(&subject.typed, &growth, &self.steps, SHOWN);
        self.growing = told.growth.iter().map(|row| row.signature.clone()).collect();
        let next = self.costs.next();
        let body = Body {
            look,
            elapsed_s: (self.began.elapsed().as_secs_f64() * 1e3).round() / 1e3,
            restarted: anew,
            cost: CostFacts {
                pause_ms: (pause.as_secs_f64() * 1e6).round() / 1e3,
                faults: more,
                percent: (cost.as_secs_f64() / next.as_secs_f64() * 1e5).round() / 1e3,
                next_s: next.as_secs_f64(),
            },
            compared: self.kept.len(),
            told,
        };
        let line = if self.options.json {
            Document::of("wmr/watch/1", &subject, body).to_line()
        } else {
            told_in_a_line(&subject, &growth, rss, first, anew)
        };
        let mut stdout = std::io::stdout().lock();
        if stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).is_err() {
            return Ok(Outcome::NobodyListens);
        }
        let grown = rss.unwrap_or(0).saturating_sub(first);
        Ok(if self.wait.until.is_some_and(|until| grown >= until) { Outcome::Grown } else { Outcome::Looked })
    }

    /// The same program, when it was started anew: as another process, or in its place while it was looked at.
    fn successor(&mut self, error: AttachError) -> Result<(), Failure> {
        let Some(identity) = &self.identity else { return Err(failure::of_attach(error)) };
        for _ in 0..TRIES {
            let same = |process: &wmr_memory::Process| {
                process.exe == identity.exe() && process.cmdline == identity.cmdline()
            };
            let found = processes().rows.into_iter().map(|row| row.process).find(same);
            if let Some(process) = found
                && let Ok(watched) = Watched::open(process.pid)
            {
                (self.pid, self.watched) = (process.pid, watched);
                self.costs = Costs::new(self.wait.every);
                return Ok(());
            }
            std::thread::sleep(self.wait.every);
        }
        Err(failure::of_attach(error))
    }
}

fn ended(error: AttachError) -> LookError {
    match error {
        AttachError::Vanished { .. } | AttachError::NoSuchProcess { .. } | AttachError::Zombie { .. } => {
            LookError::Ended(error)
        }
        _ => LookError::Failed(failure::of_attach(error)),
    }
}

/// `12:00:30  RSS 84.0 MiB +2.1 MiB  app.CACHE +10,000 × app.Entry, +1.9 MiB`
fn told_in_a_line(subject: &Subject, growth: &Growth, rss: Option<u64>, first: u64, anew: bool) -> String {
    let time = local_time(subject.target.capture.time);
    let time = time.rsplit(' ').next().unwrap_or_default();
    let rss = rss.unwrap_or(0);
    let sign = if rss < first { "-" } else { "+" };
    let mut line = format!("{time}  RSS {} {sign}{}", scaled(rss), scaled(rss.abs_diff(first)));
    if anew {
        line.push_str(&format!("  started anew, pid {}", subject.target.process.pid));
    }
    match growth.grown.first() {
        Some(grown) => {
            let objects = match grown.more_objects() {
                0 => String::new(),
                n => format!("+{} × {}, ", grouped(n), shown(&grown.line.type_name)),
            };
            let place = shown(&grown.container.place.name);
            line.push_str(&format!("  {place} {objects}+{}", scaled(grown.more())));
            if growth.grown.len() > 1 {
                line.push_str(&format!("  and {} more", growth.grown.len() - 1));
            }
        }
        None if growth.time.is_some() => line.push_str("  nothing grew at every look"),
        None => line.push_str("  the first look"),
    }
    line + "\n"
}
