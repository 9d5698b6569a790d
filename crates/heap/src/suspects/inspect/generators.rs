//! Generators and coroutines that wait to be taken up again.

use super::{Inspector, Note, Verdict};
use crate::suspects::view::View;
use wmr_cpython::family::Family;

pub struct Generators;

impl Inspector for Generators {
    fn verdict(&self, view: &View, node: u32) -> Option<Verdict> {
        let ty = view.type_of(node)?;
        if ty.shape.family != Family::Generator {
            return None;
        }
        let name =
            view.text(node, "__qualname__").or_else(|| view.text(node, "__name__")).unwrap_or_default();
        Some(Verdict::Suspect(Note::new(
            "suspended generators",
            format!(
                "{} {name} is suspended and keeps its local variables until it is run to its end or closed",
                ty.name
            ),
            "exhaust or close() generators that are begun",
        )))
    }
}
