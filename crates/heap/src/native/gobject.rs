//! Instances of GLib's type system by the name of their type.
//!
//! An instance begins with its class, a class with its type, and a type that is no fundamental one is the
//! address of a `TypeNode`, which has itself as the first of its `supers` and leads back to the class
//! (`gobject/gtype.c`). The circle closes by no chance. The name is a quark: an index into one array of libglib.
//!
//! Up to 2.74 instances are cut from pages (`glib/gslice.c`), which malloc knows as one block each.

use super::Native;
use crate::kinds::{Domain, Sure};
use rustc_hash::FxHashMap;
use wmr_alloc::Block;
use wmr_memory::{Image, Reader};

pub(super) const PIXELS: &str = "GdkPixbuf pixels";

/// `struct _TypeNode`.
const NODE_DATA: u64 = 32;
const NODE_NAME: u64 = 40;
const NODE_SUPERS: u64 = 72;
/// `InstanceData`: the class, then sizes of an instance and of what comes ahead of it.
const DATA_CLASS: u64 = 56;
const DATA_INSTANCE_SIZE: u64 = 64;
const DATA_PRIVATE_SIZE: u64 = 66;
/// `struct _GdkPixbuf`: where the pixels are.
const PIXBUF_PIXELS: u64 = 56;

/// Largest fundamental type: those are numbers.
const FUNDAMENTAL_MAX: u64 = 255 << 2;
const MAX_QUARK: u64 = 1 << 20;
const MAX_NAME: usize = 128;
/// Bytes of a block that are looked at for an instance behind its private data.
const MAX_PRIVATE: u64 = 4096;
/// `SlabInfo` near a page's end, where malloc's padding follows it, and sizes of such pages.
const SLAB_INFO: u64 = 48;
const SLAB_PAGES: [u64; 9] = [128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768];

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Type {
    quark: u32,
    private: u16,
    size: u16,
}

/// Nodes of fundamental types.
type Roots = FxHashMap<u64, u64>;

struct Instance {
    addr: u64,
    ty: Type,
}

