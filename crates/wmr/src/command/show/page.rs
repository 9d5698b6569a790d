//! The page of `wmr show`: from top to bottom what contains what.

use super::super::{hexdump, title};
use super::{Body, Field, Object, Pool, Referred};
use crate::numbers::{counted, grouped, percent, scaled};
use crate::screen::{Look, Screen};
use crate::table::{Align, Table};
use crate::text::{cut, shown};

/// Columns of the names on the left.
const LEFT: usize = 11;

pub fn draw(screen: &Screen, body: &Body) -> String {
    let mut out = String::new();
    let mut line = |name: &str, what: &str| {
        let room = screen.width.saturating_sub(LEFT + 2);
        out.push_str(&format!(
            "  {}{}\n",
            screen.paint(Look::Dim, &format!("{name:<LEFT$}")),
            cut(what.trim_end(), room)
        ));
    };
    if let Some(object) = &body.object {
        let value = object.value.as_deref().map(|value| format!("  {}", shown(value)));
        line(
            "object",
            &format!("{} at {}{}", shown(&object.type_name), object.addr, value.unwrap_or_default()),
        );
        let mut facts = Vec::new();
        match object.refcount {
            Some(u32::MAX) | None => {}
            Some(n) => facts.push(counted(u64::from(n), "reference")),
        }
        facts.extend(object.sizeof.map(|size| format!("getsizeof {}", grouped(size))));
        facts.extend(object.length.map(|n| counted(n, "item")));
        facts.extend(object.retained.map(|bytes| format!("{} would go with it", scaled(bytes))));
        facts.extend(object.flags.iter().map(|flag| (*flag).to_owned()));
        line("", &facts.join(" · "));
    }
    if let Some(block) = &body.block {
        let name = [&block.kind, &block.detail].map(|text| shown(text));
        let name = name.iter().filter(|text| !text.is_empty()).cloned().collect::<Vec<_>>().join(", ");
        let lost = block.lost.filter(|&lost| lost > 0).map(|lost| format!(", {lost} not used by it"));
        line(
            "block",
            &format!(
                "{} B at {} of {}, {}{}",
                grouped(block.bytes),
                block.addr,
                block.allocator,
                block.state,
                lost.unwrap_or_default()
            ),
        );
        line("", &format!("{}: {name} ({})", block.domain, block.sure));
        if let Some(owner) = &block.owner {
            line("owner", &referred(owner));
        }
    }
    if let Some(pool) = &body.pool {
        line(
            "pool",
            &format!(
                "{} of {} blocks of {} B in use, {} at {}",
                grouped(pool.used_blocks),
                grouped(pool.blocks),
                pool.block_size,
                scaled(pool.bytes),
                pool.addr
            ),
        );
    }
    if let Some(arena) = &body.arena {
        let pools =
            arena.pools.zip(arena.free_pools).map(|(all, free)| format!(", {free} of {all} pools free"));
        line(
            "arena",
            &format!(
                "{} at {} of {}, {} % in use{}",
                scaled(arena.bytes),
                arena.addr,
                arena.allocator,
                percent(arena.used_bytes, arena.bytes),
                pools.unwrap_or_default()
            ),
        );
    }
    if let Some(chunk) = &body.chunk {
        let mut tags = vec![if chunk.main_arena { "main arena" } else { "another arena" }];
        tags.push(if chunk.previous_in_use { "previous in use" } else { "previous free" });
        if chunk.mmapped {
            tags = vec!["a mapping of its own"];
        }
        line("chunk", &format!("{} B at {}: {}", grouped(chunk.bytes), chunk.addr, tags.join(", ")));
    }
    if let Some(symbol) = &body.symbol {
        line("symbol", &format!("{} + {} in {}", shown(&symbol.name), symbol.offset, shown(&symbol.image)));
    }
    let mapping = &body.mapping;
    line("mapping", &format!("{}-{} {} {}", mapping.start, mapping.end, mapping.perms, shown(&mapping.name)));
    let page = &body.page;
    let mut words = vec![match (page.present, page.swapped) {
        (true, _) => "in RAM",
        (_, true) => "swapped out",
        _ => "not in RAM",
    }];
    words
        .extend(page.exclusive.map(|alone| if alone { "this process's alone" } else { "others map it too" }));
    let more = [
        (page.dirty == Some(true), "dirty"),
        (page.file, "of a file"),
        (page.huge, "in a huge page"),
        (page.zero, "the zero page"),
        (page.ksm == Some(true), "merged with equal pages"),
    ];
    words.extend(more.iter().filter(|(set, _)| *set).map(|(_, word)| *word));
    let mapped = page.mapped_by.filter(|&n| n > 1).map(|n| format!(", mapped {} times", grouped(n)));
    line("page", &format!("{}: {}{}", page.addr, words.join(", "), mapped.unwrap_or_default()));
    if let Some(object) = &body.object {
        out.push_str(&parts(screen, "ATTRIBUTES", &object.attributes));
        out.push_str(&parts(screen, "ITEMS", &object.items));
        out.push_str(&referrers(screen, object));
    }
    if let Some(pool) = &body.pool {
        out.push_str(&picture(screen, pool));
    }
    if !body.raw.is_empty() {
        let fields: Vec<String> = body
            .fields
            .iter()
            .map(|field| screen.paint(look(field), &format!("{} {}", field.name, field.bytes)))
            .collect();
        out.push_str(&format!("\n{}", title(screen, "BYTES")));
        if !fields.is_empty() {
            out.push_str(&format!("  {}\n", fields.join(" · ")));
        }
        let at = |offset: usize| {
            let offset = offset as u64;
            let field = body.fields.iter().find(|f| (f.offset..f.offset + f.bytes).contains(&offset));
            field.map_or(Look::Plain, look)
        };
        out.push_str(&hexdump::lines(screen, body.raw_start, &body.raw, &at));
    }
    out
}

