//! `wmr threads`: what each thread's Python code is doing, and what it and each of its frames alone keep.

use super::{answer, holders, title};
use crate::Answer;
use crate::cli::Options;
use crate::document::hex;
use crate::failure::{Failure, code};
use crate::numbers::{counted, scaled};
use crate::open::{Subject, open};
use crate::screen::{Look, Screen};
use crate::text::{cut, cut_middle, shown, utf8};
use rustc_hash::FxHashMap;
use serde::Serialize;
use std::ffi::OsStr;
use unicode_width::UnicodeWidthStr;
use wmr_cpython::frames::{Code, Frame as PyFrame, Kind};
use wmr_heap::Held;
use wmr_heap::anatomy::Anatomy;
use wmr_heap::graph::Fold;
use wmr_heap::threads::{self, About, Kept, Task};
use wmr_memory::Reader;

#[derive(Serialize)]
struct Body {
    /// As the interpreters list them, the newest first.
    rows: Vec<Thread>,
    /// Tasks of asyncio that are not done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<Job>,
}

#[derive(Serialize)]
struct Thread {
    /// Of its `PyThreadState`.
    addr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    interpreter: i64,
    main: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    holds_gil: Option<bool>,
    /// What would be freed with the thread and all its frames.
    retained: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    handling: Option<Thing>,
    /// Address of the asyncio task that runs in it (3.14+).
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<String>,
    /// The innermost first.
    frames: Vec<Frame>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
}

#[derive(Serialize)]
struct Frame {
    addr: String,
    /// With the classes and functions it was defined in, where the version tells.
    function: String,
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<i64>,
    /// What would be freed if this frame alone went.
    #[serde(skip_serializing_if = "Option::is_none")]
    retained: Option<u64>,
    /// Of the generator or coroutine whose frame it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    generator: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locals: Option<Vec<Local>>,
}

#[derive(Serialize)]
struct Local {
    name: String,
    #[serde(flatten)]
    thing: Thing,
    /// Of the cell it is in, which other functions share.
    #[serde(skip_serializing_if = "Option::is_none")]
    cell: Option<String>,
}

#[derive(Serialize)]
struct Thing {
    addr: String,
    #[serde(rename = "type")]
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

/// A task of asyncio.
#[derive(Serialize)]
struct Job {
    addr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_loop: Option<String>,
    retained: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    awaits: Option<Thing>,
    /// The task's own coroutine first, then what it awaits.
    frames: Vec<Frame>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
}

/// Frames of a thread, coroutines of a task and tasks that people are shown.
const FRAMES: usize = 10;
const TASKS: usize = 20;
/// Variables of a frame that are listed, for people and for machines.
const LOCALS: usize = 12;
const GIVEN: usize = 10_000;
/// Functions whose names are kept: deep recursion is in few.
const CODES: usize = 1 << 16;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    pub locals: bool,
    pub all: bool,
}

pub fn run(word: &OsStr, ask: Ask, options: &Options) -> Result<Answer, Failure> {
    let subject = open(word, options)?;
    let held = holders::find(&subject, Fold::Yes)?;
    let kept = Kept::of(&held).map_err(|error| Failure::new(code::FAILED, error.to_string()))?;
    let about = threads::about(&held);
    let mut teller = Teller {
        held: &held,
        reader: subject.target.reader(),
        anatomy: Anatomy::new(&subject.target, &subject.inspection),
        codes: FxHashMap::default(),
        locals: ask.locals.then_some(if options.json { GIVEN } else { LOCALS }),
        frames: if ask.all || options.json { usize::MAX } else { FRAMES },
    };
    let stacks = subject.inspection.stacks.iter().zip(&about).enumerate();
    let rows = stacks.map(|(at, (_, about))| teller.thread(at, about, &kept)).collect();
    let tasks = threads::tasks(&held).iter().map(|task| teller.task(task, &kept)).collect();
    let body = Body { rows, tasks };
    Ok(answer("wmr/threads/1", &subject, options, body, |screen, body| page(screen, &subject, body, ask)))
}

/// Reads what frames and variables are.
struct Teller<'h> {
    held: &'h Held<'h>,
    reader: Reader<'h>,
    anatomy: Option<Anatomy<'h>>,
    codes: FxHashMap<u64, Code>,
    /// How many of each frame, none when they are not asked for.
    locals: Option<usize>,
    frames: usize,
}

