//! What Python code that runs holds: each frame's variables and values, and what a thread's state keeps.

use super::{Found, Holder};
use crate::inspect::Inspection;
use crate::stacks::Stack;
use wmr_cpython::Python;
use wmr_cpython::frames::{Code, Ended, Kind};
use wmr_cpython::locate::for_each_word;
use wmr_cpython::refers::At;
use wmr_memory::Target;

/// Fields of a thread's state that hold objects: structure, field, what a person calls it.
const STATE: &[(&str, &str, &str)] = &[
    ("_ts", "dict", "thread-local values"),
    ("_ts", "context", "context"),
    ("_ts", "exc_value", "exception being handled"),
    ("_ts", "exc_traceback", "traceback being handled"),
    ("_ts", "exc_state.exc_value", "exception being handled"),
    ("_ts", "exc_state.exc_traceback", "traceback being handled"),
    ("_ts", "curexc_value", "exception being raised"),
    ("_ts", "curexc_traceback", "traceback being raised"),
    ("_ts", "current_exception", "exception being raised"),
    ("_ts", "async_exc", "exception to be raised"),
    ("_ts", "c_profileobj", "profiler"),
    ("_ts", "c_traceobj", "tracer"),
    ("_ts", "coroutine_wrapper", "coroutine wrapper"),
    ("_ts", "async_gen_firstiter", "asynchronous generator hook"),
    ("_ts", "async_gen_finalizer", "asynchronous generator hook"),
    ("_PyThreadStateImpl", "asyncio_running_loop", "running event loop"),
    ("_PyThreadStateImpl", "asyncio_running_task", "running task"),
];

impl Found<'_> {
    pub(super) fn frames(&mut self) {
        let inspection = self.inspection;
        let (Ok(python), Some(model)) = (&inspection.python, &inspection.model) else { return };
        let (mut reader, mut words) = (self.target.reader(), self.target.reader());
        // 3.14+: the lowest bits of a reference say whether it is counted. One that is not is to what
        // something else holds meanwhile.
        let tags = if model.layout.iframe.is_some_and(|l| l.stackpointer.is_some()) { 7 } else { 0 };
        for stack in &inspection.stacks {
            let thread = stack.thread.addr;
            for (index, frame) in (0..).zip(&stack.walk.frames) {
                frame.references(model, &mut reader, &mut |reference| {
                    self.kept(reference.addr, || Holder::Frame { thread, index, at: reference.at });
                });
                if let Kind::InGenerator { generator } = frame.kind {
                    self.kept(generator, || Holder::Frame { thread, index, at: At::Field("generator") });
                }
            }
            for &(structure, field, what) in STATE {
                if let Some(at) = model.layout.table.offset(structure, field)
                    && let Ok(word) = reader.u64(thread.wrapping_add(at))
                {
                    // Counted where the whole state is looked at.
                    self.object(word, || Holder::Thread { thread, what: what.to_owned() });
                }
            }
        }
        // How much of a stack of values is in use a frame that runs does not say: what may be old comes last.
        for stack in &inspection.stacks {
            let thread = stack.thread.addr;
            for (index, frame) in (0..).zip(&stack.walk.frames) {
                let Some(range) = frame.stack_words(model, &mut reader) else { continue };
                for_each_word(&mut words, range.clone(), |at, word| {
                    let at = At::Stack(((at - range.start) / 8) as u32);
                    self.word(word & !tags, |_| Holder::Frame { thread, index, at });
                });
            }
        }
        self.unfollowed(python, tags);
    }

    /// Where frames could not be followed, the words of the data stack stand for them (3.11+).
    fn unfollowed(&mut self, python: &Python, tags: u64) {
        let whole = |thread: u64| {
            let stack = self.inspection.stacks.iter().find(|stack| stack.thread.addr == thread);
            stack.is_some_and(|stack| stack.walk.ended == Ended::Whole)
        };
        let chunks = python.stack_chunks(self.target);
        let chunks: Vec<_> = chunks.into_iter().filter(|chunk| !whole(chunk.thread)).collect();
        let mut reader = self.target.reader();
        for chunk in chunks {
            for_each_word(&mut reader, chunk.addr..chunk.live_end, |_, word| {
                self.word(word & !tags, |_| Holder::Frames { thread: chunk.thread });
            });
        }
    }
}

fn stack(inspection: &Inspection, thread: u64) -> Option<&Stack> {
    inspection.stacks.iter().find(|stack| stack.thread.addr == thread)
}

/// As a person would call the thread with that state.
pub fn thread(inspection: &Inspection, thread: u64) -> String {
    stack(inspection, thread).map_or_else(|| format!("thread with state at {thread:#x}"), Stack::thread_name)
}

/// The variable of a frame that holds something, if it is one.
pub fn variable(target: &Target, inspection: &Inspection, of: u64, index: u32, at: At) -> Option<String> {
    let frame = stack(inspection, of)?.walk.frames.get(index as usize)?;
    let what = frame.reference_name(inspection.model.as_ref()?, &mut target.reader(), at);
    what.strip_prefix("local ").map(str::to_owned)
}

/// `thread 4242 frame f at /srv/app.py:31 local x`.
pub fn name(target: &Target, inspection: &Inspection, of: u64, index: u32, at: At) -> String {
    let thread = thread(inspection, of);
    let frame = stack(inspection, of).and_then(|stack| stack.walk.frames.get(index as usize));
    let (Some(frame), Some(model)) = (frame, &inspection.model) else {
        return format!("Python frames of {thread}");
    };
    let mut reader = target.reader();
    let code = Code::read(model, &mut reader, frame.code);
    let line = frame.line(model, &mut reader).unwrap_or(code.first_line);
    let what = frame.reference_name(model, &mut reader, at);
    format!("{thread} frame {} at {}:{line} {what}", code.name, code.file)
}
