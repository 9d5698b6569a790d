//! Which ELF files are mapped, and where.

use super::elf::{self, Headers, Sections};
use super::symbols::SymbolTable;
use super::{Image, Segment, dynamic};
use crate::file::{FileBytes, FileSource};
use crate::{Backing, Mapping, Memory};
use rustc_hash::FxHashMap;
use std::cell::Cell;

/// One library may be loaded into several namespaces (dlmopen has 16).
const MAX_COPIES: usize = 64;
/// `vm.max_map_count` allows 65530 mappings, and an image takes three or more.
const MAX_IMAGES: usize = 1 << 14;
/// Bytes read of the target's memory for symbols, all images together, and what a read counts at
/// least: a hostile core may show one page at a million addresses.
const MEMORY_BUDGET: u64 = 256 << 20;
const READ_COST: u64 = 32;

/// Every ELF file that is mapped, in address order of its first segment, and notes on those that
/// could not be read. The vdso has no file and is not among them. `mappings` in address order.
pub fn find_images(
    mappings: &[Mapping],
    files: &dyn FileSource,
    memory: &dyn Memory,
) -> (Vec<Image>, Vec<String>) {
    let (mut images, mut notes) = (Vec::new(), Vec::new());
    let budget = Cell::new(MEMORY_BUDGET);
    for group in by_file(mappings) {
        if !may_be_image(&group, memory) {
            continue;
        }
        if images.len() >= MAX_IMAGES {
            notes.push(format!("only the first {MAX_IMAGES} programs and libraries were looked at"));
            break;
        }
        let file = files.open(group[0]).and_then(|f| FileBytes::map(&f));
        if let Some(file) = file.filter(|f| elf::has_magic(f)) {
            images.extend(from_file(&group, &file));
        } else {
            match from_memory(&group, memory, &budget) {
                found if found.is_empty() && group.iter().any(|m| m.perms.exec) => notes.push(format!(
                    "{}: neither the file nor its headers in memory can be read; its symbols are unknown",
                    shown(&group[0].name)
                )),
                found => images.extend(found),
            }
        }
    }
    images.sort_by_key(|i| i.segments.first().map_or(0, |s| s.range.start));
    (images, notes)
}

