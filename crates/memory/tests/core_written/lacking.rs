//! Of targets made by hand: what cannot be read, and very many mappings.

use crate::{PAGE, write};
use std::fs::File;
use std::sync::Arc;
use wmr_memory::synthetic::SyntheticMemory;
use wmr_memory::{
    Backing, CoreOptions, Fault, Mapping, Memory, PageState, Perms, Residency, Target, Thread, Why,
    WriteError, open_core, open_core_bytes, write_core,
};

const BASE: u64 = 0x7000_0000_0000;
const PRESENT: PageState =
    PageState { present: true, swapped: false, file: false, exclusive: true, zero: false, huge: false };
const SWAPPED: PageState = PageState { present: false, swapped: true, ..PRESENT };

fn mapping(start: u64, pages: u64, runs: &[(u64, u64, PageState)]) -> Mapping {
    let mut residency = Residency::default();
    for &(from, to, state) in runs {
        residency.push(start + from * PAGE, start + to * PAGE, state);
    }
    let perms = Perms { read: true, write: true, ..Perms::default() };
    Mapping { start, end: start + pages * PAGE, perms, residency, ..Mapping::default() }
}

/// Pages that each begin with their number, and a thread.
fn target(mappings: Vec<Mapping>) -> Target {
    let mut memory = SyntheticMemory::new();
    for mapping in &mappings {
        let mut bytes = vec![0; (mapping.end - mapping.start) as usize];
        for run in mapping.residency.runs.iter().filter(|run| run.state.present) {
            for at in (run.start..run.end).step_by(PAGE as usize) {
                bytes[(at - mapping.start) as usize..][..8].copy_from_slice(&(at / PAGE).to_le_bytes());
            }
        }
        memory.map(mapping.start, bytes);
    }
    let mut target = memory.into_target(mappings, Vec::new());
    target.threads.push(Thread { tid: 7, sp: BASE + 8, ip: BASE + 16, ..Thread::default() });
    target.process.pid = 7;
    target.process.cmdline = vec![b"one".to_vec(), vec![b'x'; 100]];
    target
}

/// Some pages of a memory cannot be read.
struct Holes {
    memory: Arc<dyn Memory>,
    holes: Vec<(u64, Why)>,
}

impl Memory for Holes {
    fn extent(&self, _addr: u64) -> Option<(u64, &[u8])> {
        None
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let end = addr + buf.len() as u64;
        match self.holes.iter().find(|(hole, _)| addr < hole + PAGE && *hole < end) {
            Some((hole, why)) => Err(Fault::new(addr.max(*hole), *why)),
            None => self.memory.read(addr, buf),
        }
    }
}

#[test]
fn more_mappings_than_a_header_can_count() {
    let count = 70_000;
    let mappings = (0..count).map(|i| mapping(BASE + 2 * i * PAGE, 1, &[(0, 1, PRESENT)])).collect();
    let live = target(mappings);
    let core = write(&live);
    assert_eq!((core.written.segments, core.written.bytes), (count, count * PAGE));
    let copy = core.open();
    assert_eq!(copy.mappings.len() as u64, count);
    for (live, copy) in live.mappings.iter().zip(&copy.mappings) {
        assert_eq!((live.start, live.end, live.perms), (copy.start, copy.end, copy.perms));
        assert_eq!(copy.residency.charge(live.start..live.end).resident, PAGE);
    }
    let mut reader = copy.reader();
    assert!(live.mappings.iter().all(|m| reader.u64(m.start) == Ok(m.start / PAGE)));
    let last = live.mappings[live.mappings.len() - 1].start;
    let said = core.gdb(None, &[format!("x/gx {last:#x}")]);
    assert!(said.contains(&format!("{last:#x}:\t0x{:016x}", last / PAGE)), "{said}");
}

