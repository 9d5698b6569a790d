//! `wmr core`: writes a target as an ELF core, for gdb and others.

use super::{notes_page, saving};
use crate::Answer;
use crate::cli::Options;
use crate::document::Document;
use crate::failure::{self, Failure, code};
use crate::numbers::{counted, scaled};
use crate::open::open_target;
use crate::screen::{Look, Screen};
use crate::text;
use serde::Serialize;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use wmr_memory::{Target, TargetKind, WriteError, write_core};

#[derive(Serialize)]
struct Body {
    path: String,
    /// Bytes of memory in it; its size on disk is little more, its length includes holes.
    memory: u64,
    segments: u64,
    threads: usize,
}

pub fn run(word: &OsStr, path: Option<&Path>, force: bool, options: &Options) -> Result<Answer, Failure> {
    // A process is not stopped for a file that cannot be written.
    let given = path.map(|path| saving::create(path, force)).transpose()?;
    let target = open_target(word, options)?;
    let path = path.map_or_else(|| saving::default_path(&target, "core"), Path::to_owned);
    let output = given.map_or_else(|| saving::create(&path, force), Ok)?;
    let began = Instant::now();
    let total = target.mappings.iter().map(|m| m.residency.charge(m.start..m.end).resident).sum();
    let written = saving::write(&output, &path, |file, progress| {
        let done = AtomicU64::new(0);
        write_core(&target, file, &|bytes| progress(done.fetch_add(bytes, Relaxed) + bytes, total))
    })
    .map_err(|error| match error {
        WriteError::Write(error) => saving::refused(&path, &error),
        error => lost(&target, &error),
    })?;
    // Only what came from a clone that lived to the end is worth a name.
    target.memory.finish().map_err(failure::of_lost)?;
    saving::finish(output, &path)?;

    let mut notes = target.notes.clone();
    notes.extend_from_slice(&written.notes);
    notes.extend(target.memory.troubles());
    let body = Body {
        path: text::utf8(path.as_os_str().as_encoded_bytes()),
        memory: written.bytes,
        segments: written.segments,
        threads: target.threads.len(),
    };
    let text = if options.json {
        Document::of_target("wmr/core/1", &target, notes, body).to_text()
    } else {
        let screen = Screen::of_stdout(options.color);
        let paused = match target.kind {
            TargetKind::Process => format!(", paused {:.1} ms", target.capture.pause.as_secs_f64() * 1e3),
            _ => String::new(),
        };
        let exe = text::quoted(&String::from_utf8_lossy(&target.process.exe));
        let next = format!("gdb {exe} {}", text::quoted(&path.to_string_lossy()));
        let page = format!(
            "{}: {} of memory, {} in {}\n  written in {:.1} s{paused}\n  open it: {}\n",
            saving::shown(&path),
            scaled(body.memory),
            counted(body.threads as u64, "thread"),
            counted(body.segments, "segment"),
            began.elapsed().as_secs_f64(),
            screen.paint(Look::Command, &next),
        );
        screen.finished(page + &notes_page(&screen, &notes))
    };
    Ok(Answer { text, code: 0, complaint: None })
}

/// Why a clone that was read went away is known best to who held it.
fn lost(target: &Target, error: &WriteError) -> Failure {
    match target.memory.finish() {
        Err(lost) => failure::of_lost(lost),
        Ok(_) => Failure::new(code::FAILED, text::shown(&error.to_string())),
    }
}
