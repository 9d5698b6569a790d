//! What a word of the interpreter's own structures is: a field of the runtime, of an interpreter, or of a
//! thread's state.

use crate::layout::Table;
use crate::runtime::Python;
use std::ops::Range;

/// Whose state it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Runtime,
    /// By number.
    Interpreter(i64),
    /// By the address of its `PyThreadState`.
    Thread(u64),
}

/// Every structure of the runtime with its fields.
#[derive(Debug, Default)]
pub struct State {
    structures: Vec<(Range<u64>, Of, usize)>,
    /// Of each sort of structure, by offset.
    fields: [Vec<(u64, String)>; 3],
}

impl Python {
    pub fn state(&self) -> State {
        let table = &self.layout.table;
        let names = ["pyruntimestate", "_is", "_ts"];
        let mut state = State { structures: Vec::new(), fields: names.map(|name| by_offset(table, name)) };
        let [runtime, interpreter, thread] = names.map(|name| table.size(name).unwrap_or(0));
        let mut add = |addr: u64, size: u64, of, sort| {
            state.structures.push((addr..addr.saturating_add(size), of, sort));
        };
        // What lies in another structure comes before it.
        for i in &self.interpreters {
            for t in &i.threads {
                add(t.addr, thread, Of::Thread(t.addr), 2);
            }
        }
        for i in &self.interpreters {
            add(i.addr, interpreter, Of::Interpreter(i.id), 1);
        }
        if let Some(addr) = self.runtime {
            add(addr, runtime, Of::Runtime, 0);
        }
        state
    }
}

fn by_offset(table: &Table, name: &str) -> Vec<(u64, String)> {
    let mut fields: Vec<(u64, String)> =
        table.fields(name).map(|(field, at)| (at, field.to_owned())).collect();
    fields.sort_unstable();
    fields
}

impl State {
    /// Where the structures are; of one in another, the outer one alone.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let inside = |range: &Range<u64>, outer: &Range<u64>| {
            range != outer && outer.start <= range.start && range.end <= outer.end
        };
        let all = self.structures.iter().map(|(range, ..)| range);
        all.filter(move |range| !self.structures.iter().any(|(outer, ..)| inside(range, outer))).cloned()
    }

    /// The field that the word at an address is in. Of fields that begin together the innermost counts.
    pub fn field(&self, addr: u64) -> Option<(Of, &str)> {
        let (range, of, sort) = self.structures.iter().find(|(range, ..)| range.contains(&addr))?;
        let fields = &self.fields[*sort];
        let at = fields.partition_point(|(offset, _)| *offset <= addr - range.start);
        Some((*of, fields[..at].last()?.1.as_str()))
    }
}
