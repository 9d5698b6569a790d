//! What keeps objects alive that no object refers to, each named as a person would.
//!
//! Modules are looked for first, words that may be left over from a call long ago last. Of words only one counts whose object has more references than
//! were found: one that all references are known of is held by nothing else, and words that lead there
//! are borrowed or stale, as behind the end of a free list.

pub(crate) mod frames;
mod modules;
mod state;
mod words;

pub use state::ATEXIT;

use crate::graph::{Graph, Reach};
use crate::inspect::Inspection;
use rustc_hash::{FxHashMap, FxHashSet};
use std::ops::Range;
use wmr_cpython::Python;
use wmr_cpython::model::RefCount;
use wmr_cpython::refers::At;
use wmr_cpython::state::State;
use wmr_memory::{Reader, Target};

/// What holds a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// In `sys.modules`, under that name, of the interpreter of that number.
    Module {
        name: String,
        interpreter: i64,
    },
    /// State of the interpreter of that number: `sys.modules` itself, codecs, hooks, caches.
    Interpreter {
        what: String,
        interpreter: i64,
    },
    /// A frame of the `PyThreadState` at that address, counted from the innermost, and what of it.
    Frame {
        thread: u64,
        index: u32,
        at: At,
    },
    /// A field of the `PyThreadState` at that address.
    Thread {
        thread: u64,
        what: String,
    },
    /// The table of interned strings.
    Interned,
    /// Nothing that is known: it is never freed.
    Immortal,
    /// Frames that could not be followed, of the `PyThreadState` at that address.
    Frames {
        thread: u64,
    },
    /// A variable of a library or of the program: the nearest symbol and how far behind it.
    Global {
        image: usize,
        addr: u64,
    },
    /// A type that lies in the data of the interpreter or of a library: it is never freed.
    Static {
        ty: u64,
    },
    Register {
        tid: i32,
    },
    Stack {
        tid: i32,
        addr: u64,
    },
    /// A block that is no object's.
    Native {
        block: u32,
    },
    /// Memory that was mapped by nobody we know: a library's own heap, the frames of a greenlet that waits.
    Mapping {
        addr: u64,
    },
}

impl Holder {
    /// Is it there for certain, or only a word that looks like a reference?
    pub fn is_sure(&self) -> bool {
        !matches!(
            self,
            Holder::Frames { .. }
                | Holder::Global { .. }
                | Holder::Register { .. }
                | Holder::Stack { .. }
                | Holder::Native { .. }
                | Holder::Mapping { .. }
        )
    }

    /// What people ask for first: paths from a lower group are preferred to those from a higher one.
    pub fn group(&self) -> usize {
        match self {
            Holder::Module { .. } => 0,
            Holder::Frame { .. } | Holder::Frames { .. } => 1,
            Holder::Interpreter { .. }
            | Holder::Thread { .. }
            | Holder::Interned
            | Holder::Static { .. }
            | Holder::Global { .. } => 2,
            Holder::Immortal | Holder::Native { .. } | Holder::Mapping { .. } => 3,
            Holder::Stack { .. } | Holder::Register { .. } => 4,
        }
    }

    /// The sort of holder, for machines.
    pub fn kind(&self) -> &'static str {
        match self {
            Holder::Module { .. } => "module",
            Holder::Interpreter { .. } => "interpreter",
            Holder::Frame { .. } | Holder::Frames { .. } => "frame",
            Holder::Thread { .. } => "thread",
            Holder::Interned => "interned",
            Holder::Immortal => "immortal",
            Holder::Global { .. } => "global",
            Holder::Static { .. } => "type",
            Holder::Register { .. } => "register",
            Holder::Stack { .. } => "stack",
            Holder::Native { .. } => "native",
            Holder::Mapping { .. } => "mapping",
        }
    }

    /// As a person would name it. Text of the target is not escaped.
    pub fn name(&self, target: &Target, inspection: &Inspection) -> String {
        match self {
            Holder::Module { name, interpreter: 0 } => format!("module {name}"),
            Holder::Module { name, interpreter } => format!("module {name} of interpreter {interpreter}"),
            Holder::Interpreter { what, interpreter: 0 } => what.clone(),
            Holder::Interpreter { what, interpreter } => format!("{what} of interpreter {interpreter}"),
            Holder::Frame { thread, index, at } => frames::name(target, inspection, *thread, *index, *at),
            Holder::Frames { thread } => format!("Python frames of {}", frames::thread(inspection, *thread)),
            Holder::Thread { thread, what } => format!("{what} of {}", frames::thread(inspection, *thread)),
            Holder::Interned => "interned strings".to_owned(),
            Holder::Immortal => "never freed".to_owned(),
            Holder::Global { image, addr } => {
                let Some(image) = target.images.get(*image) else {
                    return format!("static data at {addr:#x}");
                };
                let path = String::from_utf8_lossy(&image.path);
                let file = path.rsplit('/').next().unwrap_or_default().to_owned();
                match image.symbolize(*addr) {
                    Some((symbol, 0)) => format!("{symbol} in {file}"),
                    Some((symbol, into)) => format!("{symbol}+{into:#x} in {file}"),
                    None => format!("data of {file} at {addr:#x}"),
                }
            }
            Holder::Static { ty } => {
                let ty = inspection.census.types.iter().find(|known| known.addr == *ty);
                format!("static type {}", ty.map_or("", |ty| ty.name.as_str()))
            }
            Holder::Register { tid } => format!("register of thread {tid}"),
            Holder::Stack { tid, .. } => format!("C stack of thread {tid}"),
            Holder::Mapping { addr } => format!("anonymous mapping at {addr:#x}"),
            Holder::Native { block } => {
                let start = inspection.blocks.start(*block);
                match inspection.census.mark(*block).as_kind() {
                    Some(kind) => format!("{} at {start:#x}", inspection.census.kinds.get(kind).kind),
                    None => format!("native block at {start:#x}"),
                }
            }
        }
    }
}

