//! C++ objects: the first word of the block is the address of a vtable, and that knows its class. In an array
//! of objects with a destructor `new` puts their number ahead of the first one (Itanium C++ ABI, 2.7).
//!
//! Ahead of a vtable are the offset to the top of the object, 0 for what begins a block, and the
//! `type_info`, which has the mangled name of the class (Itanium C++ ABI, 2.5 and 2.9). Without RTTI the
//! vtable's symbol has it.

use super::Native;
use crate::kinds::{Domain, Sure};
use cpp_demangle::{DemangleOptions, Symbol};
use rustc_hash::{FxHashMap, FxHashSet};
use wmr_alloc::Block;
use wmr_memory::Reader;

/// A block that begins with a C++ object, or holds an array of them.
pub(super) struct CppObject {
    pub block: u32,
    pub class: String,
}

/// Longest mangled name that is read: templates of templates grow long.
const MAX_NAME: usize = 2048;
/// Longest name shown; what follows are template arguments.
const MAX_CLASS: usize = 160;
/// Nested template arguments demangle to exponentially more: no deeper than this.
const MAX_DEPTH: u32 = 64;

impl Native<'_> {
    /// Names C++ objects by class; returns them in address order.
    pub(super) fn name_cpp(&mut self) -> Vec<CppObject> {
        // The first look is only whether it may be: few blocks begin with an address in an image.
        let candidates = self.ask_open(|reader, block| {
            let is_table =
                |word: u64| word.is_multiple_of(8) && self.images.at(word).is_some_and(|(_, exec)| !exec);
            let first = reader.u64(block.start).ok()?;
            if is_table(first) {
                return Some((first, false));
            }
            array_of(reader, block, first).filter(|table| is_table(*table)).map(|table| (table, true))
        });
        let mut reader = self.target.reader();
        let tables: FxHashSet<u64> = candidates.iter().map(|(_, (table, _))| *table).collect();
        let classes: FxHashMap<u64, String> =
            tables.into_iter().filter_map(|table| Some((table, self.class(&mut reader, table)?))).collect();
        let mut out = Vec::new();
        for (block, (table, is_array)) in candidates {
            let Some(class) = classes.get(&table) else { continue };
            let class = if is_array { format!("{class}[]") } else { class.clone() };
            let kind = self.intern(Domain::Native, &format!("C++ {class}"), Sure::Signature);
            self.set(block, kind);
            out.push(CppObject { block, class });
        }
        out
    }

    /// The class whose primary vtable is at `table`.
    pub(super) fn class(&self, reader: &mut Reader, table: u64) -> Option<String> {
        let (image, exec) = self.images.at(table)?;
        let ahead = table.wrapping_sub(16);
        if exec || self.images.at(ahead).is_none() || reader.u64(ahead) != Ok(0) {
            return None;
        }
        // A pure virtual function is one too; a slot that was left out is zero.
        let first = reader.u64(table).ok()?;
        if first != 0 && !self.images.at(first).is_some_and(|(_, exec)| exec) {
            return None;
        }
        let info = reader.u64(table.wrapping_sub(8)).ok()?;
        if info == 0 {
            let (symbol, 16) = image.symbolize(table)? else { return None };
            return demangled(symbol, "vtable for ");
        }
        self.images.at(info).filter(|(_, exec)| !exec)?;
        let of_info = reader.u64(info).ok()?;
        self.images.at(of_info).filter(|(_, exec)| !exec)?;
        let name = reader.u64(info.wrapping_add(8)).ok()?;
        self.images.at(name)?;
        let name = String::from_utf8(reader.cstr(name, MAX_NAME).ok()?).ok()?;
        // A star marks names that are compared by address.
        let name = name.strip_prefix('*').unwrap_or(&name);
        demangled(&format!("_ZTS{name}"), "typeinfo name for ")
    }
}

/// The word at the beginning of each of `count` objects behind that number: of two at least, as one alone
/// shows nothing.
fn array_of(reader: &mut Reader, block: Block, count: u64) -> Option<u64> {
    const COOKIE: u64 = 8;
    /// malloc's rounding.
    const SLACK: u64 = 24;
    let room = block.usable.checked_sub(COOKIE)?;
    if !(2..=room / 8).contains(&count) {
        return None;
    }
    let (least, most) = (room.saturating_sub(SLACK).div_ceil(count), room / count);
    let first = reader.u64(block.start + COOKIE).ok()?;
    let size = (least.next_multiple_of(8)..=most).step_by(8).find(|size| {
        let mut all = (1..count.min(8)).chain([count - 1]);
        all.all(|n| reader.u64(block.start + COOKIE + n * size) == Ok(first))
    });
    size.map(|_| first)
}

/// The class in a mangled name, without the words the demangler puts ahead of it.
fn demangled(symbol: &str, prefix: &str) -> Option<String> {
    let options = DemangleOptions::new().recursion_limit(MAX_DEPTH);
    let full = Symbol::new(symbol).ok()?.demangle_with_options(&options).ok()?;
    // The demangler writes `{vtable(Foo)}` for what others call the vtable for Foo.
    let braced = || full.strip_prefix("{vtable(")?.strip_suffix(")}");
    let class = full.strip_prefix(prefix).or_else(|| braced().filter(|_| prefix == "vtable for "))?;
    // `shared_ptr` keeps object and counts in one block: the object is what matters.
    let inner = class.strip_prefix("std::_Sp_counted_ptr_inplace<").map(first_argument);
    let mut class = inner.unwrap_or(class).to_owned();
    if class.len() > MAX_CLASS {
        let end = (0..=MAX_CLASS).rev().find(|at| class.is_char_boundary(*at)).unwrap_or(0);
        class.truncate(end);
        class.push('…');
    }
    (!class.is_empty()).then_some(class)
}

/// The first of a template's arguments.
fn first_argument(arguments: &str) -> &str {
    let mut depth = 0u32;
    let end = arguments.char_indices().find_map(|(at, c)| {
        match c {
            '<' | '(' => depth += 1,
            '>' | ')' if depth > 0 => depth -= 1,
            ',' | '>' if depth == 0 => return Some(at),
            _ => {}
        }
        None
    });
    &arguments[..end.unwrap_or(arguments.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_named_as_in_the_source() {
        let class = |name: &str| demangled(&format!("_ZTS{name}"), "typeinfo name for ");
        assert_eq!(class("3Foo").as_deref(), Some("Foo"));
        assert_eq!(class("N5arrow6BufferE").as_deref(), Some("arrow::Buffer"));
        let shared = "St23_Sp_counted_ptr_inplaceI3FooSaI3FooELN9__gnu_cxx12_Lock_policyE2EE";
        assert_eq!(class(shared).as_deref(), Some("Foo"));
        assert_eq!(demangled("_ZTV3Bar", "vtable for ").as_deref(), Some("Bar"));
        assert_eq!(class("\u{1b}["), None);
        assert_eq!(demangled("_ZN3Foo3barEv", "vtable for "), None);
    }
}
