//! The cyclic collector's lists: which objects are tracked, and by which generation.

use crate::layout::Layout;
use crate::runtime::Python;
use rustc_hash::FxHashSet;
use wmr_memory::{Fault, Reader, Target};

/// Which list of the collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// 0, 1, 2. 3.14.0 to 3.14.4 keep young, old, old here.
    Young(u8),
    /// What `gc.freeze()` set aside (3.7+); 3.12 also moves immortal tracked objects here.
    Permanent,
}

/// Head of one circular list. Per interpreter from 3.9 on, of the process before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcList {
    /// Address of the `PyInterpreterState`; 0 when the list serves all.
    pub interpreter: u64,
    pub generation: Generation,
    /// Address of the list head, itself a `PyGC_Head`.
    pub head: u64,
}

/// How a list walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Back at the head.
    Whole,
    /// A node came twice before the head did.
    Cycle,
    /// A link could not be read.
    Broken(Fault),
    /// More nodes than the caller would take.
    Cut,
}

/// Where the collector keeps what it tracks, and how an object says that it is tracked.
#[derive(Debug, Clone, Default)]
pub struct Gc {
    /// Bytes of `PyGC_Head` before a tracked object: 32 (2.7, 3.6, 3.7), 24 (early patch levels of
    /// them), 16 from 3.8 on. Taken from a tracked object of the target.
    pub head_size: u64,
    pub lists: Vec<GcList>,
    /// A collection was running: `gc_prev` holds reference counts, only `gc_next` can be followed.
    pub collecting: bool,
    marker: Marker,
}

/// How an untracked object's head looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Marker {
    /// 3.8+: `_gc_next` is 0.
    #[default]
    NextIsNull,
    /// 3.6, 3.7: `gc_refs >> 1` is −2; bit 0 says finalised.
    ShiftedRefs,
    /// 2.7: `gc_refs` is −2.
    Refs,
}

/// `_PyGC_REFS_UNTRACKED` / `GC_UNTRACKED` (Modules/gcmodule.c up to 3.7).
const UNTRACKED: i64 = -2;
/// Flag bits that pointers of a GC head carry: `_PyGC_PREV_MASK_FINALIZED`, `_COLLECTING`; 3.14.0 to
/// 3.14.4 mark the old space in `_gc_next` too.
const FLAGS: u64 = 3;

impl Gc {
    pub(crate) fn find(target: &Target, reader: &mut Reader<'_>, python: &mut Python) -> Gc {
        let mut gc = Gc {
            head_size: python.layout.gc_head.size,
            lists: Vec::new(),
            collecting: false,
            marker: match (python.layout.gc_head.gc_next, python.version.major()) {
                (Some(_), _) => Marker::NextIsNull,
                (None, 2) => Marker::Refs,
                (None, _) => Marker::ShiftedRefs,
            },
        };
        gc.find_lists(target, reader, python);
        // A head that its neighbour does not point back at is no head: a layout that does not hold.
        if !gc.collecting && gc.lists.iter().any(|l| !intact(reader, l.head).unwrap_or(false)) {
            gc.lists.clear();
        }
        if gc.lists.is_empty() {
            python.notes.push("the garbage collector's lists were not found: tracking is not checked".into());
        }
        gc.derive_head_size(reader, python);
        gc
    }

    fn find_lists(&mut self, target: &Target, reader: &mut Reader<'_>, python: &Python) {
        let layout = &python.layout;
        if let (Some(generations), Some(permanent)) =
            (layout.interpreter.gc_generations, layout.interpreter.gc_permanent)
        {
            for i in &python.interpreters {
                self.add(
                    reader,
                    layout,
                    i.addr,
                    i.addr.wrapping_add(generations),
                    Some(i.addr.wrapping_add(permanent)),
                );
                self.collecting |= collecting(reader, layout, i.addr.wrapping_add(generations));
            }
        } else if let Some(runtime) = python.runtime
            && let Some(at) = layout.runtime.as_ref().and_then(|r| r.gc_generations)
        {
            let generations = runtime.wrapping_add(at);
            let permanent = layout
                .gc_state
                .as_ref()
                .map(|gc| generations.wrapping_add(gc.permanent_generation).wrapping_sub(gc.generations));
            self.add(reader, layout, 0, generations, permanent);
            self.collecting |= collecting(reader, layout, generations);
        } else if let Some(image) = python.image(target) {
            // `generations` is static; the exported `_PyGC_generation0` points at its first head.
            let head = image
                .symbol("_PyGC_generation0")
                .and_then(|at| reader.u64(at).ok())
                .or_else(|| image.symbol("generations"));
            if let Some(head) = head.filter(|h| image.contains(*h)) {
                self.add(reader, layout, 0, head, None);
            }
            if let Some(at) = image.symbol("collecting") {
                self.collecting |= reader.u32(at).is_ok_and(|word| word != 0);
            }
        }
    }

    fn add(
        &mut self,
        reader: &mut Reader<'_>,
        layout: &Layout,
        interpreter: u64,
        generations: u64,
        permanent: Option<u64>,
    ) {
        let stride = generation_stride(reader, layout, generations);
        for i in 0..3 {
            let head = generations.wrapping_add(u64::from(i) * stride);
            self.lists.push(GcList { interpreter, generation: Generation::Young(i), head });
        }
        if let Some(head) = permanent {
            self.lists.push(GcList { interpreter, generation: Generation::Permanent, head });
        }
    }

