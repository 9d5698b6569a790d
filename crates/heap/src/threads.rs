//! What the threads of a target are, and what they and each of their frames alone keep.

use crate::anatomy::Anatomy;
use crate::graph::{Dominators, TooManyEdges};
use crate::held::Held;
use crate::roots::Holder;
use crate::stacks::Stack;
use rustc_hash::{FxHashMap, FxHashSet};
use wmr_cpython::dicts;
use wmr_cpython::frames::{Frame, Kind, awaited, suspended};
use wmr_cpython::model::{Model, flags};
use wmr_cpython::refers::At;
use wmr_cpython::strings::read_text;
use wmr_memory::Reader;

/// Entries of a namespace, and threads, that are gone through.
const MAX_ENTRIES: u64 = 1 << 20;
/// Exceptions that are handled inside of each other; coroutines that await each other.
const MAX_CHAIN: usize = 1 << 16;
/// `PENDING` (`fut_state`, `Modules/_asynciomodule.c`).
const PENDING: u32 = 0;

/// What would be freed with threads and frames, in bytes.
pub struct Kept {
    /// By thread as in [`Inspection::stacks`](crate::Inspection::stacks): with all its frames.
    pub threads: Vec<u64>,
    /// By thread and frame.
    pub frames: Vec<Vec<u64>>,
    /// By node of the graph.
    pub nodes: Vec<u64>,
}

impl Kept {
    /// Each frame is a node of its own beside the graph, each thread one before its frames: what is
    /// dominated by it would go with it.
    ///
    /// # Errors
    /// More references than can be numbered.
    pub fn of(held: &Held) -> Result<Kept, TooManyEdges> {
        let base = held.graph.csr.nodes();
        let stacks = &held.inspection.stacks;
        let by_state: FxHashMap<u64, usize> =
            stacks.iter().enumerate().map(|(at, stack)| (stack.thread.addr, at)).collect();
        let mut first = base.saturating_add(stacks.len() as u32);
        let firsts: Vec<u32> = stacks
            .iter()
            .map(|stack| {
                let mine = first;
                first = first.saturating_add(stack.walk.frames.len() as u32);
                mine
            })
            .collect();
        let mut rows: Vec<Vec<u32>> = stacks
            .iter()
            .zip(&firsts)
            .map(|(stack, first)| (*first..first.saturating_add(stack.walk.frames.len() as u32)).collect())
            .collect();
        let mut reader = held.target.reader();
        for stack in stacks {
            rows.extend(stack.walk.frames.iter().map(|frame| nodes_of(held, &mut reader, frame)));
        }
        let mut roots: Vec<u32> = Vec::new();
        for root in &held.roots {
            let row = match &root.holder {
                Holder::Frame { thread, index, .. } => {
                    by_state.get(thread).map(|at| firsts[*at].saturating_add(*index) - base)
                }
                Holder::Frames { thread } | Holder::Thread { thread, .. } => {
                    by_state.get(thread).map(|at| *at as u32)
                }
                _ => None,
            };
            match row.and_then(|row| rows.get_mut(row as usize)) {
                // What a generator's frame has is the generator's.
                Some(row) if !is_generators(held, &root.holder) => row.push(root.node),
                Some(_) => {}
                None => roots.push(root.node),
            }
        }
        roots.extend((0..stacks.len() as u32).map(|at| base + at));
        let csr = held.graph.csr.with(&rows)?;
        let dominators = Dominators::of(&csr, &roots);
        let nodes = dominators.retained(|node| if node < base { held.graph.size(node) } else { 0 });
        let of = |node: u32| nodes.get(node as usize).copied().unwrap_or(0);
        let mut frames = Vec::new();
        for (at, (stack, first)) in stacks.iter().zip(&firsts).enumerate() {
            let of_frame = |(frame, node): (&Frame, u32)| {
                // A frame that is an object is referred to by the one it called, a coroutine by who awaits it:
                // then it hangs on the thread, as they go with it.
                let object = match frame.kind {
                    Kind::Object => Some(frame.addr),
                    Kind::InGenerator { generator } => Some(generator),
                    Kind::OnStack { .. } => None,
                };
                let object = object.and_then(|object| held.node_at(object));
                let beside = object.filter(|object| {
                    dominators.idom.get(*object as usize).is_some_and(|idom| *idom == base + at as u32)
                });
                of(node) + beside.map_or(0, of)
            };
            frames.push(stack.walk.frames.iter().zip(*first..).map(of_frame).collect());
        }
        let threads = (0..stacks.len() as u32).map(|at| of(base + at)).collect();
        Ok(Kept { threads, frames, nodes })
    }
}

