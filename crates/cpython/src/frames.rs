//! The Python frames of each thread, as the interpreter itself would list them.
//!
//! Up to 3.10 a frame is an object and the one that called it is its `f_back`. From 3.11 on it is a
//! `_PyInterpreterFrame` on the thread's data stack, in a generator, or (entries, without code) on the C
//! stack; a frame object is made when somebody asks for one.

mod code;
mod lines;
mod locals;
mod suspended;

pub use code::Code;
pub use locals::Local;
pub use suspended::{Suspended, awaited, suspended};

use crate::model::Model;
use crate::refers::{self, At, Reference, Strength};
use crate::runtime::PyThread;
use rustc_hash::FxHashSet;
use std::ops::Range;
use wmr_memory::Reader;

/// Frames of one thread: the recursion limit of a program that raised it is far lower.
const MAX_FRAMES: usize = 1 << 20;
/// `FRAME_OWNED_BY_GENERATOR`; from 3 on frames are the interpreter's own, without code (`pycore_frame.h`).
const BY_GENERATOR: u8 = 1;
const FIRST_WITHOUT_CODE: u8 = 3;
/// Bits of a tagged reference (3.14+).
const TAGS: u64 = 3;

/// One frame of Python code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Of the `PyFrameObject` up to 3.10, of the `_PyInterpreterFrame` from 3.11 on.
    pub addr: u64,
    pub code: u64,
    pub kind: Kind,
    /// Its code has begun to run: the interpreter lists no others.
    pub complete: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A `PyFrameObject` that has everything in it (up to 3.10).
    Object,
    /// On the thread's data stack; if somebody asked for it, with a frame object.
    OnStack { object: u64 },
    /// In the generator or coroutine at that address.
    InGenerator { generator: u64 },
}

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// At the frame that nothing called.
    Whole,
    /// A frame came twice.
    Cycle,
    /// What should be a frame at that address cannot be read, or has no code.
    Broken(u64),
    /// There are more than would be taken.
    Cut,
}

/// The frames of a thread, the innermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    pub frames: Vec<Frame>,
    pub ended: Ended,
}

impl Walk {
    /// Of the thread's present frames.
    pub fn of(model: &Model, reader: &mut Reader, thread: &PyThread) -> Walk {
        match innermost(model, reader, thread) {
            Some(first) => Walk::from(model, reader, first),
            None => Walk { frames: Vec::new(), ended: Ended::Broken(thread.addr) },
        }
    }

    fn from(model: &Model, reader: &mut Reader, first: u64) -> Walk {
        let mut walk = Walk { frames: Vec::new(), ended: Ended::Whole };
        let (mut seen, mut code_type) = (FxHashSet::default(), None);
        let mut at = first;
        while at != 0 {
            if seen.len() >= MAX_FRAMES {
                walk.ended = Ended::Cut;
                break;
            }
            if !seen.insert(at) {
                walk.ended = Ended::Cycle;
                break;
            }
            let Some((frame, previous)) = step(model, reader, at, &mut code_type) else {
                walk.ended = Ended::Broken(at);
                break;
            };
            walk.frames.extend(frame);
            at = previous;
        }
        walk
    }
}

/// Where the thread is now; 0 when no Python code runs in it.
fn innermost(model: &Model, reader: &mut Reader, thread: &PyThread) -> Option<u64> {
    let ts = &model.layout.thread;
    let mut word = |at: u64| reader.u64(thread.addr.wrapping_add(at)).ok();
    // 3.10 has a C frame too, which does not know of the Python one.
    if let Some(at) = ts.frame.or(ts.current_frame) {
        return word(at);
    }
    let cframe = word(ts.cframe?)?;
    reader.u64(cframe.wrapping_add(model.layout.cframe?.current_frame?)).ok()
}

/// The frame at an address, none where it is one without code, and the one before it.
fn step(
    model: &Model,
    reader: &mut Reader,
    at: u64,
    code_type: &mut Option<u64>,
) -> Option<(Option<Frame>, u64)> {
    let l = &model.layout;
    let mut word = |field: u64| reader.u64(at.wrapping_add(field)).ok();
    if let Some(back) = l.frame?.f_back.filter(|_| l.iframe.is_none()) {
        let (code, previous) = (word(l.frame?.f_code?)?, word(back)?);
        is_code(model, reader, code, code_type).then_some(())?;
        return Some((Some(Frame { addr: at, code, kind: Kind::Object, complete: true }), previous));
    }
    let inner = l.iframe?;
    let previous = word(inner.previous)?;
    let code = word(inner.code)? & !TAGS;
    let object = word(inner.frame_obj)?;
    let owner = reader.u8(at.wrapping_add(inner.owner)).ok()?;
    if owner >= FIRST_WITHOUT_CODE {
        return Some((None, previous));
    }
    is_code(model, reader, code, code_type).then_some(())?;
    let kind = match owner {
        BY_GENERATOR => Kind::InGenerator { generator: at.wrapping_sub(l.generator?.gi_iframe?) },
        _ => Kind::OnStack { object },
    };
    let frame = Frame { addr: at, code, kind, complete: true };
    let complete = owner == BY_GENERATOR || has_begun(model, reader, &frame);
    Some((Some(Frame { complete, ..frame }), previous))
}