/// A path from the target, safe to print.
pub(crate) fn shown(path: &[u8]) -> String {
    let cut = &path[..path.len().min(300)];
    String::from_utf8_lossy(cut)
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

/// The mappings of each file, in address order.
fn by_file(mappings: &[Mapping]) -> Vec<Vec<&Mapping>> {
    let mut groups: Vec<Vec<&Mapping>> = Vec::new();
    let mut index = FxHashMap::default();
    for mapping in mappings {
        let named = mapping.name.starts_with(b"/");
        if !named || mapping.is_empty() || !matches!(mapping.backing, Backing::File | Backing::SharedMemory) {
            continue;
        }
        let key = (mapping.dev, mapping.inode, mapping.name.as_slice());
        let i = *index.entry(key).or_insert(groups.len());
        match groups.get_mut(i) {
            Some(group) => group.push(mapping),
            None => groups.push(vec![mapping]),
        }
    }
    groups
}

/// Spares opening every mapped font and archive.
fn may_be_image(group: &[&Mapping], memory: &dyn Memory) -> bool {
    let starts_as_elf = |m: &&Mapping| {
        let mut magic = [0; 4];
        m.offset == 0 && m.perms.read && memory.read(m.start, &mut magic).is_ok() && elf::has_magic(&magic)
    };
    group.iter().any(|m| m.perms.exec)
        || group[0].backing == Backing::File && group.iter().take(MAX_COPIES).any(starts_as_elf)
}

fn from_file(group: &[&Mapping], file: &FileBytes) -> Vec<Image> {
    let Some(headers) = Headers::parse(file) else { return Vec::new() };
    let mut images: Vec<Image> = Vec::new();
    for bias in biases(group, &headers) {
        let sections = Sections::parse(file);
        let mut tables = sections.tables;
        if tables.is_empty() {
            let read = |vaddr: u64, len: usize| {
                let range = headers.offset_of(vaddr)?;
                file.clipped(range).get(..len).map(<[u8]>::to_vec)
            };
            tables.extend(headers.dynamic.and_then(|d| dynamic::table(d, 0, &read)));
        }
        let mut image = image_at(group[0], &headers, bias, tables);
        image.build_id = headers.build_id(file);
        image.file = Some(file.clone());
        image.sections = sections
            .named
            .into_iter()
            .map(|(name, r)| (name, bias.wrapping_add(r.start)..bias.wrapping_add(r.end)))
            .filter(|(_, r)| r.start <= r.end)
            .collect();
        images.push(image);
    }
    images
}

fn from_memory(group: &[&Mapping], memory: &dyn Memory, budget: &Cell<u64>) -> Vec<Image> {
    let mut images = Vec::new();
    for first in group.iter().filter(|m| m.offset == 0).take(MAX_COPIES) {
        let Some(headers) = Headers::in_memory(memory, first.start..first.end) else { continue };
        let Some(bias) = loaded_at(group, &headers, first) else { continue };
        let end = headers.loads.iter().map(|l| l.vaddr.saturating_add(l.memsz)).max().unwrap_or(0);
        let read = |vaddr: u64, len: usize| {
            // Charged before the allocation: sizes come from the target.
            budget.set(budget.get().checked_sub(READ_COST + len as u64)?);
            if vaddr.checked_add(len as u64)? > end {
                return None;
            }
            let mut bytes = vec![0; len];
            memory.read(bias.wrapping_add(vaddr), &mut bytes).ok()?;
            Some(bytes)
        };
        let table = headers.dynamic.and_then(|d| dynamic::table(d, bias, &read));
        let mut image = image_at(first, &headers, bias, Vec::from_iter(table));
        image.build_id = headers.build_id_in_memory(memory, bias);
        images.push(image);
    }
    images
}

/// Run-time minus file address of each copy of the file that the loader mapped.
fn biases(group: &[&Mapping], headers: &Headers) -> Vec<u64> {
    let starts = group.iter().filter(|m| m.offset == 0).take(MAX_COPIES);
    let mut found: Vec<u64> = starts.filter_map(|start| loaded_at(group, headers, start)).collect();
    found.dedup();
    if found.is_empty() {
        // Some servers remap their text to huge pages, the file's header with it: go by any segment.
        found.extend(group.iter().filter(|m| m.perms.exec || m.perms.write).find_map(|m| {
            let loads = headers.loads.iter().filter(|l| l.write == m.perms.write);
            let load = loads.into_iter().find(|l| m.offset.wrapping_sub(l.offset & !0xfff) < l.filesz)?;
            Some(m.start.wrapping_sub(m.offset).wrapping_sub(load.vaddr.wrapping_sub(load.offset)))
        }));
    }
    found
}

/// The bias, if the loader put the file's beginning at `start`: a file mapped to be read as data
/// (debuggers, `ctypes.util`) is no image.
fn loaded_at(group: &[&Mapping], headers: &Headers, start: &Mapping) -> Option<u64> {
    let bias = headers.bias(start.start)?;
    let loads: Vec<_> = headers.loads.iter().filter(|l| l.filesz > 0).collect();
    // The mapping at a segment's run-time address, when it is this file's and at the right offset.
    let mapped = |load: &elf::Load| {
        let addr = bias.wrapping_add(load.vaddr);
        let i = group.partition_point(|m| m.end <= addr);
        let mapping = group.get(i).filter(|m| m.contains(addr))?;
        (mapping.offset.wrapping_add(addr - mapping.start) == load.offset).then_some(*mapping)
    };
    let present: Vec<_> = loads.iter().filter_map(|l| mapped(l)).collect();
    let exec = present.iter().any(|m| m.perms.exec);
    // In a core, permissions may be lost.
    let all =
        present.len() == loads.len() && (loads.len() == 1 || present.iter().any(|m| m.start != start.start));
    (exec || all).then_some(bias)
}

fn image_at(mapping: &Mapping, headers: &Headers, bias: u64, tables: Vec<SymbolTable>) -> Image {
    let mut image = Image { path: mapping.name.clone(), bias, tables, ..Image::default() };
    for load in &headers.loads {
        let start = bias.wrapping_add(load.vaddr);
        let Some(end) = start.checked_add(load.memsz) else { continue };
        image.segments.push(Segment { range: start..end, write: load.write, exec: load.exec });
        if let Some(end) = start.checked_add(load.filesz) {
            image.loaded.push((start..end, load.offset));
        }
    }
    image.segments.sort_by_key(|s| s.range.start);
    image
}