impl Teller<'_> {
    fn thread(&mut self, at: usize, about: &About, kept: &Kept) -> Thread {
        let stack = &self.held.inspection.stacks[at];
        let frames: Vec<(&PyFrame, u64)> = stack
            .walk
            .frames
            .iter()
            .zip(kept.frames[at].iter().copied())
            .filter(|(frame, _)| frame.complete)
            .collect();
        let cut = frames.len().saturating_sub(self.frames);
        Thread {
            addr: hex(stack.thread.addr),
            tid: stack.thread.native_id,
            name: about.name.as_ref().map(|name| utf8(name.as_bytes())),
            interpreter: stack.interpreter,
            main: about.main,
            daemon: about.daemon,
            holds_gil: about.holds_gil,
            retained: kept.threads[at],
            handling: about.handled.map(|addr| self.exception(addr)),
            task: about.task.map(hex),
            frames: frames
                .into_iter()
                .take(self.frames)
                .map(|(frame, retained)| self.frame(frame, Some(retained)))
                .collect(),
            truncated: Some(cut).filter(|cut| *cut > 0),
        }
    }

    fn task(&mut self, task: &Task, kept: &Kept) -> Job {
        let cut = task.frames.len().saturating_sub(self.frames);
        Job {
            addr: hex(task.addr),
            name: task.name.as_ref().map(|name| utf8(name.as_bytes())),
            running: task.running,
            event_loop: task.event_loop.map(hex),
            retained: kept.nodes.get(task.node as usize).copied().unwrap_or(0),
            awaits: task.awaits.map(|addr| self.thing(addr)),
            frames: task.frames.iter().take(self.frames).map(|frame| self.frame(frame, None)).collect(),
            truncated: Some(cut).filter(|cut| *cut > 0),
        }
    }

    fn frame(&mut self, frame: &PyFrame, retained: Option<u64>) -> Frame {
        let held = self.held;
        let Some(model) = &held.inspection.model else {
            let none = String::new;
            return Frame {
                addr: hex(frame.addr),
                function: none(),
                file: none(),
                line: None,
                retained,
                generator: None,
                locals: None,
            };
        };
        if self.codes.len() >= CODES {
            self.codes.clear();
        }
        let reader = &mut self.reader;
        let code = self.codes.entry(frame.code).or_insert_with(|| Code::read(model, reader, frame.code));
        let function = utf8(code.qualified.as_ref().unwrap_or(&code.name).as_bytes());
        let file = utf8(code.file.as_bytes());
        let line = frame.line(model, reader);
        let found = self.locals.map(|most| frame.locals(model, reader, most));
        let locals = found.map(|found| {
            found
                .into_iter()
                .map(|local| Local {
                    name: utf8(local.name.as_bytes()),
                    thing: self.thing(local.value),
                    cell: local.cell.map(hex),
                })
                .collect()
        });
        let generator = match frame.kind {
            Kind::InGenerator { generator } => Some(hex(generator)),
            _ => None,
        };
        Frame { addr: hex(frame.addr), function, file, line, retained, generator, locals }
    }

    fn thing(&mut self, addr: u64) -> Thing {
        let anatomy = self.anatomy.as_mut();
        let (name, value) = anatomy.map_or((None, None), |anatomy| {
            let Some(ty) = anatomy.type_of(addr) else { return (None, None) };
            let value = anatomy
                .value(addr)
                .or_else(|| anatomy.parts(addr, ty, 0).length.map(|length| counted(length, "item")));
            (Some(ty.name.as_str()), value)
        });
        Thing {
            addr: hex(addr),
            name: utf8(name.unwrap_or("?").as_bytes()),
            value: value.map(|value| utf8(value.as_bytes())),
        }
    }

    /// Its value is what it was raised with.
    fn exception(&mut self, addr: u64) -> Thing {
        let mut thing = self.thing(addr);
        let model = self.held.inspection.model.as_ref();
        let with = model.and_then(|model| {
            let at = model.layout.table.offset("PyBaseExceptionObject", "args")?;
            let args = self.reader.u64(addr.wrapping_add(at)).ok()?;
            (model.size_field(&mut self.reader, args).ok()? > 0).then_some(())?;
            let first = self.reader.u64(args.wrapping_add(model.layout.tuple.ob_item)).ok()?;
            self.anatomy.as_mut()?.value(first)
        });
        thing.value = with.map(|value| utf8(value.as_bytes())).or(thing.value);
        thing
    }
}