#[test]
fn what_cannot_be_read_is_in_no_segment() {
    // Swapped: pages 4 and 5. Not to be read: 1, 2, 9, 300. Never touched: 11 to 199.
    let runs = [(0, 4, PRESENT), (4, 6, SWAPPED), (6, 11, PRESENT), (200, 400, PRESENT)];
    let heap = Mapping { name: b"[heap]".to_vec(), backing: Backing::Brk, ..mapping(BASE, 400, &runs) };
    let last = mapping(BASE + 400 * PAGE, 1, &[(0, 1, PRESENT)]);
    let mut live = target(vec![heap, last]);
    let holes = [1, 2, 9, 300, 400].map(|page| (BASE + page * PAGE, Why::Io)).to_vec();
    live.memory = Arc::new(Holes { memory: live.memory.clone(), holes });
    let core = write(&live);
    let notes = &core.written.notes;
    assert_eq!(
        notes[..],
        [
            "8192 bytes were swapped out and are not in the core".to_owned(),
            format!(
                "20480 bytes could not be read and are not in the core, the first at {:#x}: {}",
                BASE + PAGE,
                Why::Io
            ),
        ]
    );

    let copy = core.open();
    assert_eq!(copy.mappings.len(), 2, "it is one mapping, whatever of it is lacking");
    assert_eq!((copy.mappings[0].start, copy.mappings[0].end), (BASE, BASE + 400 * PAGE));
    let word = |page: u64| copy.reader().u64(BASE + page * PAGE).map_err(|fault| (fault.addr, fault.why));
    for page in 0..=400 {
        let addr = BASE + page * PAGE;
        let expected = match page {
            4 | 5 => Err((addr, Why::Swapped)),
            1 | 2 | 9 | 300 | 400 => Err((addr, Why::NotCaptured)),
            11..200 => Ok(0),
            _ => Ok(addr / PAGE),
        };
        assert_eq!(word(page), expected, "page {page}");
    }
    let stored: u64 = copy.mappings.iter().map(|m| m.residency.charge(m.start..m.end).resident).sum();
    assert_eq!(stored, core.written.bytes);
    assert_eq!(stored, (400 - 189 - 2 - 4) * PAGE);

    // Nor does gdb take it for zeroes.
    let pages = [0, 1, 4, 6, 9, 11, 300, 301, 400];
    let commands = pages.map(|page| format!("x/gx {:#x}", BASE + page * PAGE));
    let said = core.gdb(None, &commands);
    for page in pages {
        let addr = BASE + page * PAGE;
        let expected = match word(page) {
            Ok(word) => format!("{addr:#x}:\t0x{word:016x}"),
            Err(_) => format!("Cannot access memory at address {addr:#x}"),
        };
        assert!(said.contains(&expected), "page {page}: {said}");
    }
}

#[test]
fn a_damaged_core_is_read_as_far_as_it_goes() {
    let runs = [(0, 4, PRESENT), (4, 6, SWAPPED), (6, 11, PRESENT), (20, 40, PRESENT)];
    let live = target(vec![mapping(BASE, 40, &runs), mapping(BASE + 50 * PAGE, 3, &[(1, 2, PRESENT)])]);
    let bytes = std::fs::read(&write(&live).path).unwrap();
    // Headers and notes, ours at the end.
    let at: Vec<usize> = (0..bytes.len()).filter(|&i| i < PAGE as usize || i + 512 > bytes.len()).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for _ in 0..2000 {
        let mut damaged = bytes.clone();
        for _ in 0..=next(4) {
            damaged[at[next(at.len())]] = [0, 1, 0x7f, 0xff][next(4)];
        }
        let Ok(copy) = open_core_bytes(damaged) else { continue };
        assert!(copy.mappings.windows(2).all(|w| w[0].end <= w[1].start));
        let mut reader = copy.reader();
        for mapping in &copy.mappings {
            let runs = &mapping.residency.runs;
            assert!(runs.windows(2).all(|w| w[0].end <= w[1].start));
            assert!(runs.iter().all(|run| mapping.start <= run.start && run.end <= mapping.end));
            // An answer or a fault.
            let _ = (reader.u64(mapping.start), reader.u64(mapping.end.wrapping_sub(8)));
        }
        // Written anew, or an error: its addresses may be as odd as any.
        let _ = write_core(&copy, &tempfile::tempfile().unwrap(), &|_| {});
    }
}

#[test]
fn facts_of_the_process_are_cut_to_their_places() {
    let mut live = target(vec![mapping(BASE, 2, &[(0, 2, PRESENT)])]);
    live.threads.insert(0, Thread { tid: 9, regs: (0..27).collect(), ..Thread::default() });
    let copy = write(&live).open();
    // The first thread of the process comes first.
    let tids: Vec<i32> = copy.threads.iter().map(|t| t.tid).collect();
    assert_eq!(tids, [7, 9]);
    assert_eq!((copy.threads[0].sp, copy.threads[0].ip), (BASE + 8, BASE + 16));
    if cfg!(target_arch = "x86_64") {
        assert_eq!(copy.threads[1].regs, live.threads[0].regs);
    }
    assert_eq!(copy.process.cmdline, [b"one".to_vec(), vec![b'x'; 75]]);
}

#[test]
fn a_target_that_goes_away_is_an_error() {
    let mut live = target(vec![mapping(BASE, 4, &[(0, 4, PRESENT)])]);
    let holes = vec![(BASE + 2 * PAGE, Why::Gone)];
    live.memory = Arc::new(Holes { memory: live.memory.clone(), holes });
    let file = tempfile::NamedTempFile::new().unwrap();
    let refused = write_core(&live, file.as_file(), &|_| {}).unwrap_err();
    assert!(matches!(refused, WriteError::Gone(fault) if fault.addr == BASE + 2 * PAGE), "{refused}");
    // Half a core is none.
    assert!(open_core(file.path(), &CoreOptions::default()).is_err());
    let again = write_core(&live, file.as_file(), &|_| {}).unwrap_err();
    assert!(matches!(again, WriteError::NotAnEmptyFile), "{again}");
    let none = write_core(&target(Vec::new()), tempfile::tempfile().as_ref().unwrap(), &|_| {}).unwrap_err();
    assert!(matches!(none, WriteError::NothingMapped), "{none}");
    let full = File::options().write(true).open("/dev/full").unwrap();
    assert!(matches!(write_core(&live, &full, &|_| {}), Err(WriteError::NotAnEmptyFile)));
}