/// The code of what may be a frame at an address.
pub(crate) fn code_at(
    model: &Model,
    reader: &mut Reader,
    at: u64,
    code_type: &mut Option<u64>,
) -> Option<u64> {
    let code = reader.u64(at.wrapping_add(model.layout.iframe?.code)).ok()? & !TAGS;
    is_code(model, reader, code, code_type).then_some(code)
}

/// Is there a code object? Their type is known from the first one.
fn is_code(model: &Model, reader: &mut Reader, addr: u64, code_type: &mut Option<u64>) -> bool {
    let Ok(ty) = model.type_of(reader, addr) else { return false };
    if *code_type == Some(ty) {
        return true;
    }
    let name = reader.u64(ty.wrapping_add(model.layout.type_object.tp_name));
    let is = name.is_ok_and(|name| reader.cstr(name, 8).is_ok_and(|name| name == b"code"));
    if is {
        *code_type = Some(ty);
    }
    is
}

/// `_PyFrame_IsIncomplete`: cells and free variables are set up by the first instructions.
fn has_begun(model: &Model, reader: &mut Reader, frame: &Frame) -> bool {
    let first = model.layout.code.and_then(|code| code.co_firsttraceable);
    let first = first.and_then(|at| reader.u32(frame.code.wrapping_add(at)).ok());
    match (first, frame.instruction(model, reader)) {
        (Some(first), Some(at)) => at >= 2 * i64::from(first),
        _ => true,
    }
}

impl Frame {
    /// The frame object, where there is one.
    pub fn object(&self) -> Option<u64> {
        match self.kind {
            Kind::Object => Some(self.addr),
            Kind::OnStack { object } => Some(object).filter(|object| *object != 0),
            Kind::InGenerator { .. } => None,
        }
    }

    /// Bytes from the beginning of its code to the instruction it is at; below 0 before the first.
    pub(crate) fn instruction(&self, model: &Model, reader: &mut Reader) -> Option<i64> {
        let l = &model.layout;
        if let Some(inner) = l.iframe {
            let at = reader.u64(self.addr.wrapping_add(inner.instruction)).ok()?;
            let start = self.code.wrapping_add(l.code?.co_code_adaptive?);
            return Some(at.wrapping_sub(start) as i64);
        }
        let last = i64::from(reader.u32(self.addr.wrapping_add(l.frame?.f_lasti?)).ok()? as i32);
        // 3.10 counts instructions, which have two bytes.
        Some(if l.frame?.f_stackdepth.is_some() { 2 * last } else { last })
    }

    /// The line it is at. None: of no line, or it cannot be read.
    pub fn line(&self, model: &Model, reader: &mut Reader) -> Option<i64> {
        let l = model.layout.frame?;
        // A debugger that traces a frame keeps its line, and may have set it to where it goes on.
        if let Some(object) = self.object() {
            let line = i64::from(reader.u32(object.wrapping_add(l.f_lineno?)).ok()? as i32);
            let traced = match l.f_stacktop {
                Some(_) => reader.u64(object.wrapping_add(l.f_trace?)).ok()? != 0,
                None => line > 0,
            };
            if traced {
                return Some(line);
            }
        }
        let offset = self.instruction(model, reader)?;
        code::line(model, reader, self.code, offset)
    }

    /// What it refers to, in the order it is kept. The stack of values of a frame that runs is not told
    /// by it: [`stack_words`](Self::stack_words).
    pub fn references(&self, model: &Model, reader: &mut Reader, f: &mut dyn FnMut(Reference)) {
        let mut give = |addr, strength, at| {
            if addr != 0 {
                f(Reference { addr, strength, at });
            }
        };
        let _ = match self.kind {
            Kind::Object => {
                give(self.addr, Strength::Strong, At::Field("frame"));
                refers::frames::old_frame(model, reader, self.addr, &mut give)
            }
            _ => refers::frames::inner(model, reader, self.addr, &mut give),
        };
    }

    /// Room of the stack of values when nobody wrote down how much of it is in use: while it runs.
    pub fn stack_words(&self, model: &Model, reader: &mut Reader) -> Option<Range<u64>> {
        let l = &model.layout;
        let room = u64::from(reader.u32(self.code.wrapping_add(l.code?.co_stacksize)).ok()?);
        let room = Some(8 * room).filter(|room| *room <= 8 * refers::frames::MAX_WORDS)?;
        let (first, told) = match (l.iframe, l.frame?) {
            (Some(inner), _) => {
                let locals = reader.u32(self.code.wrapping_add(l.code?.co_nlocalsplus?)).ok()?;
                let first = self.addr.wrapping_add(inner.localsplus).wrapping_add(8 * u64::from(locals));
                let told = match (inner.stackpointer, inner.stacktop) {
                    (Some(at), _) => reader.u64(self.addr.wrapping_add(at)).ok()? != 0,
                    (None, Some(at)) => reader.u32(self.addr.wrapping_add(at)).ok()? as i32 > 0,
                    _ => false,
                };
                (first, told)
            }
            (None, frame) => {
                let first = reader.u64(self.addr.wrapping_add(frame.f_valuestack?)).ok()?;
                let told = match (frame.f_stacktop, frame.f_stackdepth) {
                    (Some(at), _) => reader.u64(self.addr.wrapping_add(at)).ok()? != 0,
                    (None, Some(at)) => reader.u32(self.addr.wrapping_add(at)).ok()? as i32 >= 0,
                    _ => false,
                };
                (first, told)
            }
        };
        (!told).then(|| first..first.saturating_add(room))
    }
}
