//! Blocks that the runtime itself owns, by exact pointers out of its own structures: no object refers
//! to them.

use crate::locate::for_each_word;
use crate::runtime::Python;
use rustc_hash::FxHashSet;
use wmr_memory::{Reader, Target};

/// Blocks of one list or table. tracemalloc has one entry a traced block.
const MAX_ENTRIES: u64 = 1 << 24;
const MAX_BUCKETS: u64 = 1 << 24;

/// A block CPython keeps for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owned {
    /// Where the pointer points: the start of the data.
    pub addr: u64,
    pub kind: &'static str,
}

/// Bytes of an arena from 3.10 on, as a power of two (`ARENA_BITS`, `Objects/obmalloc.c`).
const ARENA_BITS: u32 = 20;

/// Address bits that index a leaf: three levels index all but the arena's own, of 48 bits in 3.10 and
/// of 64 later.
fn leaf_bits(bits: u32) -> u32 {
    (if bits == 10 { 48 } else { 64 }) - ARENA_BITS - 2 * bits
}

/// Where the radix tree keeps the mark of one arena, as byte offsets in its three nodes.
struct TreePath {
    in_root: u64,
    in_middle: u64,
    in_leaf: u64,
    /// `tail_hi`: the arena's offset in an arena-sized unit, −1 when it is aligned.
    tail: u32,
}

impl TreePath {
    fn of(arena: u64, bits: u32) -> TreePath {
        let index = |shift: u32, bits: u32| (arena >> shift & ((1 << bits) - 1)) * 8;
        let leaf_bits = leaf_bits(bits);
        TreePath {
            in_root: index(ARENA_BITS + leaf_bits + bits, bits),
            in_middle: index(ARENA_BITS + leaf_bits, bits),
            in_leaf: index(ARENA_BITS, leaf_bits),
            tail: match arena as u32 & ((1 << ARENA_BITS) - 1) {
                0 => u32::MAX,
                offset => offset,
            },
        }
    }

    /// The leaf in which the arena is marked, in the tree at `root`.
    fn leaf(&self, reader: &mut Reader<'_>, root: u64) -> Option<u64> {
        let middle = reader.u64(root.wrapping_add(self.in_root)).ok()?;
        let leaf = reader.u64(middle.wrapping_add(self.in_middle)).ok().filter(|leaf| *leaf != 0)?;
        (reader.u32(leaf.wrapping_add(self.in_leaf)) == Ok(self.tail)).then_some(leaf)
    }
}

/// How many of `words` words from `addr` on are not zero; all of them where they cannot be read.
fn filled(reader: &mut Reader<'_>, addr: u64, words: usize) -> usize {
    (0..words as u64).filter(|i| reader.u64(addr.wrapping_add(i * 8)) != Ok(0)).count()
}

