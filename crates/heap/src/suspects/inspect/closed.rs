//! Sessions, sockets, files and connections that were closed and are still held.

use super::{Inspector, Note, Verdict};
use crate::suspects::view::View;

pub struct Closed;

/// C structures with a descriptor, and where it is.
const DESCRIPTORS: [(&str, &str, &str); 2] =
    [("_socket.socket", "PySocketSockObject", "sock_fd"), ("_io.FileIO", "fileio", "fd")];
/// Attributes in which classes say that their objects are closed.
const FLAGS: [&str; 4] = ["closed", "_closed", "is_closed", "_is_closed"];

impl Inspector for Closed {
    fn verdict(&self, view: &View, node: u32) -> Option<Verdict> {
        let ty = view.type_of(node)?;
        let leaking = || {
            Some(Verdict::Leaking(Note::new(
                "closed ones",
                "they are closed and still held",
                "forget them when they are closed",
            )))
        };
        if let Some((_, structure, field)) =
            DESCRIPTORS.iter().find(|(name, ..)| view.derives(ty, |base| base == *name))
        {
            return match view.int_field(node, structure, field)? {
                ..0 => leaking(),
                _ => None,
            };
        }
        // A class of Python code, or it has no such attribute.
        if !ty.shape.is_heap_type() || ty.shape.family != wmr_cpython::family::Family::Plain {
            return None;
        }
        let closed = FLAGS.iter().find_map(|flag| view.attribute_value(node, flag))?;
        if closed == "True" { leaking() } else { None }
    }
}
