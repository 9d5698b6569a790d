//! What every JSON document has: `schema`, `target`, `capture`, `notes`. Changes are additive only; a
//! document whose meaning changes gets another `schema`.
//!
//! Addresses are strings `"0x…"`, counts and bytes integers, an absent fact is an absent key.

use crate::open::Subject;
use crate::text::utf8;
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, SystemTime};
use wmr_memory::{Method, Process, Target, TargetKind};

#[derive(Serialize)]
pub struct Document<T: Serialize> {
    schema: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<TargetFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capture: Option<CaptureFacts>,
    notes: Vec<String>,
    #[serde(flatten)]
    body: T,
}

#[derive(Serialize)]
pub struct TargetFacts {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    exe: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cmdline: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    python: Option<PythonFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    libc: Option<String>,
    #[serde(flatten)]
    sizes: Sizes,
}

#[derive(Serialize)]
struct PythonFacts {
    version: String,
    free_threaded: bool,
    debug: bool,
    allocator: String,
    interpreters: usize,
}

/// What the system says a process takes.
#[derive(Serialize)]
pub struct Sizes {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pss: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uss: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_rss: Option<u64>,
}

impl Sizes {
    pub fn of(process: &Process) -> Sizes {
        Sizes {
            rss: process.rss,
            pss: process.pss,
            uss: process.uss,
            swap: process.swap,
            peak_rss: process.peak_rss,
        }
    }
}

#[derive(Serialize)]
pub struct CaptureFacts {
    method: &'static str,
    pause_ms: f64,
    /// How long the clone lived.
    #[serde(skip_serializing_if = "Option::is_none")]
    child_ms: Option<f64>,
    consistent: bool,
    time: String,
}

/// To the microsecond.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl<T: Serialize> Document<T> {
    pub fn of(schema: &'static str, subject: &Subject, body: T) -> Document<T> {
        let mut document = Document::of_target(schema, &subject.target, notes(subject), body);
        if let Some(target) = &mut document.target {
            target.python = subject.inspection.python.as_ref().ok().map(|python| PythonFacts {
                version: python.version.to_string(),
                // Builds without the GIL are declined before anything is counted.
                free_threaded: false,
                debug: python.debug,
                allocator: python.allocators.obj.name().to_owned(),
                interpreters: python.interpreters.len(),
            });
        }
        document
    }

    /// With notes ahead of those that are there.
    pub fn noting(mut self, mut notes: Vec<String>) -> Document<T> {
        notes.append(&mut self.notes);
        Document { notes, ..self }
    }

    /// Of a target that was not looked into.
    pub fn of_target(schema: &'static str, target: &Target, notes: Vec<String>, body: T) -> Document<T> {
        Document {
            schema,
            target: Some(TargetFacts {
                kind: match target.kind {
                    TargetKind::Process => "process",
                    TargetKind::Core => "core",
                    TargetKind::Snapshot => "snapshot",
                },
                pid: Some(target.process.pid).filter(|&pid| pid > 0),
                exe: utf8(&target.process.exe),
                cmdline: target.process.cmdline.iter().map(|word| utf8(word)).collect(),
                python: None,
                libc: libc(target),
                sizes: Sizes::of(&target.process),
            }),
            capture: Some(CaptureFacts {
                method: match target.capture.method {
                    Method::Clone => "clone",
                    Method::Stop => "stop",
                    Method::None => "none",
                    Method::File => "file",
                },
                pause_ms: millis(target.capture.pause),
                // All is read by now.
                child_ms: target.memory.finish().ok().flatten().map(millis),
                consistent: target.capture.consistent,
                time: rfc3339(target.capture.time),
            }),
            notes,
            body,
        }
    }

    /// A document about a graph of objects without a memory: a file that another program may have written.
    pub fn of_graph(schema: &'static str, path: &Path, notes: Vec<String>, body: T) -> Document<T> {
        let sizes = Sizes { rss: None, pss: None, uss: None, swap: None, peak_rss: None };
        let written = path.metadata().and_then(|facts| facts.modified());
        Document {
            schema,
            target: Some(TargetFacts {
                kind: "graph",
                pid: None,
                exe: utf8(path.as_os_str().as_encoded_bytes()),
                cmdline: Vec::new(),
                python: None,
                libc: None,
                sizes,
            }),
            capture: Some(CaptureFacts {
                method: "file",
                pause_ms: 0.0,
                child_ms: None,
                consistent: true,
                time: rfc3339(written.unwrap_or(SystemTime::UNIX_EPOCH)),
            }),
            notes,
            body,
        }
    }

    /// A document about no single target.
    pub fn without_target(schema: &'static str, notes: Vec<String>, body: T) -> Document<T> {
        let now = CaptureFacts {
            method: "none",
            pause_ms: 0.0,
            child_ms: None,
            consistent: false,
            time: rfc3339(SystemTime::now()),
        };
        Document { schema, target: None, capture: Some(now), notes, body }
    }

    /// All in one line, for documents that follow each other.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|e| e.to_string()) + "\n"
    }

    pub fn to_text(&self) -> String {
        // Only a map with keys that are no strings could fail.
        serde_json::to_string_pretty(self).map_or_else(|e| e.to_string(), |text| text + "\n")
    }
}

