//! `wmr sizes`: how big things are in this interpreter, by its own types and structures.

use super::{answer, title};
use crate::Answer;
use crate::cli::Options;
use crate::document::hex;
use crate::failure::{Failure, code};
use crate::numbers::{counted, grouped};
use crate::open::{Subject, open};
use crate::screen::Screen;
use crate::table::{Align, Table};
use crate::text::{self, shown};
use serde::Serialize;
use std::ffi::OsStr;
use wmr_cpython::family::Family;
use wmr_cpython::model::{Model, PREHEADER};
use wmr_cpython::types::Type;
use wmr_heap::Misstated;

/// Largest dict in the table, entries.
const MAX_ENTRIES: u64 = 1_000_000;

#[derive(Serialize)]
struct Body {
    types: Vec<Row>,
    dict: Vec<DictRow>,
    /// Extension types whose `getsizeof` cannot be right against the blocks their objects sit in.
    misstated: Vec<Doubt>,
}

#[derive(Serialize)]
struct Row {
    #[serde(rename = "type")]
    name: String,
    /// `tp_basicsize`.
    basic: u64,
    /// `tp_itemsize`.
    item: u64,
    /// Bytes before the object for the collector.
    gc_head: u64,
    /// Bytes before that for the instance's dict and weak references.
    preheader: u64,
    /// What `sys.getsizeof` says of `example`.
    #[serde(skip_serializing_if = "Option::is_none")]
    example_sizeof: Option<u64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    example: &'static str,
}

/// A dict into which entries were put one by one.
#[derive(Serialize)]
struct DictRow {
    /// Most entries that fit; the row before says from where on.
    entries: u64,
    /// All keys are `str`.
    sizeof: u64,
    /// Some key is not.
    sizeof_other_keys: u64,
}

#[derive(Serialize)]
struct Doubt {
    #[serde(rename = "type")]
    name: String,
    type_addr: String,
    count: u64,
    /// What `getsizeof` says of all of them.
    sizeof: u64,
    /// Blocks they sit in.
    bytes: u64,
    /// Blocks they alone point at.
    held: u64,
    /// Objects that claim more than their block has.
    too_much: u64,
    /// Objects in a block made for more than they claim.
    too_little: u64,
}

impl From<Misstated> for Doubt {
    fn from(m: Misstated) -> Doubt {
        Doubt {
            name: m.name,
            type_addr: hex(m.addr),
            count: m.count,
            sizeof: m.sizeof,
            bytes: m.bytes,
            held: m.held,
            too_much: m.too_much,
            too_little: m.too_little,
        }
    }
}

/// `blocks`: flags were given that shape a table of blocks.
pub fn run(word: &OsStr, blocks: bool, options: &Options) -> Result<Answer, Failure> {
    if blocks {
        return Err(Failure::new(code::USAGE, "--where, --arena, --limit and --csv are for sizes of blocks")
            .advise(format!("wmr sizes {} --by size", text::quoted(&word.to_string_lossy()))));
    }
    let subject = open(word, options)?;
    let body = match &subject.inspection.model {
        Some(model) => Body {
            types: types(&subject, model),
            dict: dict(model),
            misstated: subject.inspection.misstated(&subject.target).into_iter().map(Doubt::from).collect(),
        },
        None => Body { types: Vec::new(), dict: Vec::new(), misstated: Vec::new() },
    };
    Ok(answer("wmr/sizes/1", &subject, options, body, page))
}

/// The built-in types the census met, those people know first.
fn types(subject: &Subject, model: &Model) -> Vec<Row> {
    let known = |name: &str| KNOWN.iter().position(|known| *known == name).unwrap_or(KNOWN.len());
    let census = &subject.inspection.census;
    let built_in =
        |ty: &&Type| matches!(ty.module.as_str(), "builtins" | "__builtin__") && !ty.shape.is_heap_type();
    let mut rows: Vec<Row> = census.types.iter().filter(built_in).map(|ty| row(model, ty)).collect();
    rows.sort_by(|a, b| known(&a.name).cmp(&known(&b.name)).then_with(|| a.name.cmp(&b.name)));
    rows.dedup_by(|a, b| a.name == b.name);
    rows
}

