//! The address space as a core describes it: its segments and the files mapped, put together.

use super::headers::{Headers, Load};
use super::notes::{AT_EXECFN, AT_PHDR, AT_RANDOM, AT_SYSINFO_EHDR, Notes};
use crate::{Backing, Image, Mapping, PageState, Perms, Residency, Segment, Why};
use rustc_hash::FxHashMap;

/// A mapping, and where its bytes are. Addresses: `start <= stored <= dumped <= end`.
#[derive(Debug, Clone)]
pub(super) struct Area {
    pub start: u64,
    pub end: u64,
    pub perms: Perms,
    /// In the core file, of `start`.
    pub core_offset: u64,
    /// Up to here the bytes are in the core file.
    pub stored: u64,
    /// Up to here they were, before the core file was cut off.
    pub dumped: u64,
    /// Why nothing of it is there, where its file does not have it either.
    pub lost: Option<Why>,
    /// The file mapped, empty for none; see [`Mapping::name`].
    pub name: Vec<u8>,
    pub file_offset: u64,
    pub deleted: bool,
    pub backing: Backing,
}

/// By address: every segment, cut where the file mapped changes, and every mapped file that the
/// core leaves out altogether.
pub(super) fn areas(headers: &Headers, notes: &Notes) -> Vec<Area> {
    let (loads, files) = (&headers.loads, &notes.files);
    let mut cuts: Vec<u64> = loads.iter().flat_map(|l| [l.start, l.end]).collect();
    cuts.extend(files.iter().flat_map(|f| [f.range.start, f.range.end]));
    cuts.sort_unstable();
    cuts.dedup();

    let mut out = Vec::new();
    let (mut load, mut file) = (0, 0);
    for range in cuts.windows(2).map(|w| w[0]..w[1]) {
        while loads.get(load).is_some_and(|l| l.end <= range.start) {
            load += 1;
        }
        while files.get(file).is_some_and(|f| f.range.end <= range.start) {
            file += 1;
        }
        let here = loads.get(load).filter(|l| l.start <= range.start);
        let mapped = files.get(file).filter(|f| f.range.start <= range.start);
        if here.is_none() && mapped.is_none() {
            continue;
        }
        let mut area = match here {
            Some(load) => part_of(load, range.start, range.end),
            // gcore leaves out file mappings that were not written to: see `infer_permissions`.
            None => Area {
                perms: Perms { read: true, ..Perms::default() },
                ..part_of(&EMPTY, range.start, range.end)
            },
        };
        if let Some(mapped) = mapped {
            area.name = mapped.name.clone();
            area.file_offset = mapped.offset.wrapping_add(range.start - mapped.range.start);
            area.deleted = mapped.deleted;
            area.backing = backing_of(&mapped.name);
            area.perms.shared = area.backing == Backing::SharedMemory;
        }
        out.push(area);
    }
    out
}

const EMPTY: Load = Load {
    start: 0,
    end: 0,
    perms: Perms { read: false, write: false, exec: false, shared: false },
    offset: 0,
    filesz: 0,
    stored: 0,
    lost: None,
};

fn part_of(load: &Load, start: u64, end: u64) -> Area {
    let upto = |size: u64| load.start.saturating_add(size).clamp(start, end);
    Area {
        start,
        end,
        perms: load.perms,
        core_offset: load.offset.saturating_add(start - load.start),
        stored: upto(load.stored),
        dumped: upto(load.filesz),
        lost: load.lost,
        name: Vec::new(),
        file_offset: 0,
        deleted: false,
        backing: Backing::Anonymous,
    }
}

/// By the names that the kernel gives to memory without a file on disk.
fn backing_of(name: &[u8]) -> Backing {
    let starts = |prefix: &[u8]| name.starts_with(prefix);
    if starts(b"/dev/zero") || starts(b"/dev/shm/") || starts(b"/memfd:") || starts(b"/SYSV") {
        Backing::SharedMemory
    } else if starts(b"/anon_hugepage") {
        // MAP_ANONYMOUS | MAP_HUGETLB.
        Backing::Anonymous
    } else if starts(b"/dev/") || starts(b"anon_inode:") {
        Backing::Device
    } else {
        Backing::File
    }
}

/// Gives mapped files that have no segment the permissions that their ELF headers ask for.
pub(super) fn infer_permissions(areas: &mut [Area], headers: &Headers, images: &[Image]) {
    let mut by_path: FxHashMap<&[u8], Vec<&Segment>> = FxHashMap::default();
    for image in images {
        by_path.entry(&image.path).or_default().extend(&image.segments);
    }
    for area in areas.iter_mut().filter(|a| a.backing == Backing::File) {
        let load = headers.loads.partition_point(|l| l.end <= area.start);
        if headers.loads.get(load).is_some_and(|l| l.start <= area.start) {
            continue;
        }
        let segments = by_path.get(area.name.as_slice()).into_iter().flatten();
        for segment in segments.filter(|s| s.range.start < area.end && area.start < s.range.end) {
            area.perms.exec |= segment.exec;
            area.perms.write |= segment.write;
        }
    }
}

