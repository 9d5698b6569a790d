//! `wmr label` and `wmr log`: snapshots of a process under names, in the folder for state that the
//! XDG specification names.

use super::{saving, snapshot};
use crate::Answer;
use crate::cli::Options;
use crate::document::{Document, local_time, rfc3339};
use crate::failure::{Failure, code};
use crate::numbers::scaled;
use crate::open::pid;
use crate::screen::Screen;
use crate::table::{Align, Table};
use crate::text;
use serde::Serialize;
use std::ffi::OsStr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Longest name of a label.
const MAX_NAME: usize = 64;
/// Labels of one process that are listed.
const MAX_LABELS: usize = 10_000;
const ENDING: &str = "wmr";

/// A name that is a file's name and nothing else.
pub fn checked(name: &str) -> Result<&str, Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    match first && name.len() <= MAX_NAME && name.chars().all(plain) {
        true => Ok(name),
        false => Err(Failure::new(code::USAGE, format!("{} is no name for a label", text::shown(name)))
            .advise(format!("letters and digits, with . _ - in between, at most {MAX_NAME}"))),
    }
}

/// Where the labels of a process are.
fn folder(pid: i32) -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")));
    let state = state.ok_or_else(|| {
        Failure::new(code::FAILED, "there is no folder for labels")
            .advise("set HOME or XDG_STATE_HOME to an absolute path")
    })?;
    Ok(state.join("wheresmyram").join(pid.to_string()))
}

fn pid_of(word: &OsStr) -> Result<i32, Failure> {
    pid(word)?.ok_or_else(|| {
        let word = text::shown(&word.to_string_lossy());
        Failure::new(code::USAGE, format!("labels are of processes, {word} is no pid"))
            .advise("keep a core or a snapshot as a file: wmr snapshot TARGET -o FILE")
    })
}

pub fn path(pid: i32, name: &str) -> Result<PathBuf, Failure> {
    Ok(folder(pid)?.join(format!("{}.{ENDING}", checked(name)?)))
}

pub fn keep(word: &OsStr, name: &str, options: &Options) -> Result<Answer, Failure> {
    let file = path(pid_of(word)?, name)?;
    if let Some(folder) = file.parent() {
        // What a process held is its user's alone.
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| saving::refused(&file, &error).advise("another folder: set XDG_STATE_HOME"))?;
    }
    let how = snapshot::How { strip: false, level: 1 };
    snapshot::run(word, Some(&file), false, how, options)
}

/// A label with when it was taken.
#[derive(Debug)]
pub struct Label {
    pub name: String,
    pub path: PathBuf,
    pub bytes: u64,
    pub time: SystemTime,
}

/// The labels of a process, the oldest first. None is no error.
pub fn of(pid: i32) -> Result<Vec<Label>, Failure> {
    let folder = folder(pid)?;
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let folder = saving::shown(&folder);
            return Err(Failure::new(code::FAILED, format!("cannot list {folder}: {error}")));
        }
    };
    let mut labels: Vec<Label> =
        entries.take(MAX_LABELS).filter_map(|entry| label(&entry.ok()?.path())).collect();
    labels.sort_by(|a, b| a.time.cmp(&b.time).then_with(|| a.name.cmp(&b.name)));
    Ok(labels)
}

fn label(path: &Path) -> Option<Label> {
    let name = path.file_stem()?.to_str()?.to_owned();
    let facts = path.symlink_metadata().ok().filter(std::fs::Metadata::is_file)?;
    let ours = path.extension()?.to_str()? == ENDING && checked(&name).is_ok();
    ours.then_some(Label { name, path: path.to_owned(), bytes: facts.len(), time: facts.modified().ok()? })
}

#[derive(Serialize)]
struct Body {
    pid: i32,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    time: String,
    bytes: u64,
    path: String,
}

pub fn log(word: &OsStr, options: &Options) -> Result<Answer, Failure> {
    let pid = pid_of(word)?;
    let labels = of(pid)?;
    let text = if options.json {
        let rows = labels.iter().map(|label| Row {
            name: label.name.clone(),
            time: rfc3339(label.time),
            bytes: label.bytes,
            path: text::utf8(label.path.as_os_str().as_encoded_bytes()),
        });
        Document::without_target("wmr/log/1", Vec::new(), Body { pid, rows: rows.collect() }).to_text()
    } else if labels.is_empty() {
        format!("no labels of process {pid} yet: wmr label {pid} NAME\n")
    } else {
        let screen = Screen::of_stdout(options.color);
        let mut table = Table::new(&screen)
            .column("label", Align::Text)
            .column("taken", Align::Left)
            .column("file", Align::Right);
        for label in &labels {
            table.row([label.name.clone(), local_time(label.time), scaled(label.bytes)]);
        }
        screen.finished(table.render())
    };
    Ok(Answer { text, code: 0, complaint: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        for good in ["before", "a.b", "2024-01-01_x"] {
            assert!(checked(good).is_ok(), "{good}");
        }
        let long = "x".repeat(65);
        for bad in ["", ".", "..", "a/b", "../x", "-x", ".hidden", "a\nb", "a\u{1b}b", "ä", &long] {
            assert!(checked(bad).is_err(), "{bad:?}");
        }
    }
}
