//! Writing a dump.

use crate::anatomy::Anatomy;
use crate::held::Held;
use std::fmt::Write as _;
use std::io::{self, Write};
use wmr_cpython::dicts;
use wmr_cpython::family::Family;
use wmr_cpython::model::Model;
use wmr_cpython::object::Object;
use wmr_cpython::refers::{self, At};
use wmr_cpython::strings::{read_text, str_shape};
use wmr_memory::Reader;

/// What is in the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub objects: u64,
    /// Of these, objects in the data of the interpreter and of libraries: no bytes of the heap are theirs.
    pub statics: u64,
    pub bytes: u64,
    pub refs: u64,
}

/// Characters of a value that Meliae keeps, and of a name.
const MAX_VALUE: usize = 100;
const MAX_NAME: usize = 256;
/// Entries of a module's namespace that are looked at for its name.
const MAX_ENTRIES: u64 = 1 << 16;
/// Digits of an int that is written out.
const MAX_DIGITS: usize = 38;

/// Writes every object that is in a block, and the static ones that something refers to. The size of one is
/// what the allocator spends on it and on what it owns, so that sizes add up to the objects' part of the heap.
///
/// # Errors
/// The file cannot be written.
pub fn write(held: &Held, out: &mut dyn Write, progress: &dyn Fn(u64, u64)) -> io::Result<Totals> {
    /// Lines between two words about how far it is.
    const STEP: u32 = 1 << 14;
    let mut totals = Totals::default();
    let (Some(model), Some(mut anatomy)) =
        (&held.inspection.model, Anatomy::new(held.target, held.inspection))
    else {
        return Ok(totals);
    };
    let graph = &held.graph;
    let mut reader = held.target.reader();
    let written =
        |node: u32| held.type_of(node).is_some() && (node < graph.first_static() || graph.referred(node) > 0);
    let addresses: Vec<u64> = (0..graph.nodes())
        .map(|node| if written(node) { held.addr(&mut reader, node).unwrap_or(0) } else { 0 })
        .collect();
    let mut line = String::new();
    for (node, addr) in (0..graph.nodes()).zip(&addresses) {
        if node % STEP == 0 {
            progress(node.into(), graph.nodes().into());
        }
        let Some(object) = held.object(&mut reader, node).filter(|_| *addr != 0) else { continue };
        let refs = graph.csr.row(node).iter().filter_map(|to| addresses.get(*to as usize));
        line.clear();
        let size = graph.size(node);
        // The order is Meliae's: its loader without a JSON library wants it.
        let _ = write!(line, "{{\"address\": {addr}, \"type\": \"{}\"", plain(held.type_name(node)));
        let _ = write!(line, ", \"size\": {size}");
        if let Some(name) = name(model, &mut reader, held, node, &object) {
            let _ = write!(line, ", \"name\": \"{}\"", plain(&name));
        }
        details(model, &mut reader, &mut anatomy, &object, &mut line);
        line.push_str(", \"refs\": [");
        let mut separator = "";
        for to in refs.filter(|to| **to != 0) {
            let _ = write!(line, "{separator}{to}");
            separator = ", ";
            totals.refs += 1;
        }
        line.push_str("]}\n");
        out.write_all(line.as_bytes())?;
        totals.objects += 1;
        totals.statics += u64::from(node >= graph.first_static());
        totals.bytes += size;
    }
    Ok(totals)
}

/// How many there are in it, and what it is worth.
fn details(model: &Model, reader: &mut Reader, anatomy: &mut Anatomy, object: &Object, line: &mut String) {
    let addr = object.addr;
    let Some(ty) = anatomy.type_of(addr) else { return };
    let (mut length, mut value) = (None, None);
    match object.shape.family {
        Family::Str => {
            length = str_shape(model, reader, addr).map(|shape| shape.length);
            value = read_text(model, reader, addr, MAX_VALUE).map(|text| quoted(&text));
        }
        Family::Bytes => {
            let at = match (model.is_two(), model.layout.old_str, model.layout.bytes) {
                (true, Some(l), _) => l.ob_sval,
                (_, _, Some(l)) => l.ob_sval,
                _ => return,
            };
            length = model.size_field(reader, addr).ok().map(i64::unsigned_abs);
            let mut bytes = vec![0; length.unwrap_or(0).min(MAX_VALUE as u64) as usize];
            if reader.read(addr.wrapping_add(at), &mut bytes).is_ok() {
                value = Some(quoted(&bytes.iter().map(|byte| char::from(*byte)).collect::<String>()));
            }
        }
        Family::Int | Family::OldInt => {
            let text = anatomy.value(addr);
            value = match text.as_deref() {
                Some(word @ ("True" | "False")) => Some(format!("\"{word}\"")),
                Some(text) => {
                    let digits = text.strip_prefix('-').unwrap_or(text);
                    let number = !digits.is_empty()
                        && digits.len() <= MAX_DIGITS
                        && digits.bytes().all(|b| b.is_ascii_digit());
                    number.then(|| text.to_owned())
                }
                None => None,
            };
        }
        _ => length = anatomy.parts(addr, ty, 0).length,
    }
    if let Some(length) = length {
        let _ = write!(line, ", \"len\": {length}");
    }
    if let Some(value) = value {
        let _ = write!(line, ", \"value\": {value}");
    }
}

/// Of what has one: modules, classes, functions, code.
fn name(model: &Model, reader: &mut Reader, held: &Held, node: u32, object: &Object) -> Option<String> {
    let family = object.shape.family;
    if family == Family::Type {
        let types = &held.inspection.census.types;
        return types.iter().find(|ty| ty.addr == object.addr).map(|ty| ty.name.clone());
    }
    let code = model.layout.code.map(|code| code.co_name);
    let of_code = |reader: &mut Reader, code: u64, at: Option<u64>| {
        let text = reader.u64(code.wrapping_add(at?)).ok()?;
        read_text(model, reader, text, MAX_NAME)
    };
    match family {
        Family::Code => of_code(reader, object.addr, code),
        Family::Frame => {
            let at = model.layout.frame?.f_code?;
            let of = reader.u64(object.addr.wrapping_add(at)).ok()?;
            of_code(reader, of, code)
        }
        _ if family == Family::Module || held.type_name(node) == "function" => {
            let (mut found, mut namespace) = (None, None);
            refers::references(model, reader, object, &mut |reference| match reference.at {
                At::Field("__name__") => found = Some(reference.addr),
                At::Field("__dict__") => namespace = Some(reference.addr),
                _ => {}
            });
            if found.is_none() && family == Family::Module {
                // 2.7: in its namespace alone.
                let is_name = |reader: &mut Reader, key| {
                    read_text(model, reader, key, MAX_NAME).as_deref() == Some("__name__")
                };
                dicts::for_each_entry(model, reader, namespace?, MAX_ENTRIES, &mut |reader, key, value| {
                    found = Some(value).filter(|_| is_name(reader, key));
                    found.is_none()
                });
            }
            read_text(model, reader, found?, MAX_NAME)
        }
        _ => None,
    }
}

/// What Meliae's loader takes for a name or a type: ASCII, no quotes, no backslashes.
fn plain(text: &str) -> String {
    let plain = |c: char| if (' '..='~').contains(&c) && c != '"' && c != '\\' { c } else { '?' };
    text.chars().map(plain).collect()
}

/// A value as Meliae's scanner writes it: characters beyond Latin-1 its loader cannot keep.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            c if u32::from(c) <= 0xff => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push('?'),
        }
    }
    out.push('"');
    out
}