fn page(screen: &Screen, subject: &Subject, body: &Body, ask: Ask) -> String {
    let mut out = String::new();
    let mut cut_some = false;
    for thread in &body.rows {
        let tid = thread.tid.map_or_else(|| format!("thread {}", thread.addr), |tid| format!("thread {tid}"));
        let facts = [
            thread.name.as_deref().map(shown),
            thread.main.then(|| "main".to_owned()),
            (thread.daemon == Some(true)).then(|| "daemon".to_owned()),
            (thread.interpreter != 0).then(|| format!("interpreter {}", thread.interpreter)),
            (thread.holds_gil == Some(true)).then(|| "holds the GIL".to_owned()),
        ];
        let left = std::iter::once(tid).chain(facts.into_iter().flatten()).collect::<Vec<_>>().join(" · ");
        let right = format!("keeps {}", scaled(thread.retained));
        let left = cut(&left, screen.width.saturating_sub(right.width() + 2).max(20));
        out.push_str(&title(screen, &screen.sides(&left, &right)));
        if let Some(error) = &thread.handling {
            let value = error.value.as_deref().map(|value| format!(": {}", shown(value))).unwrap_or_default();
            let line = format!("  handling {}{value}", shown(&error.name));
            out.push_str(&(cut(&line, screen.width) + "\n"));
        }
        if thread.frames.is_empty() {
            out.push_str(&(screen.paint(Look::Dim, "  no Python code runs in it") + "\n"));
        }
        frames_page(screen, &mut out, &thread.frames);
        if let Some(cut) = thread.truncated {
            cut_some = true;
            let text = format!("  … {} further out", counted(cut as u64, "frame"));
            out.push_str(&(screen.paint(Look::Dim, &text) + "\n"));
        }
        out.push('\n');
    }
    let shown_tasks = if ask.all { body.tasks.len() } else { TASKS };
    if !body.tasks.is_empty() {
        let heading = format!("{} NOT DONE", counted(body.tasks.len() as u64, "TASK").to_uppercase());
        out.push_str(&title(screen, &heading));
    }
    for task in body.tasks.iter().take(shown_tasks) {
        let name = task.name.as_deref().map_or_else(|| "task".to_owned(), shown);
        let state = match (&task.awaits, task.running) {
            (_, true) => "runs".to_owned(),
            (Some(thing), _) => format!("awaits {}", shown(&thing.name)),
            (None, _) => "waits".to_owned(),
        };
        let right = format!("keeps {}  {}", scaled(task.retained), task.addr);
        let left = format!("  {name} · {state}");
        let left = cut(&left, screen.width.saturating_sub(right.width() + 2).max(20));
        out.push_str(&(screen.sides(&left, &right) + "\n"));
        frames_page(screen, &mut out, &task.frames);
    }
    let left = body.tasks.len().saturating_sub(shown_tasks);
    if left > 0 || cut_some {
        let what = if left > 0 { counted(left as u64, "more task") } else { "all frames".to_owned() };
        out.push_str(&super::more(screen, &what, &format!("wmr threads {} --all", subject.typed)));
    }
    if !ask.locals {
        out.push_str(&super::more(
            screen,
            "their variables",
            &format!("wmr threads {} --locals", subject.typed),
        ));
    }
    out
}

fn frames_page(screen: &Screen, out: &mut String, frames: &[Frame]) {
    for frame in frames {
        let kept = frame.retained.map(scaled).unwrap_or_default();
        let line = frame.line.map_or_else(|| "?".to_owned(), |line| line.to_string());
        let place = format!("{}:{line}", shown(&frame.file));
        let function = shown(&frame.function);
        let room = screen.width.saturating_sub(15);
        let name = cut(&function, (room / 2).max(16));
        let place = cut_middle(&place, room.saturating_sub(name.width() + 2).max(16));
        out.push_str(&format!("  {kept:>10}  {name}  {}\n", screen.paint(Look::Dim, &place)));
        for local in frame.locals.iter().flatten() {
            let thing = &local.thing;
            let value =
                thing.value.as_deref().map(|value| format!(" = {}", shown(value))).unwrap_or_default();
            let line = format!("                {}{value}  {}", shown(&local.name), shown(&thing.name));
            out.push_str(&cut(&line, screen.width.saturating_sub(thing.addr.len() + 2)));
            out.push_str(&(screen.paint(Look::Dim, &format!("  {}", thing.addr)) + "\n"));
        }
    }
}
