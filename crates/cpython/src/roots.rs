//! Which allocators CPython uses, and where pymalloc keeps its arenas.

use crate::locate::for_each_word;
use crate::model::DebugPadding;
use crate::runtime::Python;
use wmr_alloc::pymalloc::Roots;
use wmr_memory::{Backing, Reader, Target};

/// What serves one of CPython's allocator domains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Mode {
    /// Not decided: the function pointers are not known, or have no name.
    #[default]
    Unknown,
    Malloc,
    MallocDebug,
    Pymalloc,
    PymallocDebug,
    Mimalloc,
    MimallocDebug,
    /// A program's own hook (`PyMem_SetAllocator`), by symbol name where it has one.
    Custom(String),
}

impl Mode {
    /// As `PYTHONMALLOC` spells it.
    pub fn name(&self) -> &str {
        match self {
            Mode::Unknown => "unknown",
            Mode::Malloc => "malloc",
            Mode::MallocDebug => "malloc_debug",
            Mode::Pymalloc => "pymalloc",
            Mode::PymallocDebug => "pymalloc_debug",
            Mode::Mimalloc => "mimalloc",
            Mode::MimallocDebug => "mimalloc_debug",
            Mode::Custom(_) => "custom",
        }
    }

    fn or(self, other: Mode) -> Mode {
        if self == Mode::Unknown { other } else { self }
    }
}

/// The allocator of each domain, and what it puts around blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allocators {
    pub raw: Mode,
    pub mem: Mode,
    pub obj: Mode,
    /// tracemalloc's hooks lie above: traces are kept beside, block layouts are unchanged.
    pub tracemalloc: bool,
    /// Padding around objects, as a known object shows it.
    pub padding: Option<DebugPadding>,
}

/// Fills in `allocators` and `pymalloc_roots`.
pub(crate) fn find(target: &Target, reader: &mut Reader<'_>, python: &mut Python) {
    let mut allocators = named(target, reader, python);
    allocators.padding = padding(reader, python);
    python.pymalloc_roots = pymalloc(target, reader, python, allocators.padding);
    // Without names: arenas in use say pymalloc, padding says debug.
    let arenas = python.pymalloc_roots.iter().any(|r| r.arenas != 0);
    let debug = allocators.padding.is_some();
    let small = match (arenas, debug) {
        (true, false) => Mode::Pymalloc,
        (true, true) => Mode::PymallocDebug,
        (false, false) => Mode::Malloc,
        (false, true) => Mode::MallocDebug,
    };
    let large = if debug { Mode::MallocDebug } else { Mode::Malloc };
    allocators.raw = allocators.raw.or(large);
    allocators.mem = allocators.mem.or(small.clone());
    allocators.obj = allocators.obj.or(small);
    python.allocators = allocators;
}

/// Reads the function pointers of the three domains and asks the images for their names.
fn named(target: &Target, reader: &mut Reader<'_>, python: &Python) -> Allocators {
    let mut allocators = Allocators::default();
    let runtime = python.layout.runtime.as_ref();
    let mut domain = |at: Option<u64>, name: &str| {
        let at = match (python.runtime, at) {
            (Some(runtime), Some(at)) => runtime.wrapping_add(at),
            // Up to 3.11: static PyMemAllocatorEx {ctx, malloc, calloc, realloc, free}.
            _ => python.image(target)?.symbol(name)?.wrapping_add(8),
        };
        let mut function = reader.u64(at).ok()?;
        let context = reader.u64(at.wrapping_sub(8)).ok()?;
        let mut symbol = function_name(target, function)?;
        if symbol.starts_with("tracemalloc_") {
            // Its context is the PyMemAllocatorEx it saved.
            allocators.tracemalloc = true;
            function = reader.u64(context.wrapping_add(8)).ok()?;
            symbol = function_name(target, function)?;
        }
        Some((symbol, debugged(reader, target, context)))
    };
    let raw = domain(runtime.and_then(|r| r.raw_malloc), "_PyMem_Raw");
    let mem = domain(runtime.and_then(|r| r.mem_malloc), "_PyMem");
    let obj = domain(runtime.and_then(|r| r.obj_malloc), "_PyObject");
    if python.version.major() == 2 {
        // 2.7 has no hooks: PyMem is malloc, PyObject is pymalloc (Objects/obmalloc.c).
        allocators.raw = Mode::Malloc;
        allocators.mem = Mode::Malloc;
        return allocators;
    }
    let mode = |found: Option<(String, Option<String>)>| match found {
        None => Mode::Unknown,
        Some((name, below)) => mode(&name, below.as_deref()),
    };
    allocators.raw = mode(raw);
    allocators.mem = mode(mem);
    allocators.obj = mode(obj);
    allocators
}

