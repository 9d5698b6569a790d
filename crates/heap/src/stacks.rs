//! What each thread's Python code is doing, walked once when the target is looked at.

use wmr_cpython::frames::{Ended, Walk};
use wmr_cpython::model::Model;
use wmr_cpython::{PyThread, Python};
use wmr_memory::{Reader, Target};

/// The Python frames of one thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Number of its interpreter.
    pub interpreter: i64,
    pub thread: PyThread,
    pub walk: Walk,
}

impl Stack {
    /// As a person would call its thread.
    pub fn thread_name(&self) -> String {
        thread_name(&self.thread)
    }
}

pub(crate) fn thread_name(thread: &PyThread) -> String {
    match thread.native_id {
        Some(tid) => format!("thread {tid}"),
        None => format!("thread with state at {:#x}", thread.addr),
    }
}

/// The frames of all threads; what could not be followed is noted.
pub(crate) fn stacks(target: &Target, python: &Python, model: &Model, notes: &mut Vec<String>) -> Vec<Stack> {
    let mut reader = target.reader();
    let mut of = |interpreter: i64, thread: &PyThread| {
        let walk = Walk::of(model, &mut reader, thread);
        if let Some(why) = trouble(&mut reader, &walk) {
            notes.push(format!(
                "the Python frames of {} were followed for {} frames only: {why}; words of its stack stand for the rest",
                thread_name(thread),
                walk.frames.len()
            ));
        }
        Stack { interpreter, thread: *thread, walk }
    };
    let threads = python.interpreters.iter().flat_map(|i| i.threads.iter().map(|thread| (i.id, thread)));
    threads.map(|(interpreter, thread)| of(interpreter, thread)).collect()
}

fn trouble(reader: &mut Reader, walk: &Walk) -> Option<String> {
    match walk.ended {
        Ended::Whole => None,
        Ended::Cycle => Some("one comes twice".to_owned()),
        Ended::Cut => Some("there are more than anything recurses".to_owned()),
        Ended::Broken(at) => Some(match reader.u64(at) {
            Err(fault) => fault.to_string(),
            Ok(_) => format!("what should be one at {at:#x} is none"),
        }),
    }
}