fn frame_of<'h>(held: &'h Held, thread: u64, index: u32) -> Option<&'h Frame> {
    let stack = held.inspection.stacks.iter().find(|stack| stack.thread.addr == thread)?;
    stack.walk.frames.get(index as usize)
}

/// Is it a variable of a frame that is an object, or in one, in the graph?
fn is_generators(held: &Held, holder: &Holder) -> bool {
    match holder {
        Holder::Frame { thread, index, at } => {
            let stack_word = matches!(at, At::Stack(_));
            frame_of(held, *thread, *index)
                .is_some_and(|frame| !matches!(frame.kind, Kind::OnStack { .. }) && !stack_word)
        }
        _ => false,
    }
}

/// What a frame refers to; what is in an object of the graph is referred to by that.
fn nodes_of(held: &Held, reader: &mut Reader, frame: &Frame) -> Vec<u32> {
    let Some(model) = &held.inspection.model else { return Vec::new() };
    let mut nodes = Vec::new();
    let node = |addr: u64| held.graph.node(held.inspection, model, addr);
    match frame.kind {
        Kind::Object => nodes.extend(node(frame.addr)),
        Kind::InGenerator { generator } => nodes.extend(node(generator)),
        Kind::OnStack { .. } => {
            frame.references(model, reader, &mut |reference| nodes.extend(node(reference.addr)));
        }
    }
    nodes
}

/// What is known of a thread beside its frames.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// As the program named it, else as the kernel knows it.
    pub name: Option<String>,
    pub main: bool,
    pub daemon: Option<bool>,
    pub holds_gil: Option<bool>,
    /// Addresses of the exception that is being handled, and of the task that runs (3.14+).
    pub handled: Option<u64>,
    pub task: Option<u64>,
}

/// Facts of all threads, in the order of [`Inspection::stacks`](crate::Inspection::stacks).
pub fn about(held: &Held) -> Vec<About> {
    let inspection = held.inspection;
    let (Ok(python), Some(model)) = (&inspection.python, &inspection.model) else { return Vec::new() };
    let mut reader = held.target.reader();
    let pythons = named_threads(held, model);
    let holders: Vec<Option<u64>> =
        python.interpreters.iter().map(|i| python.gil_holder(held.target, i)).collect();
    let one = |stack: &Stack| {
        let thread = &stack.thread;
        let kernel = held.target.threads.iter().find(|known| Some(known.tid) == thread.native_id);
        let named = pythons.get(&(stack.interpreter, thread.thread_id));
        let of = python.interpreters.iter().position(|i| i.id == stack.interpreter);
        let mut word =
            |at: Option<u64>| reader.u64(thread.addr.wrapping_add(at?)).ok().filter(|word| *word != 0);
        let task = word(model.layout.thread_impl.and_then(|l| l.asyncio_running_task));
        About {
            name: named.and_then(|named| named.0.clone()).or_else(|| {
                let name = String::from_utf8_lossy(&kernel?.name).into_owned();
                Some(name).filter(|name| !name.is_empty())
            }),
            main: thread.native_id.is_some_and(|tid| tid == held.target.process.pid),
            daemon: named.and_then(|named| named.1),
            holds_gil: of.and_then(|of| holders[of]).map(|holder| holder == thread.addr),
            handled: handled(model, &mut reader, thread.addr),
            task,
        }
    };
    inspection.stacks.iter().map(one).collect()
}

/// Names that `threading` knows and whether the thread is a daemon, by interpreter and `thread_id`.
fn named_threads(held: &Held, model: &Model) -> FxHashMap<(i64, u64), (Option<String>, Option<bool>)> {
    let mut found = FxHashMap::default();
    let Ok(python) = &held.inspection.python else { return found };
    let Some(mut anatomy) = Anatomy::new(held.target, held.inspection) else { return found };
    let mut reader = held.target.reader();
    for interpreter in &python.interpreters {
        let mut active = || {
            let module = entry(model, &mut reader, interpreter.modules, "threading")?;
            let space = reader.u64(module.wrapping_add(model.layout.module?.md_dict)).ok()?;
            entry(model, &mut reader, space, "_active")
        };
        let Some(active) = active() else { continue };
        let _ = dicts::for_each_entry(model, &mut reader, active, MAX_ENTRIES, &mut |_, key, thread| {
            let Some(ident) = anatomy.value(key).and_then(|text| text.parse().ok()) else { return true };
            let Some(ty) = anatomy.type_of(thread) else { return true };
            let attributes = anatomy.parts(thread, ty, 64).attributes;
            let mut value = |names: [&str; 2]| {
                let part = attributes.iter().find(|part| names.contains(&part.name.as_str()))?;
                anatomy.value(part.addr)
            };
            let name = value(["_name", "_Thread__name"]).map(|text| text.trim_matches('\'').to_owned());
            let daemon = value(["_daemonic", "_Thread__daemonic"]).map(|text| text == "True");
            found.insert((interpreter.id, ident), (name, daemon));
            true
        });
    }
    found
}