/// Marks the stack, the brk heap and the kernel's own pages, which a core does not name.
pub(super) fn name_special(areas: &mut [Area], notes: &Notes, images: &[Image]) {
    fn mark(area: &mut Area, name: &[u8], backing: Backing) {
        if area.name.is_empty() {
            area.name = name.to_vec();
            area.backing = backing;
        }
    }
    let position = |areas: &[Area], addr: u64| {
        let i = areas.partition_point(|a| a.end <= addr);
        areas.get(i).is_some_and(|a| a.start <= addr).then_some(i)
    };
    // The kernel puts the program's name and sixteen random bytes at the bottom of the first stack.
    if let Some(at) = notes.auxv(AT_EXECFN).or(notes.auxv(AT_RANDOM))
        && let Some(i) = position(areas, at)
    {
        mark(&mut areas[i], b"[stack]", Backing::Stack);
    }
    if let Some(i) = notes.auxv(AT_SYSINFO_EHDR).and_then(|at| position(areas, at)) {
        mark(&mut areas[i], b"[vdso]", Backing::Kernel);
        // Its data pages come right before it: [vvar], and [vvar_vclock] from Linux 6.13 on.
        for before in (0..i).rev().take(2) {
            let readable = Perms { read: true, ..Perms::default() };
            if areas[before].end != areas[before + 1].start || areas[before].perms != readable {
                break;
            }
            mark(&mut areas[before], b"[vvar]", Backing::Kernel);
        }
    }
    if let Some(i) = position(areas, 0xffff_ffff_ff60_0000) {
        mark(&mut areas[i], b"[vsyscall]", Backing::Kernel);
    }
    // The heap that brk moves starts behind the program's .bss, up to 1 GiB further at random
    // (arch_randomize_brk); its .bss may take the first anonymous mapping there.
    let program = notes.auxv(AT_PHDR).and_then(|at| images.iter().find(|i| i.contains(at)));
    if let Some(bss_end) = program.and_then(|p| p.segments.iter().map(|s| s.range.end).max()) {
        let first = areas.partition_point(|a| a.end <= bss_end.saturating_add(0xfff) & !0xfff);
        let private = Perms { read: true, write: true, exec: false, shared: false };
        let on_stack = |a: &Area| notes.threads.iter().any(|t| a.start <= t.sp && t.sp < a.end);
        if let Some(heap) = areas.get_mut(first)
            && heap.name.is_empty()
            && heap.perms == private
            && heap.start.saturating_sub(bss_end) <= (1 << 30) + 0x1000
            && !on_stack(heap)
        {
            mark(heap, b"[heap]", Backing::Brk);
        }
    }
    // What is one mapping has one name, whatever of it is lacking.
    let joints = notes.joints();
    let joined =
        |areas: &[Area], i: usize| areas[i].end == areas[i + 1].start && joints.contains(&areas[i].end);
    let last = areas.len().saturating_sub(1);
    for (from, to) in (0..last).map(|i| (i, i + 1)).chain((0..last).rev().map(|i| (i + 1, i))) {
        let special = matches!(areas[from].backing, Backing::Brk | Backing::Stack);
        if special && areas[to].name.is_empty() && joined(areas, from.min(to)) {
            let (name, backing) = (areas[from].name.clone(), areas[from].backing);
            mark(&mut areas[to], &name, backing);
        }
    }
}

/// `images` tell what of a file was written to and is no longer writable.
pub(super) fn mappings(areas: &[Area], notes: &Notes, images: &[Image]) -> Vec<Mapping> {
    let joints = notes.joints();
    let mut out: Vec<Mapping> = Vec::new();
    for area in areas {
        match out.last_mut() {
            Some(last)
                if last.end == area.start
                    && joints.contains(&area.start)
                    && (&last.name, last.perms, last.backing) == (&area.name, area.perms, area.backing) =>
            {
                last.end = area.end;
            }
            _ => out.push(Mapping {
                start: area.start,
                end: area.end,
                perms: area.perms,
                offset: area.file_offset,
                name: area.name.clone(),
                deleted: area.deleted,
                backing: area.backing,
                ..Mapping::default()
            }),
        }
        if let Some(mapping) = out.last_mut() {
            store(&mut mapping.residency, area, notes, images);
        }
    }
    out
}

/// What is stored, but for what was not in RAM.
fn store(residency: &mut Residency, area: &Area, notes: &Notes, images: &[Image]) {
    // What the loader has relocated is made read-only then (`PT_GNU_RELRO`).
    let relocated = |area: &Area| {
        let mut data = images.iter().flat_map(Image::writable);
        data.any(|data| data.start < area.end && area.start < data.end)
    };
    let file = match area.backing {
        // A private file mapping is dumped because it was written to.
        Backing::File => !area.perms.write && !relocated(area),
        Backing::SharedMemory => true,
        _ => false,
    };
    let state = PageState { present: true, file, ..PageState::default() };
    let mut at = area.start;
    let end = area.stored..area.stored;
    for untouched in notes.untouched_in(area.start..area.stored).chain([end]) {
        if at < untouched.start {
            residency.push(at, untouched.start, state);
        }
        at = untouched.end;
    }
}