    /// Patch levels of one minor differ (24 and 32 bytes within 3.7), so the head's size is taken
    /// from a tracked object: `sys.modules` and `sys.__dict__` always are.
    fn derive_head_size(&mut self, reader: &mut Reader<'_>, python: &mut Python) {
        if self.marker == Marker::NextIsNull {
            return;
        }
        let known = python.interpreters.iter().flat_map(|i| [i.modules, i.sysdict]);
        let fits = |reader: &mut Reader<'_>, object: u64, size: u64| -> Result<bool, Fault> {
            let node = object.wrapping_sub(size);
            let next = reader.u64(node)?;
            let prev = reader.u64(node.wrapping_add(8))?;
            Ok(reader.u64(next.wrapping_add(8))? == node && reader.u64(prev)? == node)
        };
        for object in known.filter(|o| *o != 0) {
            for size in [32, 24, 16] {
                if fits(reader, object, size).unwrap_or(false) {
                    self.head_size = size;
                    return;
                }
            }
        }
        python.notes.push(format!(
            "no tracked object tells the size of a GC head: {} bytes taken from the table",
            self.head_size
        ));
    }

    /// Is the object tracked by the collector? Only for objects of a type with `Py_TPFLAGS_HAVE_GC`.
    #[inline]
    pub fn is_tracked(&self, reader: &mut Reader<'_>, object: u64) -> Result<bool, Fault> {
        let head = object.wrapping_sub(self.head_size);
        Ok(match self.marker {
            Marker::NextIsNull => reader.u64(head)? != 0,
            Marker::ShiftedRefs => reader.i64(head.wrapping_add(16))? >> 1 != UNTRACKED,
            Marker::Refs => reader.i64(head.wrapping_add(16))? != UNTRACKED,
        })
    }

    /// Does this GC head, `head_size` bytes of it, belong to a tracked object?
    #[inline]
    pub fn head_is_tracked(&self, head: &[u8]) -> bool {
        let word = |at: usize| head.get(at..at + 8).and_then(|b| b.try_into().ok()).map(i64::from_le_bytes);
        match self.marker {
            Marker::NextIsNull => word(0).is_some_and(|w| w != 0),
            Marker::ShiftedRefs => word(16).is_some_and(|w| w >> 1 != UNTRACKED),
            Marker::Refs => word(16).is_some_and(|w| w != UNTRACKED),
        }
    }

    /// Calls `f` with each object of a list, at most `limit` of them.
    pub fn for_each(
        &self,
        reader: &mut Reader<'_>,
        list: &GcList,
        limit: usize,
        mut f: impl FnMut(u64),
    ) -> Ended {
        // Brent's algorithm finds a loop that misses the head without remembering every node.
        let (mut mark, mut power, mut steps) = (list.head, 1usize, 0usize);
        let mut node = match reader.u64(list.head) {
            Ok(next) => next & !FLAGS,
            Err(fault) => return Ended::Broken(fault),
        };
        for _ in 0..limit {
            if node == list.head {
                return Ended::Whole;
            }
            if node == mark {
                return Ended::Cycle;
            }
            if steps == power {
                (mark, power, steps) = (node, power.saturating_mul(2), 0);
            }
            steps += 1;
            match reader.u64(node) {
                Ok(next) => {
                    f(node.wrapping_add(self.head_size));
                    node = next & !FLAGS;
                }
                Err(fault) => return Ended::Broken(fault),
            }
        }
        if node == list.head { Ended::Whole } else { Ended::Cut }
    }

    /// Objects in the permanent generations: `gc.get_objects()` leaves them out.
    pub fn permanent(&self, reader: &mut Reader<'_>, limit: usize) -> FxHashSet<u64> {
        let mut objects = FxHashSet::default();
        for list in self.lists.iter().filter(|l| l.generation == Generation::Permanent) {
            self.for_each(reader, list, limit.saturating_sub(objects.len()), |o| {
                objects.insert(o);
            });
        }
        objects
    }
}

/// Bytes of `struct gc_generation`: a list head and two ints, 24 from 3.8 on. Before that it follows
/// the alignment of the union `PyGC_Head` (40 on 2.7.18, 48 on 3.6.15 and 3.7.16), so that a table of
/// another patch level is not to be trusted: an intact head is pointed back at by its neighbour.
fn generation_stride(reader: &mut Reader<'_>, layout: &Layout, generations: u64) -> u64 {
    const SHAPES: [u64; 4] = [48, 40, 32, 24];
    if layout.gc_head.gc_next.is_some() {
        return layout.gc_head.size + 8;
    }
    let fits = |reader: &mut Reader<'_>, stride: u64| {
        (1..3).all(|i| intact(reader, generations.wrapping_add(i * stride)).unwrap_or(false))
    };
    SHAPES.into_iter().find(|s| fits(reader, *s)).unwrap_or(layout.gc_head.size + 8)
}

/// Does the first node of the list, or the head itself when it is empty, point back at the head?
fn intact(reader: &mut Reader<'_>, head: u64) -> Result<bool, Fault> {
    let next = reader.u64(head)? & !FLAGS;
    Ok(reader.u64(next.wrapping_add(8))? & !FLAGS == head)
}

fn collecting(reader: &mut Reader<'_>, layout: &Layout, generations: u64) -> bool {
    let Some(gc) = &layout.gc_state else { return false };
    let at = generations.wrapping_sub(gc.generations).wrapping_add(gc.collecting);
    reader.u32(at).is_ok_and(|word| word != 0)
}
