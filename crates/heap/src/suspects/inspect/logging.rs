//! Loggers and handlers: the module keeps all it was ever given.

use super::{Inspector, Note, Verdict};
use crate::suspects::view::View;

pub struct Logging;

impl Inspector for Logging {
    fn verdict(&self, view: &View, node: u32) -> Option<Verdict> {
        let ty = view.type_of(node)?;
        if view.derives(ty, |name| name == "logging.Handler") {
            return Some(Verdict::Suspect(Note::new(
                "log handlers",
                "a handler that was added stays with its logger, and is called for every record",
                "add handlers once, where logging is set up; removeHandler() and close() others",
            )));
        }
        if view.derives(ty, |name| name == "logging.LogRecord") {
            return Some(Verdict::Suspect(Note::new(
                "log records",
                "records are kept, with their arguments, that a handler was to write",
                "flush the handler, or bound what it holds",
            )));
        }
        view.derives(ty, |name| matches!(name, "logging.Logger" | "logging.PlaceHolder")).then(|| {
            Verdict::Suspect(Note::new(
                "loggers",
                "a logger stays registered under its name for ever",
                "name loggers after modules, not after requests or objects",
            ))
        })
    }
}