/// The value of a name in a dict of names.
fn entry(model: &Model, reader: &mut Reader, dict: u64, name: &str) -> Option<u64> {
    let mut found = None;
    dicts::for_each_entry(model, reader, dict, MAX_ENTRIES, &mut |reader, key, value| {
        if read_text(model, reader, key, name.len() + 1).is_some_and(|text| text == name) {
            found = Some(value);
        }
        found.is_none()
    })?;
    found
}

/// The exception that code of the thread is handling: generators that run have their own in the chain.
fn handled(model: &Model, reader: &mut Reader, thread: u64) -> Option<u64> {
    let is_one = |reader: &mut Reader, addr: u64| {
        let ty = model.type_of(reader, addr).ok()?;
        let flags = reader.u64(ty.wrapping_add(model.layout.type_object.tp_flags)).ok()?;
        (flags & flags::BASE_EXC_SUBCLASS != 0).then_some(addr)
    };
    let l = &model.layout;
    if let Some(at) = l.thread.exc_value {
        let value = reader.u64(thread.wrapping_add(at)).ok()?;
        return is_one(reader, value);
    }
    let item = l.handled?;
    let mut at = reader.u64(thread.wrapping_add(l.thread.exc_info?)).ok()?;
    for _ in 0..MAX_CHAIN {
        if at == 0 {
            break;
        }
        let value = reader.u64(at.wrapping_add(item.exc_value)).ok()?;
        if value != 0
            && let Some(value) = is_one(reader, value)
        {
            return Some(value);
        }
        at = reader.u64(at.wrapping_add(item.previous_item)).ok()?;
    }
    None
}

/// A task that is not done, and the coroutines that wait for each other in it, the task's own first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub addr: u64,
    pub node: u32,
    pub name: Option<String>,
    pub running: bool,
    pub event_loop: Option<u64>,
    pub frames: Vec<Frame>,
    /// What the innermost one awaits.
    pub awaits: Option<u64>,
}

/// Tasks of asyncio in address order.
pub fn tasks(held: &Held) -> Vec<Task> {
    let inspection = held.inspection;
    let Some(model) = &inspection.model else { return Vec::new() };
    let Some(layout) = model.layout.task else { return Vec::new() };
    let types = &inspection.census.types;
    let is_task = |at: usize| {
        let mut ty = types.get(at);
        for _ in 0..64 {
            match ty {
                Some(known) if known.name == "_asyncio.Task" => return true,
                Some(known) => ty = known.base.and_then(|base| types.get(base as usize)),
                None => break,
            }
        }
        false
    };
    let Some(mut anatomy) = Anatomy::new(held.target, inspection) else { return Vec::new() };
    let mut reader = held.target.reader();
    let mut found = Vec::new();
    for node in held.graph.of_types(inspection, is_task).iter() {
        let Some(addr) = held.addr(&mut reader, node) else { continue };
        if reader.u32(addr.wrapping_add(layout.task_state)) != Ok(PENDING) {
            continue;
        }
        let mut word = |at: u64| reader.u64(addr.wrapping_add(at)).ok().filter(|word| *word != 0);
        let (coroutine, name) = (word(layout.task_coro), layout.task_name.and_then(&mut word));
        let event_loop = layout.task_loop.and_then(&mut word);
        let mut task =
            Task { addr, node, name: None, running: false, event_loop, frames: Vec::new(), awaits: None };
        // A name that nobody asked for yet is kept as its number.
        task.name = name.and_then(|name| anatomy.value(name)).map(|text| match text.strip_prefix('\'') {
            Some(text) => text.trim_end_matches('\'').to_owned(),
            None => format!("Task-{text}"),
        });
        let (mut at, mut seen) = (coroutine, FxHashSet::default());
        while let Some(coroutine) = at
            && task.frames.len() < MAX_CHAIN
            && seen.insert(coroutine)
        {
            task.awaits = Some(coroutine).filter(|_| !task.frames.is_empty());
            let Some(waiting) = suspended(model, &mut reader, coroutine) else { break };
            task.running |= waiting.running;
            task.frames.push(waiting.frame);
            task.awaits = None;
            at = awaited(model, &mut reader, &waiting.frame);
        }
        found.push(task);
    }
    found
}