impl Native<'_> {
    /// Names instances and the pages they are cut from; returns what their fields may be followed from.
    pub(super) fn name_gobjects(&mut self) -> Vec<u32> {
        let image = |name: &str| self.target.images.iter().find(|image| image.symbol(name).is_some());
        let Some((gobject, glib)) = image("g_type_create_instance").zip(image("g_quark_from_string")) else {
            return Vec::new();
        };
        let roots = self.fundamental(gobject);
        let found = self.ask_open(|reader, block| self.instances(reader, block, &roots));
        let mut quarks: Vec<u64> =
            found.iter().flat_map(|(_, (_, list))| list).map(|i| u64::from(i.ty.quark)).collect();
        quarks.sort_unstable();
        quarks.dedup();
        let mut reader = self.target.reader();
        let writable: Vec<_> = glib.writable().collect();
        let names = writable.into_iter().find_map(|range| names(&mut reader, range, &quarks));
        let Some(names) = names.filter(|names| !names.is_empty()) else { return Vec::new() };
        let mut sources = Vec::new();
        for (block, (slab, list)) in found {
            let name = |ty: &Type| names.get(&u64::from(ty.quark)).map_or("?", String::as_str);
            let kind = if slab {
                let mut counts: FxHashMap<&str, u32> = FxHashMap::default();
                list.iter().for_each(|i| *counts.entry(name(&i.ty)).or_default() += 1);
                let most = counts.into_iter().max_by_key(|(name, count)| (*count, *name));
                let detail = most.map_or_else(String::new, |(name, _)| format!("of {name}"));
                self.census.kinds.intern(Domain::Native, "GSlice page", &detail, Sure::Signature)
            } else {
                let Some(first) = list.first() else { continue };
                let name = format!("GType {}", name(&first.ty));
                self.intern(Domain::Native, &name, Sure::Signature)
            };
            self.set(block, kind);
            sources.push(block);
            for instance in list {
                let name = names.get(&u64::from(instance.ty.quark)).map_or("?", String::as_str);
                self.fields_of(&mut reader, &roots, &instance, name, &mut sources);
            }
        }
        sources
    }

    /// What the fields of an instance point to is its data.
    fn fields_of(
        &mut self,
        reader: &mut Reader,
        roots: &Roots,
        instance: &Instance,
        name: &str,
        sources: &mut Vec<u32>,
    ) {
        let start = instance.addr.saturating_sub(u64::from(instance.ty.private));
        let end = instance.addr.saturating_add(u64::from(instance.ty.size));
        let data = self.intern(Domain::Native, &format!("data of GType {name}"), Sure::Owner);
        // The class is everybody's.
        for at in (start..end).step_by(8).filter(|at| *at != instance.addr) {
            let Ok(word) = reader.u64(at) else { break };
            let Some(to) = self.blocks.at(word).filter(|to| self.census.mark(*to).is_none()) else {
                continue;
            };
            if self.instances(reader, self.blocks.block(to), roots).is_some() {
                continue;
            }
            if name == "GdkPixbuf" && at == instance.addr + PIXBUF_PIXELS {
                let pixels = self.intern(Domain::Native, PIXELS, Sure::Owner);
                self.set(to, pixels);
                continue;
            }
            self.set(to, data);
            sources.push(to);
        }
    }

    /// The instances in a block, and whether it is a page they are cut from.
    fn instances(&self, reader: &mut Reader, block: Block, roots: &Roots) -> Option<(bool, Vec<Instance>)> {
        if let Some(page) = SLAB_PAGES.into_iter().find(|size| is_slab(reader, block, *size)) {
            let at = (block.start..block.start + page - SLAB_INFO).step_by(16);
            let list = at.filter_map(|addr| Some(Instance { addr, ty: self.type_at(reader, addr, roots)? }));
            return Some((true, list.collect()));
        }
        let end = block.start + block.usable.min(MAX_PRIVATE);
        let mut at = (block.start..end.saturating_sub(8)).step_by(8);
        at.find_map(|addr| {
            let ty = self.type_at(reader, addr, roots)?;
            // Ahead of it are its private data and nothing else, behind it nothing.
            let ahead = addr - block.start == u64::from(ty.private);
            let fits = addr + u64::from(ty.size) <= block.start + block.usable;
            (ahead && fits).then(|| (false, vec![Instance { addr, ty }]))
        })
    }

    /// Nodes of fundamental types by number: libgobject has an array of them.
    fn fundamental(&self, gobject: &Image) -> Roots {
        let mut reader = self.target.reader();
        let mut roots = Roots::default();
        for range in gobject.writable() {
            for at in (range.start.next_multiple_of(8)..range.end).step_by(8) {
                let Ok(node) = reader.u64(at) else { continue };
                if self.blocks.containing(node).is_none() {
                    continue;
                }
                let id = reader.u64(node.wrapping_add(NODE_SUPERS)).unwrap_or(0);
                if id > 0 && id <= FUNDAMENTAL_MAX && id.is_multiple_of(4) {
                    roots.entry(id).or_insert(node);
                }
            }
        }
        roots
    }

    /// The type of the instance at an address.
    fn type_at(&self, reader: &mut Reader, addr: u64, roots: &Roots) -> Option<Type> {
        let class = reader.u64(addr).ok()?;
        self.blocks.at(class)?;
        let id = reader.u64(class).ok()? & !3;
        let node = if id <= FUNDAMENTAL_MAX { *roots.get(&id)? } else { id };
        self.blocks.containing(node)?;
        let mut field = |at: u64| reader.u64(node.wrapping_add(at)).ok();
        let (data, name, own) = (field(NODE_DATA)?, field(NODE_NAME)?, field(NODE_SUPERS)?);
        if own != id || reader.u64(data.wrapping_add(DATA_CLASS)) != Ok(class) {
            return None;
        }
        let mut half = |at: u64| {
            let bytes = reader.array::<2>(data.wrapping_add(at)).ok()?;
            Some(u16::from_le_bytes(bytes))
        };
        let (size, private) = (half(DATA_INSTANCE_SIZE)?, half(DATA_PRIVATE_SIZE)?);
        let quark = name as u32;
        (size >= 8 && u64::from(quark) < MAX_QUARK).then_some(Type { quark, private, size })
    }
}

/// A page of GSlice: at its end a ring of such pages goes on, and comes back.
fn is_slab(reader: &mut Reader, block: Block, page: u64) -> bool {
    // What malloc keeps for itself is left at the page's end (`NATIVE_MALLOC_PADDING`).
    if !block.start.is_multiple_of(page) || block.usable < page - 16 {
        return false;
    }
    let info = block.start + page - SLAB_INFO;
    let mut word = |at: u64| reader.u64(at).ok();
    let mut ring = || {
        let (chunks, next, prev) = (word(info)?, word(info + 16)?, word(info + 24)?);
        let inside = chunks == 0 || (block.start..info).contains(&chunks);
        let slab = |at: u64| at % page == page - SLAB_INFO;
        Some(inside && slab(next) && slab(prev) && word(next + 24)? == info && word(prev + 16)? == info)
    };
    ring().unwrap_or(false)
}

/// Names of quarks, by the array that libglib keeps them in: nobody is 0, and whoever is asked for is a
/// type's name.
fn names(reader: &mut Reader, range: std::ops::Range<u64>, quarks: &[u64]) -> Option<FxHashMap<u64, String>> {
    let mut at = range.start.next_multiple_of(8);
    while at < range.end {
        let array = reader.u64(at);
        at += 8;
        let Ok(array) = array else { continue };
        if array == 0 || !array.is_multiple_of(8) || reader.u64(array) != Ok(0) {
            continue;
        }
        let name = |quark: u64| {
            let text = reader.u64(array.wrapping_add(8 * quark)).ok().filter(|text| *text != 0)?;
            let text = String::from_utf8(reader.cstr(text, MAX_NAME).ok()?).ok()?;
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-+".contains(c);
            let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            (first && text.len() >= 3 && text.chars().all(plain)).then_some((quark, text))
        };
        let found: Option<FxHashMap<u64, String>> = quarks.iter().copied().map(name).collect();
        if found.is_some() {
            return found;
        }
    }
    None
}
