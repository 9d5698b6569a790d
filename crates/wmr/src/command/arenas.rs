//! `wmr arenas`: what pymalloc and malloc hold, how full it is, and what keeps it.

use super::{address, answer, more, scope, title};
use crate::Answer;
use crate::cli::Options;
use crate::document::{hex, limited};
use crate::failure::Failure;
use crate::numbers::{Unit, bar, counted, grouped, percent, scaled};
use crate::open::{Subject, open_for_census};
use crate::screen::Screen;
use crate::table::{Align, Table};
use crate::text::shown;
use rustc_hash::FxHashMap;
use serde::Serialize;
use std::ffi::OsStr;
use wmr_alloc::pymalloc::Arena;

/// Arenas shown to people unless they say otherwise.
const LIMIT: usize = 20;
/// Names of what keeps an arena.
const PINS: usize = 3;

#[derive(Serialize)]
struct Body {
    pymalloc: Vec<PymallocRow>,
    /// Arenas of pymalloc that were cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<usize>,
    pymalloc_classes: Vec<ClassRow>,
    malloc: Vec<MallocRow>,
    mmapped: Mmapped,
    /// Over all arenas, those that were cut too.
    #[serde(skip)]
    sums: Sums,
}

#[derive(Serialize)]
struct PymallocRow {
    addr: String,
    bytes: u64,
    pools: u32,
    free_pools: u32,
    used_blocks: u32,
    used_bytes: u64,
    free_bytes: u64,
    /// What most of the blocks in use are, of an arena that is mostly free.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pinned_by: Vec<Pin>,
    #[serde(skip)]
    start: u64,
}

#[derive(Serialize)]
struct Pin {
    what: String,
    count: u64,
}

#[derive(Serialize)]
struct ClassRow {
    size: u32,
    pools: u64,
    used_blocks: u64,
    free_blocks: u64,
}

#[derive(Serialize)]
struct MallocRow {
    addr: String,
    main: bool,
    system_bytes: u64,
    used_bytes: u64,
    free_bytes: u64,
    top_bytes: u64,
    tcache_bytes: u64,
    fastbin_bytes: u64,
    used_chunks: u64,
    free_chunks: u64,
    tcache_chunks: u64,
    fastbin_chunks: u64,
}

#[derive(Serialize)]
struct Mmapped {
    count: u64,
    bytes: u64,
}

#[derive(Default)]
struct Sums {
    arenas: u64,
    bytes: u64,
    used: u64,
    free: u64,
}

/// All arenas, or one of malloc's.
pub fn run(
    word: &OsStr,
    limit: Option<usize>,
    arena: Option<&str>,
    options: &Options,
) -> Result<Answer, Failure> {
    if let Some(word) = arena {
        address::parse(word)?;
    }
    let subject = open_for_census(word, options)?;
    let one = arena.map(|word| scope::arena(&subject, word)).transpose()?.map(|(number, _)| number);
    let mut body = body(&subject, limit, options);
    if let Some(number) = one {
        body.only(number);
    }
    Ok(answer("wmr/arenas/1", &subject, options, body, |screen, body| match one {
        None => pymalloc_page(screen, &subject, body) + &malloc_page(screen, body),
        Some(_) => malloc_page(screen, body),
    }))
}

/// The same document; people see what gdb-heap showed them.
pub fn of_pymalloc(word: &OsStr, limit: Option<usize>, options: &Options) -> Result<Answer, Failure> {
    let subject = open_for_census(word, options)?;
    let body = body(&subject, limit, options);
    Ok(answer("wmr/arenas/1", &subject, options, body, |screen, body| {
        let mut out = title(screen, &format!("PYMALLOC  {}", counted(body.sums.arenas, "arena")));
        let mut table = Table::new(screen)
            .column("first byte", Align::Left)
            .column("last byte", Align::Left)
            .column("free pools", Align::Right)
            .column("of", Align::Right);
        for row in &body.pymalloc {
            let last = row.start.saturating_add(row.bytes).saturating_sub(1);
            let free = grouped(u64::from(row.free_pools));
            table.row([row.addr.clone(), hex(last), free, grouped(u64::from(row.pools))]);
        }
        out.push_str(&table.render());
        if let Some(cut) = body.truncated {
            let command = format!("wmr cpython-allocators {} --limit 0", subject.typed);
            out.push_str(&more(screen, &counted(cut as u64, "fuller arena"), &command));
        }
        out
    }))
}

