//! `wmr demo`: the talk's example, started and looked at live; without a Python, from a core.

use super::{finished, summary, title};
use crate::Answer;
use crate::cli::Options;
use crate::document::Document;
use crate::failure::{Failure, code};
use crate::numbers::grouped;
use crate::open::{self, Subject};
use crate::screen::Screen;
use crate::table::{Align, Table};
use crate::text;
use rustc_hash::FxHashMap;
use serde::Serialize;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use wmr_cpython::sizes::sizeof;
use wmr_heap::TypeRow;

const SCRIPT: &str = include_str!("../../demo/records.py");
/// The same script with 500 records under CPython 3.11, its code left out: `sample/make.py` made it.
const SAMPLE: &[u8] = include_bytes!("../../sample/records.core.zst");

/// The representations: what the script calls them, and the type that carries each.
const REPRESENTATIONS: [(&str, &str); 6] = [
    ("tuple", "tuple"),
    ("namedtuple", "__main__.AsNamedTuple"),
    ("dict", "dict"),
    ("class", "__main__.AsClass"),
    ("class with __slots__", "__main__.AsSlots"),
    ("dataclass(slots=True)", "AsDataclass"),
];

#[derive(Serialize)]
struct Body {
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    representation: &'static str,
    #[serde(rename = "type")]
    name: String,
    count: u64,
    /// Blocks of one record: the object and what it owns.
    bytes: u64,
    /// What `sys.getsizeof` says of one.
    sizeof: u64,
}

pub fn run(core: bool, options: &Options) -> Result<Answer, Failure> {
    if core {
        return sample(options);
    }
    match Example::start() {
        Ok(example) => {
            let pid = example.pid.to_string();
            let opened = open::open(OsStr::new(&pid), options);
            let mut subject =
                opened.map_err(|failure| failure.advise("the same from a core: wmr demo --core"))?;
            drop(example);
            // It has ended: what to ask next is said of any other process.
            subject.typed = "PID".to_owned();
            Ok(show(&subject, options, "10,000 postal addresses in each representation, live under python3"))
        }
        Err(why) => {
            // Nothing went wrong that the answer would depend on.
            let _ = writeln!(std::io::stderr(), "wmr: {why}; looking at the sample core instead");
            sample(options)
        }
    }
}

fn sample(options: &Options) -> Result<Answer, Failure> {
    let unwritten =
        |error: std::io::Error| Failure::new(code::FAILED, format!("cannot unpack the sample: {error}"));
    let mut file = tempfile::Builder::new().suffix(".core.zst").tempfile().map_err(unwritten)?;
    file.write_all(SAMPLE).map_err(unwritten)?;
    let target = open::open_file(file.path(), options)?;
    let subject = open::examine(target, "CORE".to_owned())?;
    Ok(show(&subject, options, "500 postal addresses in each representation, from a core"))
}

fn show(subject: &Subject, options: &Options, what: &str) -> Answer {
    let body = Body { rows: rows(subject) };
    if options.json {
        return finished(subject, Document::of("wmr/demo/1", subject, body).to_text());
    }
    let screen = Screen::of_stdout(options.color);
    let mut answer = summary::show(subject, options);
    answer.text = format!("{what}\n\n{}\n{}", answer.text, screen.finished(page(&screen, &body.rows)));
    answer
}

fn rows(subject: &Subject) -> Vec<Row> {
    let types = subject.inspection.by_type(&subject.target);
    let mut owned: FxHashMap<u32, u64> = FxHashMap::default();
    for (block, owner) in subject.inspection.census.owned() {
        *owned.entry(owner).or_default() += subject.inspection.blocks.bytes(block);
    }
    REPRESENTATIONS
        .into_iter()
        .filter_map(|(representation, name)| {
            let ty = types.iter().find(|ty| ty.name == name || ty.name.ends_with(&format!(".{name}")))?;
            record(subject, &owned, representation, ty)
        })
        .collect()
}

/// The commonest size among a type's objects: the interpreter's own tuples and dicts are of many.
fn record(
    subject: &Subject,
    owned: &FxHashMap<u32, u64>,
    representation: &'static str,
    ty: &TypeRow,
) -> Option<Row> {
    let inspection = &subject.inspection;
    let id = inspection.census.types.iter().position(|known| known.addr == ty.addr)? as u32;
    let mut sizes: FxHashMap<u64, (u64, u32)> = FxHashMap::default();
    for block in
        inspection.blocks.iter().filter(|block| inspection.census.mark(block.id).as_object() == Some(id))
    {
        let bytes = block.bytes + owned.get(&block.id).copied().unwrap_or(0);
        sizes.entry(bytes).or_insert((0, block.id)).0 += 1;
    }
    let (bytes, (count, example)) = sizes.into_iter().max_by_key(|(bytes, (count, _))| (*count, *bytes))?;
    let object = inspection.object(&subject.target, example)?;
    let model = inspection.model.as_ref()?;
    let sizeof = sizeof(model, &mut subject.target.reader(), &object)?;
    Some(Row { representation, name: ty.name.clone(), count, bytes, sizeof })
}

fn page(screen: &Screen, rows: &[Row]) -> String {
    let mut table = Table::new(screen)
        .column("", Align::Left)
        .column("bytes per record", Align::Right)
        .column("getsizeof says", Align::Right)
        .column("records", Align::Right);
    for row in rows {
        table.row([
            row.representation.to_owned(),
            grouped(row.bytes),
            grouped(row.sizeof),
            grouped(row.count),
        ]);
    }
    title(screen, "ONE RECORD OF SIX FIELDS") + &table.render()
}

/// The example process; ended when this is dropped.
struct Example {
    child: Child,
    pid: u32,
}

impl Example {
    /// Starts it and waits until its records are made. The error says why there is none.
    fn start() -> Result<Example, String> {
        let temporary = |error| format!("cannot write the example: {error}");
        // Read by the time it is ready.
        let folder = tempfile::tempdir().map_err(temporary)?;
        std::fs::write(folder.path().join("records.py"), SCRIPT).map_err(temporary)?;
        // Its input is a pipe from here: should this program be killed, the example ends by itself.
        let child = Command::new("python3")
            .arg("records.py")
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("no python3 on PATH ({error})"))?;
        let mut example = Example { pid: child.id(), child };
        let mut line = String::new();
        if let Some(stdout) = example.child.stdout.take() {
            // It says nothing else.
            let _ = BufReader::new(stdout).read_line(&mut line);
        }
        match line.trim().strip_prefix("ready ").and_then(|pid| pid.parse().ok()) {
            Some(pid) => {
                example.pid = pid;
                Ok(example)
            }
            None => Err(format!("python3 could not run the example{}", said(&line))),
        }
    }
}

fn said(line: &str) -> String {
    match line.trim() {
        "" => String::new(),
        line => format!(" (it said {})", text::shown(line)),
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