/// A node and what holds it. A node has one: the first found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    pub node: u32,
    pub holder: Holder,
}

/// All that holds objects from outside the graph.
#[derive(Debug, Default)]
pub struct Roots {
    /// One a node.
    pub list: Vec<Root>,
    /// By object, as though nothing were folded: of those that have more references than objects have to them.
    pub outside: FxHashMap<u32, Outside>,
}

/// Words outside of objects that are an object's address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outside {
    pub words: u32,
    /// Where the first few of them are.
    pub holders: Vec<Holder>,
}

/// Holders of one object that are kept.
const HOLDERS: usize = 4;

/// Groups of [`Holder::group`].
const GROUPS: usize = 5;

/// The paths to all that can be reached, preferred as [`Holder::group`] says.
pub fn reach(graph: &Graph, roots: &[Root]) -> Reach {
    let mut groups: [Vec<u32>; GROUPS] = Default::default();
    for root in roots {
        groups[root.holder.group()].push(root.node);
    }
    Reach::in_turn(&graph.csr, &groups.each_ref().map(|group| &group[..]))
}

/// Roots so far.
struct Found<'a> {
    target: &'a Target,
    inspection: &'a Inspection,
    graph: &'a Graph,
    reader: Reader<'a>,
    seen: FxHashSet<u32>,
    roots: Vec<Root>,
    outside: FxHashMap<u32, Outside>,
    state: State,
    /// Ranges of memory that are looked at by themselves: the interpreter's structures.
    elsewhere: Vec<Range<u64>>,
    /// Arrays of free lists, which hold nothing: behind their ends are pointers to what was taken from them.
    free_lists: Vec<Range<u64>>,
}

impl Found<'_> {
    fn add(&mut self, node: u32, holder: impl FnOnce() -> Holder) {
        if self.seen.insert(node) {
            self.roots.push(Root { node, holder: holder() });
        }
    }

    fn node(&self, word: u64) -> Option<u32> {
        self.graph.node(self.inspection, self.inspection.model.as_ref()?, word)
    }

    /// When it is the address of an object.
    fn object(&mut self, addr: u64, holder: impl FnOnce() -> Holder) {
        if let Some(node) = self.node(addr) {
            self.add(node, holder);
        }
    }

    /// When it is the address of an object, which is held for certain.
    fn kept(&mut self, addr: u64, holder: impl Fn() -> Holder) {
        self.object(addr, &holder);
        self.word(addr, |_| holder());
    }

    /// When the word is the address of an object that somebody else than objects refers to.
    fn word(&mut self, word: u64, holder: impl FnOnce(&Self) -> Holder) {
        let Some(model) = &self.inspection.model else { return };
        let Some(object) = self.graph.node_of_its_own(self.inspection, model, word) else { return };
        let node = self.graph.part_of(object).map_or(object, |part| part.whole);
        let counted = match model.refcount(&mut self.reader, word) {
            Ok(RefCount::Count(count)) if count <= u64::from(self.graph.referred(object)) => return,
            Ok(RefCount::Count(_)) => true,
            _ => false,
        };
        let known = self.outside.get(&object).map_or(0, |outside| outside.holders.len());
        let holder = (!self.seen.contains(&node) || counted && known < HOLDERS).then(|| holder(self));
        if counted {
            let outside = self.outside.entry(object).or_default();
            outside.words = outside.words.saturating_add(1);
            if known < HOLDERS {
                outside.holders.extend(holder.clone());
            }
        }
        if let Some(holder) = holder {
            self.add(node, || holder);
        }
    }
}

/// All roots of a graph.
pub fn find(target: &Target, inspection: &Inspection, graph: &Graph) -> Roots {
    let mut found = Found {
        target,
        inspection,
        graph,
        reader: target.reader(),
        seen: FxHashSet::default(),
        roots: Vec::new(),
        outside: FxHashMap::default(),
        state: inspection.python.as_ref().map(Python::state).unwrap_or_default(),
        elsewhere: Vec::new(),
        free_lists: inspection.python.iter().flat_map(|python| python.free_lists(target).arrays).collect(),
    };
    found.elsewhere.extend(found.state.ranges());
    for ranges in [&mut found.elsewhere, &mut found.free_lists] {
        ranges.sort_by_key(|range| range.start);
    }
    found.modules();
    // Other static objects are met on the way, and what only looks like one is not.
    for ty in inspection.census.types.iter().filter(|ty| inspection.blocks.find(ty.addr).is_none()) {
        found.object(ty.addr, || Holder::Static { ty: ty.addr });
    }
    found.frames();
    found.states();
    found.globals();
    found.native_blocks();
    found.mappings();
    found.stacks();
    found.interned();
    found.immortal();
    Roots { list: found.roots, outside: found.outside }
}
