//! What keeps objects alive that no object refers to, each named as a person would.
//!
//! Modules are looked for first, words that may be left over from a call long ago last. Of words only one counts whose object has more references than
//! were found: one that all references are known of is held by nothing else, and words that lead there
//! are borrowed or stale, as behind the end of a free list.

mod modules;
mod words;

use crate::graph::{Graph, Reach};
use crate::inspect::Inspection;
use rustc_hash::FxHashSet;
use wmr_cpython::model::RefCount;
use wmr_memory::{Reader, Target};

/// What holds a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// In `sys.modules`, under that name, of the interpreter of that number.
    Module {
        name: String,
        interpreter: i64,
    },
    /// `sys.modules` itself, or the namespace of `sys`.
    Interpreter {
        what: &'static str,
        interpreter: i64,
    },
    /// Frames of Python code of the `PyThreadState` at that address.
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
}

impl Holder {
    /// Is it there for certain, or only a word that looks like a reference?
    pub fn is_sure(&self) -> bool {
        matches!(self, Holder::Module { .. } | Holder::Interpreter { .. } | Holder::Static { .. })
    }

    /// What people ask for first: paths from a lower group are preferred to those from a higher one.
    pub fn group(&self) -> usize {
        match self {
            Holder::Module { .. } => 0,
            Holder::Frames { .. } => 1,
            Holder::Interpreter { .. } | Holder::Static { .. } | Holder::Global { .. } => 2,
            Holder::Native { .. } => 3,
            Holder::Stack { .. } | Holder::Register { .. } => 4,
        }
    }

    /// As a person would name it. Text of the target is not escaped.
    pub fn name(&self, target: &Target, inspection: &Inspection) -> String {
        match self {
            Holder::Module { name, interpreter: 0 } => format!("module {name}"),
            Holder::Module { name, interpreter } => format!("module {name} of interpreter {interpreter}"),
            Holder::Interpreter { what, interpreter: 0 } => (*what).to_owned(),
            Holder::Interpreter { what, interpreter } => format!("{what} of interpreter {interpreter}"),
            Holder::Frames { thread } => {
                let threads = inspection.python.iter().flat_map(|p| &p.interpreters).flat_map(|i| &i.threads);
                match threads.into_iter().find(|t| t.addr == *thread).and_then(|t| t.native_id) {
                    Some(tid) => format!("Python frames of thread {tid}"),
                    None => format!("Python frames of the thread state at {thread:#x}"),
                }
            }
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

    /// When the word is the address of an object that somebody else than objects refers to.
    fn word(&mut self, word: u64, holder: impl FnOnce() -> Holder) {
        let Some(model) = &self.inspection.model else { return };
        let Some(object) = self.graph.node_of_its_own(self.inspection, model, word) else { return };
        let node = self.graph.part_of(object).map_or(object, |part| part.whole);
        if self.seen.contains(&node) {
            return;
        }
        let explained = match model.refcount(&mut self.reader, word) {
            Ok(RefCount::Count(count)) => count <= u64::from(self.graph.referred(object)),
            _ => false,
        };
        if !explained {
            self.add(node, holder);
        }
    }
}

/// All roots of a graph.
pub fn find(target: &Target, inspection: &Inspection, graph: &Graph) -> Vec<Root> {
    let mut found = Found {
        target,
        inspection,
        graph,
        reader: target.reader(),
        seen: FxHashSet::default(),
        roots: Vec::new(),
    };
    found.modules();
    // Other static objects are met on the way, and what only looks like one is not.
    for ty in inspection.census.types.iter().filter(|ty| inspection.blocks.find(ty.addr).is_none()) {
        found.object(ty.addr, || Holder::Static { ty: ty.addr });
    }
    found.frames();
    found.globals();
    found.native_blocks();
    found.stacks();
    found.roots
}