fn look(field: &Field) -> Look {
    match field.name {
        "pre-header" | "GC head" => Look::Bar,
        "refcount" => Look::Title,
        "type" => Look::Command,
        "unused" | "debug padding" => Look::Dim,
        _ => Look::Plain,
    }
}

fn referred(part: &Referred) -> String {
    let ty = part.type_name.as_deref().map_or_else(|| "not an object we know".to_owned(), shown);
    let value = part.value.as_deref().map(|value| format!("  {}", shown(value))).unwrap_or_default();
    format!("{ty} at {}{value}", part.addr)
}

fn parts(screen: &Screen, name: &str, list: &[Referred]) -> String {
    if list.is_empty() {
        return String::new();
    }
    let mut table = Table::new(screen)
        .column("", Align::Text)
        .column("", Align::Left)
        .column("", Align::Text)
        .column("", Align::Text);
    for part in list {
        table.row([
            shown(&part.name),
            part.addr.clone(),
            part.type_name.as_deref().map(shown).unwrap_or_default(),
            part.value.as_deref().map(shown).unwrap_or_default(),
        ]);
    }
    format!("\n{}{}", title(screen, name), table.render())
}

/// Who refers to it: the first ones.
fn referrers(screen: &Screen, object: &Object) -> String {
    /// Rows that people are shown.
    const SHOWN: usize = 8;
    if object.referrers.is_empty() {
        return String::new();
    }
    let mut table =
        Table::new(screen).column("", Align::Text).column("", Align::Left).column("", Align::Text);
    for one in object.referrers.iter().take(SHOWN) {
        let weak = if one.weak { ", weakly" } else { "" };
        table.row([
            one.type_name.as_deref().map(shown).unwrap_or_default(),
            one.addr.clone(),
            format!("{}{weak}", shown(&one.called)),
        ]);
    }
    let rest = object.referrers.len().saturating_sub(SHOWN) as u64 + object.referrers_truncated;
    let more = if rest > 0 { format!("  … {} more\n", grouped(rest)) } else { String::new() };
    format!("\n{}{}{more}", title(screen, "REFERRED TO BY"), table.render())
}

/// One cell a block; the one asked for stands out.
fn picture(screen: &Screen, pool: &Pool) -> String {
    let [used, free, this] = if screen.unicode { ['■', '·', '◆'] } else { ['#', '.', '@'] };
    let mut out = format!("\n{}", title(screen, "POOL"));
    for (n, row) in pool.cells.chunks(screen.width.saturating_sub(4).max(16)).enumerate() {
        let first = n * screen.width.saturating_sub(4).max(16);
        out.push_str("  ");
        for (i, cell) in row.iter().enumerate() {
            if pool.index == Some((first + i) as u64) {
                out.push_str(&screen.paint(Look::Title, &this.to_string()));
            } else {
                out.push(if *cell { used } else { free });
            }
        }
        out.push('\n');
    }
    out
}