/// The function below a debug hook: its context is `debug_alloc_api_t` {char api_id; allocator}.
fn debugged(reader: &mut Reader<'_>, target: &Target, context: u64) -> Option<String> {
    let function = reader.u64(context.wrapping_add(16)).ok()?;
    function_name(target, function)
}

fn mode(function: &str, below: Option<&str>) -> Mode {
    match function {
        "_PyMem_RawMalloc" => Mode::Malloc,
        "_PyObject_Malloc" => Mode::Pymalloc,
        "_PyMem_MiMalloc" | "_PyObject_MiMalloc" => Mode::Mimalloc,
        "_PyMem_DebugRawMalloc" | "_PyMem_DebugMalloc" => match below {
            Some("_PyObject_Malloc") => Mode::PymallocDebug,
            Some("_PyMem_MiMalloc" | "_PyObject_MiMalloc") => Mode::MimallocDebug,
            _ => Mode::MallocDebug,
        },
        other => Mode::Custom(other.to_owned()),
    }
}

fn function_name(target: &Target, function: u64) -> Option<String> {
    let image = target.image(function)?;
    let (name, into) = image.symbolize(function)?;
    // A stripped image has only its exported functions: the nearest one before is not this one.
    (into == 0).then(|| name.split('.').next().unwrap_or(name).to_owned())
}

/// Padding as `sys.__dict__`'s own allocation shows it: api letter `o`, then seven forbidden bytes,
/// right before the GC head (Objects/obmalloc.c, `_PyMem_DebugRawAlloc`).
fn padding(reader: &mut Reader<'_>, python: &Python) -> Option<DebugPadding> {
    let object = python.main()?.sysdict;
    let data = object.wrapping_sub(python.gc.head_size);
    let head = reader.array::<16>(data.wrapping_sub(16)).ok()?;
    let requested = u64::from_be_bytes(head[..8].try_into().ok()?);
    let forbidden = head[9];
    if !matches!(head[8], b'o' | b'm' | b'r')
        || !matches!(forbidden, 0xfb | 0xfd)
        || head[9..].iter().any(|b| *b != forbidden)
        || requested != python.gc.head_size.wrapping_add(python.layout.dict.size)
    {
        return None;
    }
    // The serial number went in 3.8 (PYMEM_DEBUG_SERIALNO).
    let serial = if python.version.at_least(3, 8) { 0 } else { 8 };
    Some(DebugPadding { before: 16, overhead: 24 + serial, forbidden })
}