/// What hangs on a pointer field.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// One block.
    Block,
    /// A block whose first word is the next one's address.
    Chain,
    /// That many such chains in a row.
    Chains(u64),
    /// Such chains up to another field: one in 3.12, eight from 3.13 on.
    ChainsUpTo(&'static str),
    /// A length, then the address of a block.
    Counted,
    /// An array of pointers to blocks, and the field that counts them.
    Array(&'static str),
    /// A `_Py_hashtable_t`, its buckets and entries; what the entries' keys or values point at.
    Table(Entry),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Only,
    WithKey,
    WithValue,
}

type Field = (&'static str, Shape, &'static str);

/// Fields of the runtime. What a version does not have is not in its table.
const RUNTIME: &[Field] = &[
    ("interpreters.mutex", Shape::Block, "lock"),
    ("xidregistry.mutex", Shape::Block, "lock"),
    ("xidregistry.head", Shape::Chain, "cross-interpreter data"),
    ("xi.registry.head", Shape::Chain, "cross-interpreter data"),
    ("ceval.pending.lock", Shape::Block, "lock"),
    ("getargs.mutex", Shape::Block, "lock"),
    ("unicode_ids.lock", Shape::Block, "lock"),
    ("unicode_state.ids.lock", Shape::Block, "lock"),
    ("imports.extensions.mutex", Shape::Block, "lock"),
    ("imports.extensions.hashtable", Shape::Table(Entry::Only), "extension modules"),
    ("imports.inittab", Shape::Block, "built-in modules"),
    ("allocators.mutex", Shape::Block, "lock"),
    ("audit_hook_head", Shape::Chain, "audit hook"),
    ("audit_hooks.head", Shape::Chain, "audit hook"),
    ("cached_objects.interned_strings", Shape::Table(Entry::Only), "static strings"),
    ("tracemalloc.tables_lock", Shape::Block, "lock"),
    ("tracemalloc.filenames", Shape::Table(Entry::Only), "tracemalloc"),
    ("tracemalloc.tracebacks", Shape::Table(Entry::WithKey), "tracemalloc"),
    ("tracemalloc.traces", Shape::Table(Entry::WithValue), "tracemalloc"),
    ("tracemalloc.traceback", Shape::Block, "tracemalloc"),
];

/// Fields of each interpreter.
const INTERPRETER: &[Field] = &[
    ("id_mutex", Shape::Block, "lock"),
    ("ceval.pending.lock", Shape::Block, "lock"),
    ("imports.lock.mutex", Shape::Block, "lock"),
    ("xidregistry.mutex", Shape::Block, "lock"),
    ("atexit.callbacks", Shape::Array("atexit.ncallbacks"), "atexit callbacks"),
    ("unicode.ids", Shape::Counted, "identifiers"),
    ("unicode.fs_codec.encoding", Shape::Block, "configuration"),
    ("unicode.fs_codec.errors", Shape::Block, "configuration"),
    ("fs_codec.encoding", Shape::Block, "configuration"),
    ("fs_codec.errors", Shape::Block, "configuration"),
    ("dtoa.p5s", Shape::ChainsUpTo("dtoa.freelist"), "bigint"),
    ("dtoa.freelist", Shape::Chains(8), "bigint"),
    ("code_state.constants", Shape::Table(Entry::Only), "constants"),
    ("qsbr.array", Shape::Block, "thread bookkeeping"),
    ("qsbr.array_raw", Shape::Block, "thread bookkeeping"),
];

/// Statics of versions up to 3.11, by symbol.
const STATICS: &[Field] = &[
    ("head_mutex", Shape::Block, "lock"),
    ("interpreter_lock", Shape::Block, "lock"),
    ("pending_lock", Shape::Block, "lock"),
    ("import_lock", Shape::Block, "lock"),
    ("keymutex", Shape::Block, "lock"),
    ("tables_lock", Shape::Block, "lock"),
    ("inittab_copy", Shape::Block, "built-in modules"),
    ("p5s", Shape::Chain, "bigint"),
    ("freelist", Shape::Chains(8), "bigint"),
    ("tracemalloc_filenames", Shape::Table(Entry::Only), "tracemalloc"),
    ("tracemalloc_tracebacks", Shape::Table(Entry::WithKey), "tracemalloc"),
    ("tracemalloc_traces", Shape::Table(Entry::WithValue), "tracemalloc"),
    ("tracemalloc_traceback", Shape::Block, "tracemalloc"),
];

impl Python {
    /// The blocks the runtime owns, by address, each once. A pointer may lead nowhere or into static
    /// data: whether a block is there is the allocator's to say.
    pub fn owned_blocks(&self, target: &Target) -> Vec<Owned> {
        let mut walk =
            Walk { python: self, reader: target.reader(), out: Vec::new(), seen: FxHashSet::default() };
        walk.states(target);
        walk.arenas(target);
        let table = &self.layout.table;
        if let Some(runtime) = self.runtime {
            walk.fields(RUNTIME, |f| Some(runtime.wrapping_add(table.offset("pyruntimestate", f)?)));
        }
        for interpreter in &self.interpreters {
            walk.fields(INTERPRETER, |f| Some(interpreter.addr.wrapping_add(table.offset("_is", f)?)));
            walk.config(interpreter.addr);
            walk.atexit(interpreter.addr);
        }
        if let Some(image) = self.image(target).filter(|_| !self.version.at_least(3, 12)) {
            walk.fields(STATICS, |name| image.symbol(name));
        }
        if let Some(at) = self.image(target).and_then(|i| i.symbol("_Py_path_config")) {
            walk.words(at, 12, "configuration");
        }
        let mut out = walk.out;
        out.sort_unstable();
        out
    }
}

struct Walk<'a, 'm> {
    python: &'a Python,
    reader: Reader<'m>,
    out: Vec<Owned>,
    seen: FxHashSet<u64>,
}

impl Walk<'_, '_> {
    /// Notes a block; false when it is null or known already, so that no chain is followed twice.
    fn push(&mut self, addr: u64, kind: &'static str) -> bool {
        let new = addr != 0 && addr.is_multiple_of(8) && self.seen.insert(addr);
        if new {
            self.out.push(Owned { addr, kind });
        }
        new
    }

    fn word(&mut self, at: u64) -> u64 {
        self.reader.u64(at).unwrap_or(0)
    }

    /// Interpreter and thread states: malloc'ed but for the main ones of 3.11+, which are static.
    fn states(&mut self, target: &Target) {
        let python = self.python;
        let is_static = |addr| target.image(addr).is_some();
        for interpreter in &python.interpreters {
            if !is_static(interpreter.addr) {
                self.push(interpreter.addr, "interpreter state");
            }
            let inside = interpreter.addr..interpreter.addr.saturating_add(python.layout.interpreter.size);
            for thread in
                interpreter.threads.iter().filter(|t| !is_static(t.addr) && !inside.contains(&t.addr))
            {
                self.push(thread.addr, "thread state");
            }
        }
    }

    /// The arena arrays, and the radix tree that tells pymalloc's addresses from others (3.10+).
    fn arenas(&mut self, target: &Target) {
        let python = self.python;
        for roots in &python.pymalloc_roots {
            self.push(roots.arenas, "pymalloc arenas");
        }
        let mut trees = Vec::new();
        let layout = &python.layout;
        let usage = layout.table.offset("_obmalloc_state", "usage");
        for interpreter in &python.interpreters {
            let Some((at, usage)) = layout.interpreter.obmalloc.zip(usage) else { continue };
            let mut state = interpreter.addr.wrapping_add(at);
            if python.version.at_least(3, 13) {
                state = self.word(state);
                if state != 0 && target.image(state).is_none() {
                    self.push(state, "pymalloc state");
                }
            }
            trees.push(state.wrapping_add(usage));
        }
        // Objects/obmalloc.c. 3.10 indexes the root and the middle nodes with 10 bits each (48-bit
        // addresses), 3.11+ with 15. Addresses of processes use the lower half of the root at most.
        let bits = if python.version.at_least(3, 11) { 15 } else { 10 };
        if trees.is_empty() && python.version.at_least(3, 10) {
            let root = python.image(target).and_then(|i| i.symbol("arena_map_root"));
            trees.extend(root.or_else(|| self.search_tree(target, bits)));
        }
        trees.dedup();
        for tree in trees {
            for i in 0..1 << (bits - 1).min(9) {
                let middle = self.word(tree.wrapping_add(i * 8));
                if self.push(middle, "pymalloc radix tree") {
                    for j in 0..1 << bits {
                        let leaf = self.word(middle.wrapping_add(j * 8));
                        self.push(leaf, "pymalloc radix tree");
                    }
                }
            }
        }
    }

    /// The radix tree's root in a stripped binary: the static word from which every arena leads to a leaf
    /// in which it is marked. That alone may be chance, for an aligned arena's mark is −1; but the nodes
    /// of the real tree hold nothing else.
    fn search_tree(&mut self, target: &Target, bits: u32) -> Option<u64> {
        let roots = self.python.pymalloc_roots.first()?;
        let arenas: Vec<u64> = (0..u64::from(roots.maxarenas).min(1 << 16))
            .map(|i| self.word(roots.arenas.wrapping_add(i * 48)))
            .filter(|address| *address != 0)
            .collect();
        let first = TreePath::of(*arenas.first()?, bits);
        let mut found = None;
        let mut reader = self.reader.clone();
        for range in self.python.image(target)?.writable() {
            for_each_word(&mut self.reader.clone(), range, |at, middle| {
                if found.is_some() || middle == 0 || !middle.is_multiple_of(16) {
                    return;
                }
                let root = at.wrapping_sub(first.in_root);
                let marked = |reader: &mut Reader<'_>, path: &TreePath| path.leaf(reader, root).is_some();
                if marked(&mut reader, &first)
                    && arenas.iter().all(|arena| marked(&mut reader, &TreePath::of(*arena, bits)))
                    && first.leaf(&mut reader, root).is_some_and(|leaf| {
                        // An arena marks one unit, or two when it is not aligned.
                        let most = 2 * arenas.len();
                        let leaf_words = 1 << (leaf_bits(bits));
                        filled(&mut reader, middle, 1 << bits) <= most
                            && filled(&mut reader, leaf, leaf_words) <= most
                    })
                {
                    found = Some(root);
                }
            });
        }
        found
    }

    fn fields(&mut self, fields: &[Field], place: impl Fn(&str) -> Option<u64>) {
        for (field, shape, kind) in fields {
            let Some(at) = place(field) else { continue };
            match shape {
                Shape::Block => {
                    let block = self.word(at);
                    self.push(block, kind);
                }
                Shape::Chain => self.chain(at, kind),
                Shape::Chains(n) => (0..*n).for_each(|i| self.chain(at.wrapping_add(i * 8), kind)),
                Shape::ChainsUpTo(next) => {
                    let heads = place(next).map_or(1, |end| end.saturating_sub(at) / 8).min(8);
                    (0..heads).for_each(|i| self.chain(at.wrapping_add(i * 8), kind));
                }
                Shape::Counted => {
                    let block = self.word(at.wrapping_add(8));
                    self.push(block, kind);
                }
                Shape::Array(count) => {
                    // 3.14 has a list object there, and no count.
                    let Some(count) = place(count).and_then(|at| self.reader.u32(at).ok()) else { continue };
                    self.array(at, count, kind);
                }
                Shape::Table(entry) => {
                    let table = self.word(at);
                    self.table(table, *entry, kind);
                }
            }
        }
    }

    /// A pointer to an array of that many pointers to blocks.
    fn array(&mut self, at: u64, count: u32, kind: &'static str) {
        let array = self.word(at);
        if self.push(array, kind) {
            for i in 0..u64::from(count).min(MAX_ENTRIES) {
                let block = self.word(array.wrapping_add(i * 8));
                self.push(block, kind);
            }
        }
    }

    /// 3.7 to 3.9: the callbacks are in the state of the module, an array and their number
    /// (Modules/atexitmodule.c, `atexitmodule_state`).
    fn atexit(&mut self, interpreter: u64) {
        let table = &self.python.layout.table;
        let fields = table.offset("_is", "pyexitmodule").zip(table.offset("PyModuleObject", "md_state"));
        let Some((module, state)) = fields else { return };
        let module = self.word(interpreter.wrapping_add(module));
        if module != 0 {
            let state = self.word(module.wrapping_add(state));
            let count = self.reader.u32(state.wrapping_add(8)).unwrap_or(0);
            self.array(state, count, "atexit callbacks");
        }
    }

    fn chain(&mut self, at: u64, kind: &'static str) {
        let mut block = self.word(at);
        while (self.out.len() as u64) < MAX_ENTRIES && self.push(block, kind) {
            block = self.word(block);
        }
    }

    /// `_Py_hashtable_t` (Include/internal/pycore_hashtable.h): the structure, its bucket array, an
    /// entry {next, hash, key, value} for each member.
    fn table(&mut self, table: u64, entry: Entry, kind: &'static str) {
        if !self.push(table, kind) {
            return;
        }
        // Up to 3.8 the number of buckets came first, and entries held key and value themselves.
        let modern = self.python.version.at_least(3, 9);
        let count = self.word(table.wrapping_add(if modern { 8 } else { 0 }));
        let buckets = self.word(table.wrapping_add(16));
        if !self.push(buckets, kind) {
            return;
        }
        for i in 0..count.min(MAX_BUCKETS) {
            let Ok(mut item) = self.reader.u64(buckets.wrapping_add(i * 8)) else { break };
            while (self.out.len() as u64) < MAX_ENTRIES && self.push(item, kind) {
                let target = match entry {
                    Entry::Only => 0,
                    // ≤ 3.8: {next, hash, key bytes}: the pointer key of the traceback table is at +16 too.
                    Entry::WithKey => self.word(item.wrapping_add(16)),
                    Entry::WithValue if modern => self.word(item.wrapping_add(24)),
                    Entry::WithValue => 0,
                };
                self.push(target, kind);
                item = self.word(item);
            }
        }
    }

    /// PyConfig (3.8+; 3.7: _PyCoreConfig): wide strings, and lists of them {length, items}.
    fn config(&mut self, interpreter: u64) {
        let table = &self.python.layout.table;
        let config = table.offset("_is", "config");
        let (at, size) = match (table.offset("_is", "core_config"), config, table.size("PyConfig")) {
            (Some(core), Some(end), _) => (core, end.saturating_sub(core)),
            (None, Some(at), Some(size)) => (at, size),
            _ => return,
        };
        self.words(interpreter.wrapping_add(at), size / 8, "configuration");
    }

    /// Each word that may be a pointer; a small number before it makes it a list of so many.
    fn words(&mut self, at: u64, count: u64, kind: &'static str) {
        let mut before = 0;
        for i in 0..count.min(1 << 10) {
            let word = self.word(at.wrapping_add(i * 8));
            if word >= 1 << 16 && self.push(word, kind) && (1..=4096).contains(&before) {
                for j in 0..before {
                    let item = self.word(word.wrapping_add(j * 8));
                    if item >= 1 << 16 {
                        self.push(item, kind);
                    }
                }
            }
            before = word;
        }
    }
}
