//! The names: what a byte can be.

use rustc_hash::FxHashMap;

/// The first part of a name: whose the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// Objects; the kind is the type's qualified name.
    Python,
    /// What the interpreter keeps for objects and for itself: tables, items, free lists, frames.
    CPython,
    /// pymalloc's own: pool headers, free blocks and pools, what alignment loses.
    Pymalloc,
    /// malloc's own: free chunks, caches, the top, headers.
    Malloc,
    /// What libraries hold.
    Native,
    /// Code and data of ELF files.
    Image,
    Stack,
    /// Mapped files that are no images.
    File,
    /// Shared memory.
    Shm,
    /// In use, and nobody known to hold it.
    Unknown,
}

impl Domain {
    pub const ALL: [Domain; 10] = [
        Domain::Python,
        Domain::CPython,
        Domain::Pymalloc,
        Domain::Malloc,
        Domain::Native,
        Domain::Image,
        Domain::Stack,
        Domain::File,
        Domain::Shm,
        Domain::Unknown,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Domain::Python => "python",
            Domain::CPython => "cpython",
            Domain::Pymalloc => "pymalloc",
            Domain::Malloc => "malloc",
            Domain::Native => "native",
            Domain::Image => "image",
            Domain::Stack => "stack",
            Domain::File => "file",
            Domain::Shm => "shm",
            Domain::Unknown => "unknown",
        }
    }

    /// Does it count for the heap-only figure? Everything but images, files, stacks and shared memory.
    pub fn is_heap(self) -> bool {
        !matches!(self, Domain::Image | Domain::File | Domain::Stack | Domain::Shm)
    }
}

/// How sure a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sure {
    /// Allocator state, a verified object, or a part its owner has in a known field.
    Exact,
    /// Something known points at its start, from a field that is not known.
    Owner,
    Signature,
    Guess,
}

impl Sure {
    pub fn name(self) -> &'static str {
        match self {
            Sure::Exact => "exact",
            Sure::Owner => "owner",
            Sure::Signature => "signature",
            Sure::Guess => "guess",
        }
    }
}

/// Index into [`Kinds`].
pub type KindId = u32;

/// A full name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    pub domain: Domain,
    pub kind: String,
    pub detail: String,
    pub sure: Sure,
}

/// The interned table of names. Id 0 is "unknown".
#[derive(Debug, Clone)]
pub struct Kinds {
    list: Vec<Kind>,
    ids: FxHashMap<Kind, KindId>,
}

impl Kinds {
    pub const UNKNOWN: KindId = 0;

    pub fn get(&self, id: KindId) -> &Kind {
        &self.list[id as usize]
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn intern(&mut self, domain: Domain, kind: &str, detail: &str, sure: Sure) -> KindId {
        let key = Kind { domain, kind: kind.to_owned(), detail: detail.to_owned(), sure };
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let id = self.list.len() as KindId;
        self.list.push(key.clone());
        self.ids.insert(key, id);
        id
    }
}

impl Default for Kinds {
    fn default() -> Self {
        let mut kinds = Kinds { list: Vec::new(), ids: FxHashMap::default() };
        kinds.intern(Domain::Unknown, "unknown", "", Sure::Exact);
        kinds
    }
}
