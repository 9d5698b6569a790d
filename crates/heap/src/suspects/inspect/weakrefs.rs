//! Weak references that are collected themselves.

use super::{Inspector, Note, Verdict};
use crate::suspects::view::View;

pub struct WeakReferences;

const NAMES: [&str; 4] = ["weakref", "weakref.ReferenceType", "weakref.finalize", "weakref.finalize._Info"];

impl Inspector for WeakReferences {
    fn verdict(&self, view: &View, node: u32) -> Option<Verdict> {
        let ty = view.type_of(node)?;
        if !view.derives(ty, |name| NAMES.contains(&name)) {
            return None;
        }
        if ty.name.starts_with("weakref.finalize") {
            return Some(Verdict::Suspect(Note::new(
                "finalizers",
                "a finalizer stays registered, with its function and arguments, until its object is freed",
                "detach() finalizers of objects that live for ever",
            )));
        }
        let referent = view.field(node, "PyWeakReference", "wr_object")?;
        let callback = view.field(node, "PyWeakReference", "wr_callback")?;
        let none = view.held.inspection.python.as_ref().ok()?.none;
        if Some(referent) == none {
            return Some(Verdict::Leaking(Note::new(
                "dead weak references",
                "what they referred to is gone, they are kept all the same",
                "use a WeakSet or WeakValueDictionary, or remove them in their callback",
            )));
        }
        (callback != 0).then(|| {
            Verdict::Suspect(Note::new(
                "weak references with callbacks",
                "each keeps its callback, and what that closes over, for as long as its object lives",
                "drop the reference when the callback is not wanted any more",
            ))
        })
    }
}