/// What the first table shows people.
const KNOWN: [&str; 28] = [
    "int",
    "long",
    "bool",
    "float",
    "complex",
    "str",
    "unicode",
    "bytes",
    "bytearray",
    "tuple",
    "list",
    "dict",
    "set",
    "frozenset",
    "object",
    "type",
    "function",
    "builtin_function_or_method",
    "method",
    "instancemethod",
    "cell",
    "code",
    "frame",
    "generator",
    "coroutine",
    "module",
    "slice",
    "range",
];

fn row(model: &Model, ty: &Type) -> Row {
    let shape = &ty.shape;
    let presize = u64::from(shape.presize);
    let gc_head = if shape.has_gc() { model.gc_head } else { 0 };
    let (basic, item) = (u64::from(shape.basicsize), u64::from(shape.itemsize));
    let (example, example_sizeof) = example(model, ty, presize, basic, item);
    Row {
        name: ty.name.clone(),
        basic,
        item,
        gc_head,
        preheader: presize.saturating_sub(gc_head).min(PREHEADER),
        example_sizeof,
        example,
    }
}

/// The smallest object of a type that is worth a look, and its `sys.getsizeof`.
fn example(model: &Model, ty: &Type, presize: u64, basic: u64, item: u64) -> (&'static str, Option<u64>) {
    let two = model.is_two();
    match ty.shape.family {
        family if family != Family::Plain && !ty.shape.exact => ("", None),
        Family::Int => (if two { "1L" } else { "1" }, Some(basic + item)),
        Family::OldInt => ("1", Some(basic)),
        Family::Float => ("1.0", Some(basic)),
        Family::Str => ("''", model.layout.ascii.map(|ascii| ascii.size + 1)),
        Family::Unicode => ("u''", Some(basic + 4)),
        Family::Bytes => (if two { "''" } else { "b''" }, Some(basic)),
        Family::ByteArray => ("bytearray()", Some(basic)),
        Family::List => ("[]", Some(presize + basic)),
        Family::Tuple => ("()", Some(presize + basic)),
        Family::Set => (if ty.name == "set" { "set()" } else { "frozenset()" }, Some(presize + basic)),
        Family::Dict if ty.name == "dict" => ("{}", Some(empty_dict(model))),
        Family::Plain if item == 0 => match ty.name.as_str() {
            "complex" => ("1j", Some(basic)),
            "object" => ("object()", Some(basic)),
            "function" => ("lambda: 0", Some(presize + basic)),
            "slice" => ("slice(1)", Some(presize + basic)),
            "range" => ("range(1)", Some(presize + basic)),
            _ => ("", None),
        },
        _ => ("", None),
    }
}

fn dict_base(model: &Model) -> u64 {
    model.gc_head + model.layout.dict.size
}

fn empty_dict(model: &Model) -> u64 {
    // From 3.8 on an empty dict shares the one empty table, before it begins with 8 slots
    // (`PyDict_New`); 2.7 has those 8 inside the object.
    match model.minor() {
        (2, _) | (3, 8..) => dict_base(model),
        _ => dict_base(model) + keys_bytes(model, 8, 24),
    }
}

/// A keys table (`_PyDict_KeysSize`): indices as wide as the slots need, entries for two thirds of them.
fn keys_bytes(model: &Model, slots: u64, entry: u64) -> u64 {
    let width = match slots {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    };
    let header = model.layout.dict_keys.map_or(0, |keys| keys.dk_indices);
    header + slots * width + slots * 2 / 3 * entry
}

