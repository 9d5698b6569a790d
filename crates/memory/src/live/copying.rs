//! A picture by copying: stop, copy what is private and present, resume.

use super::copy::{Buffer, Extents};
use super::files::LiveFiles;
use super::picture::{Frozen, inherit, residency};
use super::predict::Burden;
use super::smaps::{self, Entry};
use super::{AttachError, Capturing, LiveOptions, Source, refusal, stop};
use crate::{Backing, Capture, Method, Target, Thread};
use std::time::{Duration, SystemTime};

impl Source {
    /// `not_cloned`: why a clone, which was asked for, cannot be.
    pub(super) fn by_copy(
        &self,
        estimate: u64,
        limit: u64,
        options: &LiveOptions,
        not_cloned: Option<&str>,
    ) -> Result<Target, AttachError> {
        let pid = self.dir.pid;
        let too_large = |needed| AttachError::TooLarge { pid, needed, limit, not_cloned: None };
        if estimate > limit {
            return Err(too_large(estimate));
        }
        // Ahead of the stop: room for the copy, the figures of smaps, the files.
        let (buffer, before) = std::thread::scope(|scope| {
            let room = estimate.saturating_mul(2).max(estimate.saturating_add(1 << 28));
            let buffer = scope.spawn(move || Buffer::new(estimate, room));
            let before = self.look();
            (buffer.join(), before)
        });
        let buffer = buffer
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .map_err(|source| AttachError::System { pid, what: "make room for the copy", source })?;
        let (before, files, process) = before?;
        let stopped = options.capture != Capturing::None;
        if stopped && let Some(limit) = options.max_pause {
            let burden = Burden::of(&before, 0, self.status.threads);
            let predicted = burden.of_copy();
            if predicted > limit {
                return Err(match not_cloned {
                    Some(why) => AttachError::NotCloned { pid, why: why.to_owned(), predicted, limit },
                    None => AttachError::TooLong { pid, method: Method::Stop, predicted, limit, burden },
                });
            }
        }

        let (mut frozen, pause) = if stopped {
            let of = (&self.dir, &self.mem);
            stop::with_stopped(of, options.stop_budget, options.stop_patience, |threads| {
                let mut frozen = self.freeze(buffer, &before, &files, limit)?;
                frozen.threads = threads;
                Ok(frozen)
            })?
        } else {
            let mut frozen = self.freeze(buffer, &before, &files, limit)?;
            frozen.threads = self.running_threads();
            (frozen, Duration::ZERO)
        };
        let mut notes = self.notes.clone();
        if !stopped {
            notes.push("the process was not stopped: what is shown may contradict itself".to_owned());
        }
        if let Some(why) = not_cloned {
            notes.push(format!("copied while it stood still, as it could not be cloned: {why}"));
        }
        self.sharing(&mut frozen.entries, &mut notes);
        let capture = Capture {
            method: if stopped { Method::Stop } else { Method::None },
            pause,
            consistent: stopped,
            time: frozen.time,
        };
        self.target(frozen, process, &files, capture, notes)
    }

    /// Everything that has to happen while the process is stopped.
    pub(super) fn freeze(
        &self,
        mut buffer: Buffer,
        before: &[Entry],
        files: &LiveFiles,
        limit: u64,
    ) -> Result<Frozen, AttachError> {
        let pid = self.dir.pid;
        let refused = |what| move |error| refusal(&self.dir, what, error);
        let maps = self.view.read("maps").map_err(refused("read /proc/PID/maps"))?;
        let mut entries = smaps::parse(&maps);
        if entries.is_empty() {
            // An address space without users, that of a process that ended, has no mappings.
            return Err(AttachError::Vanished { pid });
        }
        inherit(&mut entries, before);
        let unscanned = residency(&self.pagemap, &mut entries).map_err(refused("read /proc/PID/pagemap"))?;

        let mut extents = Extents::default();
        for entry in &entries {
            let has_file = files.get(&entry.mapping).is_some();
            for run in entry.mapping.residency.runs.iter().filter(|run| run.state.present && !run.state.zero)
            {
                let copied = match entry.mapping.backing {
                    Backing::Anonymous | Backing::Brk | Backing::Stack | Backing::Kernel => true,
                    Backing::File => !run.state.file || !has_file,
                    Backing::SharedMemory | Backing::Device => false,
                };
                if copied {
                    extents.push(run.start, run.end);
                }
            }
        }
        if extents.bytes > limit {
            return Err(AttachError::TooLarge { pid, needed: extents.bytes, limit, not_cloned: None });
        }
        if extents.bytes > buffer.capacity() {
            return Err(AttachError::Growing { pid });
        }
        let failed = buffer
            .fill(&self.mem, &extents)
            .map_err(|error| refusal(&self.dir, "read /proc/PID/mem", error))?;
        self.is_the_same(&self.view)?;
        let time = SystemTime::now();
        buffer.shrink(extents.bytes);
        let copied = Some(buffer.into_map());
        let extents = extents.without(&failed);
        Ok(Frozen { entries, extents, failed, unscanned, threads: Vec::new(), copied, stream: None, time })
    }

    fn running_threads(&self) -> Vec<Thread> {
        let tids = self.dir.tids().unwrap_or_default();
        tids.into_iter().map(|tid| Thread { tid, ..Thread::default() }).collect()
    }
}