fn body(subject: &Subject, limit: Option<usize>, options: &Options) -> Body {
    let inspection = &subject.inspection;
    let mut sums = Sums::default();
    let mut arenas: Vec<&Arena> = inspection.pymalloc.arenas.iter().collect();
    for arena in &arenas {
        sums.arenas += 1;
        sums.bytes += arena.bytes;
        sums.used += arena.used_bytes;
        sums.free += arena.free_bytes;
    }
    if !options.json {
        // The emptiest are what people ask about.
        arenas.sort_by_key(|arena| (std::cmp::Reverse(arena.free_bytes), arena.addr));
    }
    let (arenas, truncated) = limited(arenas, limit.unwrap_or(if options.json { 0 } else { LIMIT }));
    let classes = inspection.pymalloc.classes.iter().map(|class| ClassRow {
        size: class.size,
        pools: class.pools,
        used_blocks: class.used_blocks,
        free_blocks: class.free_blocks,
    });
    let glibc = inspection.glibc.as_ref().ok();
    let mmapped = glibc.map(|glibc| glibc.mmapped.as_slice()).unwrap_or_default();
    Body {
        pymalloc: arenas.into_iter().map(|arena| pymalloc_row(subject, arena)).collect(),
        truncated,
        pymalloc_classes: classes.collect(),
        malloc: glibc.map(|glibc| glibc.arenas.iter().map(malloc_row).collect()).unwrap_or_default(),
        mmapped: Mmapped {
            count: mmapped.len() as u64,
            bytes: mmapped.iter().map(|chunk| chunk.end - chunk.start).sum(),
        },
        sums,
    }
}

impl Body {
    /// Leaves out all but one of malloc's arenas.
    fn only(&mut self, number: usize) {
        self.malloc = self.malloc.drain(..).skip(number).take(1).collect();
        self.pymalloc.clear();
        self.pymalloc_classes.clear();
        self.truncated = None;
        self.mmapped = Mmapped { count: 0, bytes: 0 };
    }
}

fn pymalloc_row(subject: &Subject, arena: &Arena) -> PymallocRow {
    PymallocRow {
        start: arena.addr,
        addr: hex(arena.addr),
        bytes: arena.bytes,
        pools: arena.total_pools,
        // Pools that were never carved are as free as those that were emptied.
        free_pools: arena.free_pools + arena.total_pools.saturating_sub(arena.pools),
        used_blocks: arena.used_blocks,
        used_bytes: arena.used_bytes,
        free_bytes: arena.free_bytes,
        pinned_by: if arena.used_bytes < arena.bytes / 4 { pins(subject, arena) } else { Vec::new() },
    }
}

/// The names most of an arena's blocks have.
fn pins(subject: &Subject, arena: &Arena) -> Vec<Pin> {
    let (blocks, census) = (&subject.inspection.blocks, &subject.inspection.census);
    let mut counts: FxHashMap<(&str, &str), u64> = FxHashMap::default();
    let end = arena.addr.saturating_add(arena.bytes);
    let first = blocks.spans().partition_point(|span| span.end <= arena.addr);
    for (i, span) in blocks.spans().iter().enumerate().skip(first).take_while(|(_, span)| span.start < end) {
        if span.end <= arena.addr {
            continue;
        }
        for block in blocks.iter_span(i) {
            let mark = census.mark(block.id);
            let object = mark.as_object().and_then(|id| census.types.get(id as usize));
            let name = match (object, mark.as_kind().map(|kind| census.kinds.get(kind))) {
                (Some(ty), _) => (ty.name.as_str(), ""),
                (None, Some(kind)) => (kind.kind.as_str(), kind.detail.as_str()),
                (None, None) => ("unknown", ""),
            };
            *counts.entry(name).or_default() += 1;
        }
    }
    let name = |(kind, detail): (&str, &str)| match detail {
        "" => kind.to_owned(),
        detail => format!("{kind}: {detail}"),
    };
    let mut pins: Vec<Pin> =
        counts.into_iter().map(|(what, count)| Pin { what: name(what), count }).collect();
    pins.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.what.cmp(&b.what)));
    pins.truncate(PINS);
    pins
}

