//! What inspectors ask of single objects.

use super::origin::{Origin, Origins};
use crate::anatomy::Anatomy;
use crate::census::bases;
use crate::graph::Reach;
use crate::held::Held;
use wmr_cpython::family::Family;
use wmr_cpython::frames::Code;
use wmr_cpython::model::Model;
use wmr_cpython::refers::{Name, Strength, Via};
use wmr_cpython::types::Type;

pub struct View<'h> {
    pub held: &'h Held<'h>,
    pub reach: &'h Reach,
    pub model: &'h Model,
    pub origins: Origins,
}

/// References of one object that are gone through for an attribute.
const MAX_ATTRIBUTES: usize = 4096;

impl<'h> View<'h> {
    pub fn new(held: &'h Held<'h>, reach: &'h Reach) -> Option<View<'h>> {
        let model = held.inspection.model.as_ref()?;
        Some(View { held, reach, model, origins: Origins::find(held.target, held.inspection) })
    }

    /// Whose code a running frame is: counted from the innermost of the thread whose state is at that address.
    pub fn origin_of_frame(&self, thread: u64, index: u32) -> Option<Origin> {
        let stack = self.held.inspection.stacks.iter().find(|stack| stack.thread.addr == thread)?;
        let frame = stack.walk.frames.get(index as usize)?;
        let code = Code::read(self.model, &mut self.held.target.reader(), frame.code);
        Some(self.origins.of_file(&code.file))
    }

    pub fn type_of(&self, node: u32) -> Option<&'h Type> {
        self.held.type_of(node)
    }

    pub fn addr(&self, node: u32) -> Option<u64> {
        self.held.addr(&mut self.held.target.reader(), node)
    }

    /// Is it an instance of a type of that name, or of one derived from it?
    pub fn is_a(&self, node: u32, name: &str) -> bool {
        self.type_of(node).is_some_and(|ty| self.derives(ty, |base| base == name))
    }

    /// Does `f` say yes to the name of the type or of one of its bases?
    pub fn derives(&self, ty: &Type, f: impl Fn(&str) -> bool) -> bool {
        bases(&self.held.inspection.census.types, ty.shape.id as usize).any(|ty| f(&ty.name))
    }

    /// Whose the type is; none of built-in ones.
    pub fn origin_of_type(&self, ty: &Type) -> Option<Origin> {
        match ty.module.as_str() {
            "" | "builtins" | "__builtin__" | "exceptions" => None,
            module => Some(self.origins.of(module).unwrap_or(Origin::Library)),
        }
    }

    /// The object that an attribute, slot or field of that name refers to.
    pub fn attribute(&self, node: u32, name: &str) -> Option<u64> {
        let (mut found, mut seen) = (None, 0);
        self.held.links(node, &mut |link| {
            let named = matches!(link.label.via, Via::Attr | Via::Slot | Via::Field)
                && matches!(&link.label.name, Name::Text(text) if text == name);
            if link.strength != Strength::Weak && named {
                found = Some(link.addr);
            }
            seen += 1;
            found.is_none() && seen < MAX_ATTRIBUTES
        });
        found
    }

    /// A small value as Python writes it: numbers, strings, True, None.
    pub fn value(&self, addr: u64) -> Option<String> {
        Anatomy::new(self.held.target, self.held.inspection)?.value(addr)
    }

    pub fn attribute_value(&self, node: u32, name: &str) -> Option<String> {
        self.value(self.attribute(node, name)?)
    }

    /// A string attribute, without quotes.
    pub fn text(&self, node: u32, name: &str) -> Option<String> {
        let value = self.attribute_value(node, name)?;
        Some(value.trim_matches('\'').to_owned())
    }

    /// A word of a C structure.
    pub fn field(&self, node: u32, structure: &str, field: &str) -> Option<u64> {
        let at = self.model.layout.table.offset(structure, field)?;
        self.held.target.reader().u64(self.addr(node)?.wrapping_add(at)).ok()
    }

    /// The lower half of such a word.
    pub fn int_field(&self, node: u32, structure: &str, field: &str) -> Option<i32> {
        let at = self.model.layout.table.offset(structure, field)?;
        let word = self.held.target.reader().u32(self.addr(node)?.wrapping_add(at)).ok()?;
        Some(word as i32)
    }

    /// Entries of a container.
    pub fn length(&self, node: u32) -> Option<u64> {
        let (addr, ty) = (self.addr(node)?, self.type_of(node)?);
        let mut reader = self.held.target.reader();
        let l = &self.model.layout;
        match ty.shape.family {
            Family::List | Family::Tuple | Family::Deque => {
                u64::try_from(self.model.size_field(&mut reader, addr).ok()?).ok()
            }
            Family::Dict | Family::OrderedDict => reader.u64(addr.wrapping_add(l.dict.ma_used?)).ok(),
            Family::Set => reader.u64(addr.wrapping_add(l.set.used)).ok(),
            _ => None,
        }
    }
}