/// How `Objects/dictobject.c` grows a table that gets full, one entry after another.
fn dict(model: &Model) -> Vec<DictRow> {
    let mut rows = Vec::new();
    let base = dict_base(model);
    if model.is_two() {
        // `dict_set_item_by_hash_or_entry`: a table two thirds full becomes one for four times the
        // entries, for twice from 50,000 on; `ma_smalltable` serves the first 8 slots.
        let mut slots: u64 = 8;
        loop {
            let entries = (slots * 2).div_ceil(3) - 1;
            let sizeof = base + if slots > 8 { 24 * slots } else { 0 };
            rows.push(DictRow { entries, sizeof, sizeof_other_keys: sizeof });
            if entries >= MAX_ENTRIES {
                return rows;
            }
            let used = entries + 1;
            slots = (used * if used > 50_000 { 2 } else { 4 } + 1).next_power_of_two();
        }
    }
    let str_entry = if model.layout.dict_keys.is_some_and(|keys| keys.dk_kind.is_some()) { 16 } else { 24 };
    rows.push(DictRow { entries: 0, sizeof: empty_dict(model), sizeof_other_keys: empty_dict(model) });
    let mut slots = 8;
    loop {
        let entries = slots * 2 / 3;
        rows.push(DictRow {
            entries,
            sizeof: base + keys_bytes(model, slots, str_entry),
            sizeof_other_keys: base + keys_bytes(model, slots, 24),
        });
        if entries >= MAX_ENTRIES {
            return rows;
        }
        slots *= 2;
    }
}

fn page(screen: &Screen, body: &Body) -> String {
    if body.types.is_empty() {
        return String::new();
    }
    let mut out = title(screen, "BUILT-IN TYPES");
    let mut table = Table::new(screen)
        .column("type", Align::Text)
        .column("getsizeof", Align::Right)
        .column("of", Align::Left)
        .column("basic", Align::Right)
        .column("per item", Align::Right)
        .column("GC head", Align::Right);
    let dash = |n: u64| if n == 0 { "-".to_owned() } else { grouped(n) };
    let known = body.types.iter().filter(|row| KNOWN.contains(&row.name.as_str()));
    for row in known {
        table.row([
            shown(&row.name),
            row.example_sizeof.map_or_else(String::new, grouped),
            row.example.to_owned(),
            grouped(row.basic),
            dash(row.item),
            dash(row.gc_head),
        ]);
    }
    out.push_str(&table.render());
    let rest = body.types.iter().filter(|row| !KNOWN.contains(&row.name.as_str())).count();
    if rest > 0 {
        out.push_str(&format!("  … {} with --json\n", counted(rest as u64, "more type")));
    }
    out.push('\n');
    out.push_str(&title(screen, "DICT BY ENTRIES"));
    let differ = body.dict.iter().any(|row| row.sizeof != row.sizeof_other_keys);
    let mut table = Table::new(screen).column("entries", Align::Right).column("getsizeof", Align::Right);
    if differ {
        table = table.column("with keys other than str", Align::Right);
    }
    let mut from = 0;
    for row in &body.dict {
        let range = if from == row.entries {
            grouped(from)
        } else {
            format!("{}-{}", grouped(from), grouped(row.entries))
        };
        from = row.entries + 1;
        let mut cells = vec![range, grouped(row.sizeof)];
        if differ {
            cells.push(grouped(row.sizeof_other_keys));
        }
        table.row(cells);
    }
    out.push_str(&table.render());
    if !body.misstated.is_empty() {
        out.push('\n');
        out.push_str(&title(screen, "GETSIZEOF CANNOT BE RIGHT"));
        let mut table = Table::new(screen)
            .column("type", Align::Text)
            .column("count", Align::Right)
            .column("getsizeof", Align::Right)
            .column("sits in", Align::Right)
            .column("points at", Align::Right)
            .column("claims", Align::Left);
        for row in &body.misstated {
            let claims = if row.too_much > 0 { "too much" } else { "too little" };
            table.row([
                shown(&row.name),
                grouped(row.count),
                grouped(row.sizeof),
                grouped(row.bytes),
                grouped(row.held),
                claims.to_owned(),
            ]);
        }
        out.push_str(&table.render());
        out.push_str("  these types define no __sizeof__; the blocks say what their objects really take\n");
    }
    out
}