/// Everything that was noted on the way, why there is no Python included.
pub fn notes(subject: &Subject) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    if let Err(error) = &subject.inspection.python {
        notes.push(error.to_string());
    }
    for note in subject.inspection.notes.iter().cloned().chain(subject.target.memory.troubles()) {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    notes
}

fn libc(target: &Target) -> Option<String> {
    use wmr_alloc::Allocator;
    match wmr_alloc::allocator(&target.images) {
        Allocator::Glibc => Some(match glibc_version(target) {
            Some(version) => format!("glibc {version}"),
            None => "glibc".to_owned(),
        }),
        Allocator::Musl => Some("musl".to_owned()),
        _ => None,
    }
}

/// What `gnu_get_libc_version()` returns: the text `2.36` by itself among the library's strings.
fn glibc_version(target: &Target) -> Option<String> {
    let image = target.images.iter().find(|i| i.symbol("gnu_get_libc_version").is_some())?;
    let rodata = image.section(".rodata")?;
    let bytes = image.file_bytes(rodata.start)?;
    let bytes = &bytes[..bytes.len().min((rodata.end - rodata.start) as usize)];
    // The banner: "GNU C Library (Debian GLIBC 2.36-9+deb12u7) stable release version 2.36.\n".
    let marker = b"release version ";
    let at = bytes.windows(marker.len()).position(|window| window == marker)? + marker.len();
    let digits: Vec<u8> =
        bytes[at..].iter().copied().take_while(|b| b.is_ascii_digit() || *b == b'.').take(12).collect();
    let version = String::from_utf8(digits).ok()?;
    Some(version.trim_end_matches('.').to_owned()).filter(|v| v.contains('.'))
}

pub fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|t| format!("{t:.3}")).unwrap_or_default()
}

/// For people: their own time zone, to the second.
pub fn local_time(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .map(|t| t.to_zoned(jiff::tz::TimeZone::system()).strftime("%F %T").to_string())
        .unwrap_or_default()
}

/// An address as the contract has it.
pub fn hex(addr: u64) -> String {
    format!("{addr:#x}")
}

/// The first `limit` of `rows`, and how many were cut; 0 means all.
pub fn limited<T>(mut rows: Vec<T>, limit: usize) -> (Vec<T>, Option<usize>) {
    let cut = if limit == 0 { 0 } else { rows.len().saturating_sub(limit) };
    rows.truncate(rows.len() - cut);
    (rows, Some(cut).filter(|&cut| cut > 0))
}

/// Rows as comma-separated values: the keys of their JSON are the columns, in order of first sight.
pub fn csv<T: Serialize>(rows: &[T]) -> String {
    let rows: Vec<serde_json::Value> = rows.iter().filter_map(|row| serde_json::to_value(row).ok()).collect();
    let mut columns: Vec<&str> = Vec::new();
    for row in rows.iter().filter_map(|row| row.as_object()) {
        for key in row.keys() {
            if !columns.contains(&key.as_str()) {
                columns.push(key);
            }
        }
    }
    csv_of(&columns, rows.iter().map(|row| |column: &str| row.get(column).cloned()))
}

/// The same with columns that are known: each row answers for a column.
pub fn csv_of<F: Fn(&str) -> Option<serde_json::Value>>(
    columns: &[&str],
    rows: impl Iterator<Item = F>,
) -> String {
    let cell = |value: Option<serde_json::Value>| match value {
        None => String::new(),
        Some(serde_json::Value::String(text)) => csv_text(&text),
        Some(other) => csv_text(&other.to_string()),
    };
    let mut out = columns.join(",") + "\n";
    for row in rows {
        let cells: Vec<String> = columns.iter().map(|column| cell(row(column))).collect();
        out.push_str(&cells.join(","));
        out.push('\n');
    }
    out
}

/// RFC 4180.
fn csv_text(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_has_every_key_of_any_row() {
        #[derive(Serialize)]
        struct Row {
            #[serde(skip_serializing_if = "Option::is_none")]
            path: Option<&'static str>,
            n: u32,
        }
        let rows = [Row { path: None, n: 1 }, Row { path: Some("a,\"b"), n: 2 }];
        assert_eq!(csv(&rows), "n,path\n1,\n2,\"a,\"\"b\"\n");
    }

    #[test]
    fn lists_say_what_was_cut() {
        assert_eq!(limited(vec![1, 2, 3], 2), (vec![1, 2], Some(1)));
        assert_eq!(limited(vec![1, 2, 3], 0), (vec![1, 2, 3], None));
        assert_eq!(limited(vec![1, 2, 3], 3), (vec![1, 2, 3], None));
    }

    #[test]
    fn times() {
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }
}
