//! Exceptions that outlived their handling: the traceback keeps all frames, these all their locals.

use super::{Inspector, Note, Verdict};
use crate::suspects::view::View;

pub struct Exceptions;

const ADVICE: &str = "keep str(error) or traceback.format_exc(), or clear it with error.with_traceback(None)";

impl Inspector for Exceptions {
    fn verdict(&self, view: &View, node: u32) -> Option<Verdict> {
        let ty = view.type_of(node)?;
        if ty.name == "traceback" {
            let why = "a traceback that is kept keeps its frames, and these all their local variables";
            return Some(Verdict::Leaking(Note::new("kept tracebacks", why, ADVICE)));
        }
        if !view.derives(ty, |name| matches!(name, "BaseException" | "exceptions.BaseException")) {
            return None;
        }
        let none = view.held.inspection.python.as_ref().ok().and_then(|python| python.none);
        let traceback = view.field(node, "PyBaseExceptionObject", "traceback").unwrap_or(0);
        if traceback == 0 || Some(traceback) == none {
            return None;
        }
        let why =
            "an exception that is kept keeps its traceback, that the frames, these all their local variables";
        Some(Verdict::Leaking(Note::new("kept exceptions", why, ADVICE)))
    }
}