fn malloc_row(arena: &wmr_alloc::glibc::Arena) -> MallocRow {
    MallocRow {
        addr: hex(arena.addr),
        main: arena.main,
        system_bytes: arena.system_bytes,
        used_bytes: arena.used_bytes,
        free_bytes: arena.free_bytes,
        top_bytes: arena.top_bytes,
        tcache_bytes: arena.tcache_bytes,
        fastbin_bytes: arena.fastbin_bytes,
        used_chunks: arena.used_chunks,
        free_chunks: arena.free_chunks,
        tcache_chunks: arena.tcache_chunks,
        fastbin_chunks: arena.fastbin_chunks,
    }
}

fn pymalloc_page(screen: &Screen, subject: &Subject, body: &Body) -> String {
    let sums = &body.sums;
    if sums.arenas == 0 {
        return title(screen, "PYMALLOC") + "  no arenas\n\n";
    }
    let head = format!(
        "PYMALLOC  {}, {}: {} used, {} free",
        counted(sums.arenas, "arena"),
        scaled(sums.bytes),
        scaled(sums.used),
        scaled(sums.free)
    );
    let mut out = title(screen, &head);
    let mut table = Table::new(screen)
        .column("arena", Align::Left)
        .styled("used", Align::Left, crate::screen::Look::Bar)
        .column("%", Align::Right)
        .column("blocks", Align::Right)
        .column("free", Align::Right)
        .column("pools", Align::Right)
        .column("free", Align::Right)
        .column("kept by", Align::Text);
    for row in &body.pymalloc {
        let pins: Vec<String> =
            row.pinned_by.iter().map(|pin| format!("{} {}", grouped(pin.count), shown(&pin.what))).collect();
        table.row([
            row.addr[2..].to_owned(),
            format!("{:<10}", bar(row.used_bytes, row.bytes, 10, screen.unicode)),
            percent(row.used_bytes, row.bytes),
            grouped(u64::from(row.used_blocks)),
            scaled(row.free_bytes),
            row.pools.to_string(),
            row.free_pools.to_string(),
            pins.join(", "),
        ]);
    }
    out.push_str(&table.render());
    if let Some(cut) = body.truncated {
        let command = format!("wmr arenas {} --limit 0", subject.typed);
        out.push_str(&more(screen, &counted(cut as u64, "fuller arena"), &command));
    }
    out.push('\n');
    out.push_str(&title(screen, "PYMALLOC SIZE CLASSES"));
    let mut table = Table::new(screen)
        .column("size", Align::Right)
        .column("pools", Align::Right)
        .column("used", Align::Right)
        .column("free", Align::Right)
        .column("free bytes", Align::Right)
        .styled("", Align::Left, crate::screen::Look::Bar);
    for row in &body.pymalloc_classes {
        table.row([
            row.size.to_string(),
            grouped(row.pools),
            grouped(row.used_blocks),
            grouped(row.free_blocks),
            grouped(row.free_blocks * u64::from(row.size)),
            bar(row.used_blocks, row.used_blocks + row.free_blocks, 10, screen.unicode),
        ]);
    }
    out + &table.render() + "\n"
}

fn malloc_page(screen: &Screen, body: &Body) -> String {
    if body.malloc.is_empty() {
        return title(screen, "MALLOC") + "  no arenas of glibc's malloc\n";
    }
    let mapped = &body.mmapped;
    let head = format!(
        "MALLOC  {}; {} with mappings of their own, {}",
        counted(body.malloc.len() as u64, "arena"),
        counted(mapped.count, "chunk"),
        scaled(mapped.bytes)
    );
    let unit = Unit::for_total(body.malloc.iter().map(|row| row.system_bytes).sum());
    let mut table = Table::new(screen)
        .column("arena", Align::Left)
        .styled("used", Align::Left, crate::screen::Look::Bar)
        .column("%", Align::Right)
        .column(unit.name, Align::Right)
        .column("chunks", Align::Right)
        .column("free", Align::Right)
        .column("top", Align::Right)
        .column("tcache", Align::Right);
    for row in &body.malloc {
        table.row([
            format!("{}{}", &row.addr[2..], if row.main { " main" } else { "" }),
            format!("{:<10}", bar(row.used_bytes, row.system_bytes, 10, screen.unicode)),
            percent(row.used_bytes, row.system_bytes),
            unit.number(row.system_bytes),
            grouped(row.used_chunks),
            unit.number(row.free_bytes),
            unit.number(row.top_bytes),
            unit.number(row.tcache_bytes),
        ]);
    }
    title(screen, &head) + &table.render()
}