/// Every distinct obmalloc state.
fn pymalloc(
    target: &Target,
    reader: &mut Reader<'_>,
    python: &mut Python,
    padding: Option<DebugPadding>,
) -> Vec<Roots> {
    let layout = &python.layout;
    let mut roots: Vec<Roots> = Vec::new();
    if let (Some(obmalloc), Some(state), Some(mgmt)) =
        (layout.interpreter.obmalloc, &layout.obmalloc_state, &layout.obmalloc_mgmt)
    {
        for interpreter in &python.interpreters {
            let at = interpreter.addr.wrapping_add(obmalloc);
            // Inline in 3.12, a pointer to the state from 3.13 on.
            let inline = !python.version.at_least(3, 13);
            let Ok(base) = (if inline { Ok(at) } else { reader.u64(at) }) else { continue };
            let at = base.wrapping_add(state.mgmt);
            let (Ok(arenas), Ok(maxarenas)) =
                (reader.u64(at.wrapping_add(mgmt.arenas)), reader.u32(at.wrapping_add(mgmt.maxarenas)))
            else {
                continue;
            };
            let found = Roots { arenas, maxarenas };
            // A legacy subinterpreter of 3.12 uses the main one's and has zeroes.
            if arenas == 0 || roots.contains(&found) {
                continue;
            }
            if is_arena_array(target, reader, arenas) {
                roots.push(found);
            } else {
                python.notes.push(format!(
                    "what should be pymalloc's arenas at {arenas:#x} are none: the layout does not hold, their blocks are not counted"
                ));
            }
        }
        return roots;
    }
    let statics = python.image(target).and_then(|image| {
        let arenas = reader.u64(image.symbol("arenas")?).ok()?;
        let maxarenas = reader.u32(image.symbol("maxarenas")?).ok()?;
        Some(Roots { arenas, maxarenas })
    });
    match statics.or_else(|| search(target, python, padding)) {
        Some(found) if found.arenas != 0 => vec![found],
        Some(_) => Vec::new(),
        None => {
            python.notes.push(
                "pymalloc's arenas were not found: the binary is stripped, or it runs without pymalloc"
                    .into(),
            );
            Vec::new()
        }
    }
}

/// Entries of `arena_object[16]` that are looked at: the array's first size (INITIAL_ARENA_OBJECTS).
const FIRST_ARENAS: u64 = 16;
const ARENA_OBJECT: u64 = 48;

/// Finds the arena array of a stripped binary by its shape: a static that points at it, among the
/// writable data of the runtime's image. `maxarenas` then comes from the malloc chunk it lies in.
fn search(target: &Target, python: &Python, padding: Option<DebugPadding>) -> Option<Roots> {
    let image = python.image(target)?;
    let mut reader = target.reader();
    let mut best: Option<u64> = None;
    for range in image.writable() {
        for_each_word(&mut reader.clone(), range, |_, word| {
            // `usable_arenas` and its like point inside the array: the lowest hit is its start.
            if word != 0
                && word.is_multiple_of(8)
                && best.is_none_or(|b| word < b)
                && !image.contains(word)
                && target.mapping(word).is_some()
                && is_arena_array(target, &mut reader, word)
            {
                best = Some(word);
            }
        });
    }
    let arenas = best?;
    // The array is one glibc chunk: its size word precedes it. Under debug padding the size asked for
    // does, big-endian, and the padding.
    let bytes = match padding {
        Some(pad) => u64::from_be_bytes(reader.array(arenas.wrapping_sub(pad.before)).ok()?),
        None => (reader.u64(arenas.wrapping_sub(8)).ok()? & !7).checked_sub(8)?,
    };
    let maxarenas = u32::try_from(bytes / ARENA_OBJECT).ok()?;
    Some(Roots { arenas, maxarenas })
}

/// Does an array of `arena_object` start here? Arenas are 256 KiB or 1 MiB, 2 MiB as an option of 3.15.
pub(crate) fn is_arena_array(target: &Target, reader: &mut Reader<'_>, at: u64) -> bool {
    let mut used = 0;
    for i in 0..FIRST_ARENAS {
        let entry = at.wrapping_add(i * ARENA_OBJECT);
        let Ok(bytes) = reader.array::<{ ARENA_OBJECT as usize }>(entry) else { return false };
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
        let (address, pool, free, total) = (word(0), word(8), half(16), half(20));
        if address == 0 {
            continue;
        }
        let plausible = pool.is_multiple_of(4096)
            && address < pool
            && pool - address <= 2 << 20
            && free <= total
            && matches!(total, 63 | 64 | 127 | 128)
            && target.mapping(address).is_some_and(|m| m.perms.write && m.backing != Backing::File);
        if !plausible {
            return false;
        }
        used += 1;
    }
    used > 0
}
