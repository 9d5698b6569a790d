//! What `wmr path` and `wmr retained` share: the graph of a target, and how its nodes are named.

use crate::document::hex;
use crate::failure::{Failure, code};
use crate::open::Subject;
use crate::text;
use wmr_cpython::object::Object;
use wmr_cpython::refers::{self, Strength};
use wmr_heap::graph::{Graph, references};
use wmr_heap::roots::{self, Root};
use wmr_memory::Reader;

/// A target's references with what begins them.
pub struct Holders<'s> {
    pub subject: &'s Subject,
    pub graph: Graph,
    pub roots: Vec<Root>,
}

impl<'s> Holders<'s> {
    pub fn of(subject: &'s Subject) -> Result<Holders<'s>, Failure> {
        let none = || {
            let why = match &subject.inspection.python {
                Err(error) => error.to_string(),
                Ok(_) => "its objects could not be followed".to_owned(),
            };
            Failure::new(code::NOT_PYTHON, format!("{}: {why}", text::shown(&subject.typed)))
        };
        let graph = Graph::build(&subject.target, &subject.inspection, &references).ok_or_else(none)?;
        let graph =
            graph.map_err(|_| Failure::new(code::FAILED, "it has more references than can be numbered"))?;
        let roots = roots::find(&subject.target, &subject.inspection, &graph);
        Ok(Holders { subject, graph, roots })
    }

    pub fn object(&self, reader: &mut Reader, node: u32) -> Option<Object> {
        let model = self.subject.inspection.model.as_ref()?;
        self.graph.object(&self.subject.inspection, model, reader, node)
    }

    pub fn type_name(&self, object: &Object) -> &str {
        let ty = self.subject.inspection.census.types.get(object.shape.id as usize);
        ty.map_or("?", |ty| ty.name.as_str())
    }

    /// What holds a root.
    pub fn root_name(&self, node: u32) -> String {
        let root = self.roots.iter().find(|root| root.node == node);
        root.map_or_else(
            || "?".to_owned(),
            |root| root.holder.name(&self.subject.target, &self.subject.inspection),
        )
    }

    /// How `from` refers to `to`, as a person would write it: `.name`, `[3]`, `['key']`.
    pub fn label(&self, reader: &mut Reader, from: &Object, to: &Object) -> String {
        let Some(model) = &self.subject.inspection.model else { return String::new() };
        let mut found = None;
        refers::references(model, reader, from, &mut |reference| {
            if found.is_none() && reference.addr == to.addr && reference.strength != Strength::Weak {
                found = Some(reference);
            }
        });
        found.map_or_else(String::new, |reference| {
            refers::label(model, &mut self.subject.target.reader(), from, &reference)
        })
    }

    /// The object that people mean by an address: at it, or around it.
    pub fn node_at(&self, addr: u64) -> Result<u32, Failure> {
        let inspection = &self.subject.inspection;
        let exact = inspection.model.as_ref().and_then(|model| self.graph.node(inspection, model, addr));
        let around = || {
            let owner = self.graph.owner(inspection.blocks.find(addr)?);
            inspection.census.mark(owner).as_object().map(|_| owner)
        };
        exact.or_else(around).ok_or_else(|| {
            Failure::new(code::FAILED, format!("no Python object is at {}", hex(addr))).advise(format!(
                "what is there: wmr show {} {}",
                self.subject.typed,
                hex(addr)
            ))
        })
    }
}
