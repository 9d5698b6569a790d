//! Functions that were given to be called later.

use super::{Inspector, Note, Verdict};
use crate::suspects::view::View;

pub struct Callbacks;

const NAMES: [&str; 5] =
    ["function", "method", "instancemethod", "functools.partial", "builtin_function_or_method"];

impl Inspector for Callbacks {
    fn verdict(&self, view: &View, node: u32) -> Option<Verdict> {
        let ty = view.type_of(node)?;
        if view.derives(ty, |name| matches!(name, "_ctypes.PyCFuncPtr" | "_ctypes.CFuncPtr")) {
            return Some(Verdict::Suspect(Note::new(
                "C callbacks",
                "a callback for C code is kept alive with the function it calls",
                "make it once and keep that one; forget it when C code does not call it any more",
            )));
        }
        NAMES.contains(&ty.name.as_str()).then(|| {
            Verdict::Suspect(Note::new(
                "callbacks",
                "listeners are registered and stay, with all they close over or are bound to",
                "unregister listeners, or keep weak references to them (weakref.WeakMethod)",
            ))
        })
    }
}
