//! Snapshots of real processes and of memory built by hand, whole and damaged.

use std::io::Read;
use std::ops::Range;
use wmr_memory::live::{LiveOptions, attach};
use wmr_memory::synthetic::SyntheticMemory;
use wmr_memory::{
    Backing, Mapping, PageState, Perms, Residency, SnapshotError, SnapshotOptions, Target, Why, open_core,
    open_snapshot_bytes, write_snapshot,
};
use wmr_testing::{READY, at_rest, gcore, python};

fn kept(target: &Target) -> Vec<u8> {
    let file = tempfile::tempfile().unwrap();
    let options = SnapshotOptions { level: 1, redact: None };
    let kept = write_snapshot(target, &file, options, &|done, all| assert!(done <= all)).unwrap();
    assert_eq!(kept.notes, [""; 0]);
    let mut bytes = Vec::new();
    std::io::Seek::rewind(&mut &file).unwrap();
    (&file).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, kept.bytes);
    bytes
}

/// Where chunks begin and end, by the heads alone (docs/snapshot-format.md).
fn chunks(file: &[u8]) -> Vec<Range<usize>> {
    let mut at = 24;
    let mut chunks = Vec::new();
    while file[at..].starts_with(b"wmrC") {
        let stored = u32::from_le_bytes(file[at + 20..at + 24].try_into().unwrap()) as usize;
        chunks.push(at..at + 48 + stored);
        at += 48 + stored;
    }
    assert_eq!(at + 32, file.len(), "a trailer, and nothing else");
    chunks
}

fn kind(file: &[u8], chunk: &Range<usize>) -> u32 {
    u32::from_le_bytes(file[chunk.start + 4..chunk.start + 8].try_into().unwrap())
}

const PRESENT: PageState =
    PageState { present: true, swapped: false, file: false, exclusive: true, zero: false, huge: false };

/// Three mappings: pages with different bytes, half of them never touched, one of other people's.
fn by_hand() -> Target {
    let mapping = |start: u64, pages: u64, runs: &[(u64, u64, PageState)]| {
        let mut residency = Residency::default();
        for &(from, to, state) in runs {
            residency.push(start + from * 4096, start + to * 4096, state);
        }
        let perms = Perms { read: true, write: true, ..Perms::default() };
        Mapping { start, end: start + pages * 4096, perms, residency, ..Mapping::default() }
    };
    let bytes = |pages: usize, seed: usize| -> Vec<u8> {
        // Too little order to be packed well, so that chunks have some size.
        let mut state = seed as u32 | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        (0..pages * 4096).map(|_| next()).collect()
    };
    let mut memory = SyntheticMemory::new();
    memory.map(0x10_0000, bytes(64, 1));
    memory.map(0x7000_0000_0000, [bytes(4, 2), vec![0; 4 * 4096]].concat());
    memory.map(0x7000_1000_0000, bytes(2, 3));
    let swapped = PageState { swapped: true, present: false, ..PRESENT };
    let mut shared = mapping(0x7000_1000_0000, 2, &[(0, 2, PageState { file: true, ..PRESENT })]);
    shared.backing = Backing::SharedMemory;
    shared.perms.shared = true;
    shared.name = b"/dev/shm/\xff\x00odd".to_vec();
    let mappings = vec![
        mapping(0x10_0000, 64, &[(0, 64, PRESENT)]),
        mapping(0x7000_0000_0000, 8, &[(0, 4, PRESENT), (6, 7, swapped)]),
        shared,
    ];
    memory.into_target(mappings, Vec::new())
}

/// What of a range can be read, page by page.
fn pages(target: &Target, range: Range<u64>) -> Vec<Result<Vec<u8>, Why>> {
    let page = |at: u64| {
        let mut bytes = vec![0; 4096];
        target.memory.read(at, &mut bytes).map(|()| bytes).map_err(|fault| fault.why)
    };
    range.step_by(4096).map(page).collect()
}

#[test]
fn memory_comes_back_and_what_was_not_there_is_told() {
    let target = by_hand();
    let file = kept(&target);
    let opened = open_snapshot_bytes(file).unwrap();
    assert_eq!(pages(&opened, 0x10_0000..0x14_0000), pages(&target, 0x10_0000..0x14_0000));
    let second = pages(&opened, 0x7000_0000_0000..0x7000_0000_8000);
    assert_eq!(second[..4], pages(&target, 0x7000_0000_0000..0x7000_0000_4000));
    assert_eq!(second[4], Ok(vec![0; 4096]), "never touched");
    assert_eq!(second[6], Err(Why::Swapped));
    assert_eq!(pages(&opened, 0x7000_1000_0000..0x7000_1000_1000), [Err(Why::NotCaptured)]);
    assert_eq!(pages(&opened, 0x5000..0x6000), [Err(Why::NotMapped)]);
    for (a, b) in target.mappings.iter().zip(&opened.mappings) {
        assert_eq!(
            (a.start, a.end, a.perms, a.backing, &a.name),
            (b.start, b.end, b.perms, b.backing, &b.name)
        );
        assert_eq!((a.usage, &a.residency), (b.usage, &b.residency));
    }
    // Reads that straddle chunks, and cursors with their windows.
    let mut reader = opened.reader();
    let mut truth = target.reader();
    for addr in (0x10_0ffd..0x13_f000).step_by(0x1ffb) {
        assert_eq!(reader.u64(addr), truth.u64(addr));
    }
    let mut across = vec![0; 0x3_0000];
    let mut expected = across.clone();
    opened.memory.read(0x10_0123, &mut across).unwrap();
    target.memory.read(0x10_0123, &mut expected).unwrap();
    assert!(across == expected);
}

#[test]
fn a_real_process_comes_back() {
    for version in ["3.8", "3.11", "3.13"] {
        let python = python(version).unwrap();
        let script = format!("import json, ctypes\nkeep = [str(n) * 9 for n in range(20000)]\n{READY}");
        let process = python.spawn(&script).unwrap();
        at_rest(process.pid()).unwrap();
        let live = attach(process.pid(), &LiveOptions::default()).unwrap();
        // Ahead of the writing, which lets the clone go.
        let private = |run: &&wmr_memory::Run| run.state.present && !run.state.file;
        let memory: Vec<_> = live
            .mappings
            .iter()
            .filter(|mapping| mapping.backing != Backing::SharedMemory)
            .flat_map(|mapping| mapping.residency.runs.iter().filter(private))
            .map(|run| (run.start..run.end, pages(&live, run.start..run.end)))
            .collect();
        let of_files: Vec<_> = live
            .mappings
            .iter()
            .filter(|mapping| mapping.backing == Backing::File && mapping.perms.write)
            .map(|mapping| (mapping.start..mapping.end, pages(&live, mapping.start..mapping.end)))
            .collect();
        let opened = open_snapshot_bytes(kept(&live)).unwrap();
        assert_eq!(opened.notes, live.notes);
        assert_eq!(opened.process, live.process);
        assert!(!live.process.auxv.is_empty() && live.process.rss.is_some());
        assert_eq!(opened.threads, live.threads);
        assert_eq!(opened.mappings.len(), live.mappings.len());
        for (a, b) in live.mappings.iter().zip(&opened.mappings) {
            assert_eq!((&a.name, a.usage, &a.residency), (&b.name, b.usage, &b.residency));
        }
        for (range, expected) in memory.iter().chain(&of_files) {
            assert!(pages(&opened, range.clone()) == *expected, "{version}: {range:x?}");
        }
        assert!(memory.iter().map(|(_, pages)| pages.len()).sum::<usize>() > 500 && of_files.len() > 3);
        let names = |target: &Target| -> Vec<_> {
            let image =
                |i: &wmr_memory::Image| (i.path.clone(), i.build_id.clone(), i.bias, i.symbols().count());
            target.images.iter().map(image).collect()
        };
        assert_eq!(names(&live), names(&opened));
        for (a, b) in live.images.iter().zip(&opened.images) {
            assert_eq!((&a.sections, &a.segments), (&b.sections, &b.segments));
            if let Some(rodata) = a.section(".rodata") {
                let constants = |i: &wmr_memory::Image| Some(i.file_bytes(rodata.start)?[..64].to_vec());
                assert_eq!(constants(a), constants(b), "{}", String::from_utf8_lossy(&a.path));
            }
        }
    }
}

#[test]
fn cut_off_anywhere_what_is_left_can_be_used() {
    let target = by_hand();
    let file = kept(&target);
    let whole = pages(&target, 0x10_0000..0x14_0000);
    let borders = chunks(&file);
    assert!(borders.len() > 10);
    for chunk in &borders {
        for cut in [chunk.start, chunk.start + 20, chunk.start + 48, chunk.end - 1, chunk.end] {
            let opened = open_snapshot_bytes(file[..cut].to_vec());
            if cut < borders[0].end {
                let error = opened.err().unwrap();
                assert!(matches!(error, SnapshotError::NoFacts(_)), "{cut}: {error}");
                continue;
            }
            let opened = opened.unwrap();
            assert!(opened.notes.iter().any(|note| note.contains("cut off")), "{cut}: {:?}", opened.notes);
            let complete = borders.iter().filter(|chunk| chunk.end <= cut && kind(&file, chunk) == 2).count();
            let read = pages(&opened, 0x10_0000..0x14_0000);
            let had = read.iter().zip(&whole).filter(|(read, whole)| read == whole).count();
            let lost = read.iter().filter(|page| **page == Err(Why::Truncated)).count();
            assert_eq!(had + lost, whole.len(), "{cut}");
            assert!(had / 8 <= complete && complete <= had / 8 + 1, "{cut}: {had} pages, {complete} chunks");
        }
    }
    for cut in 0..24 {
        let error = open_snapshot_bytes(file[..cut].to_vec()).err().unwrap();
        assert!(matches!(error, SnapshotError::NotASnapshot | SnapshotError::Short(_)), "{cut}: {error}");
    }
}

#[test]
fn a_damaged_chunk_is_named_and_the_others_stand() {
    let target = by_hand();
    let file = kept(&target);
    let whole = pages(&target, 0x10_0000..0x14_0000);
    for (number, chunk) in chunks(&file).iter().enumerate() {
        // In its bytes, and in its head.
        for at in [chunk.start + 48 + (chunk.len() - 48) / 2, chunk.start + 30] {
            let mut damaged = file.clone();
            damaged[at] ^= 4;
            let opened = open_snapshot_bytes(damaged).unwrap();
            let read = pages(&opened, 0x10_0000..0x14_0000);
            let lost = read.iter().filter(|page| **page == Err(Why::Damaged)).count();
            let had = read.iter().zip(&whole).filter(|(read, whole)| read == whole).count();
            assert_eq!(had + lost, whole.len());
            let said: Vec<String> = opened.notes.iter().cloned().chain(opened.memory.troubles()).collect();
            let named =
                said.iter().any(|note| note.contains(&format!("chunk {number} at byte {}", chunk.start)));
            match kind(&file, chunk) {
                // The index repeats the heads of the others.
                _ if at < chunk.start + 48 && kind(&file, chunk) != 4 => assert_eq!(said, [""; 0]),
                1 => assert!(named && lost == 0, "{said:?}"),
                2 => assert!(lost > 0 && lost <= 8 && named || chunk_is_elsewhere(&file, chunk), "{said:?}"),
                4 => assert!(
                    lost == 0 && said.iter().any(|note| note.contains("the index at byte")),
                    "{said:?}"
                ),
                other => panic!("kind {other}"),
            }
        }
    }
}

/// Of the second mapping, which was not read.
fn chunk_is_elsewhere(file: &[u8], chunk: &Range<usize>) -> bool {
    let at = u64::from_le_bytes(file[chunk.start + 24..chunk.start + 32].try_into().unwrap());
    !(0x10_0000..0x14_0000).contains(&at)
}

#[test]
fn without_index_and_with_a_damaged_head_the_rest_is_found() {
    let target = by_hand();
    let file = kept(&target);
    let all = chunks(&file);
    let mut memory = all.iter().filter(|chunk| kind(&file, chunk) == 2);
    let victim = memory.find(|chunk| !chunk_is_elsewhere(&file, chunk)).unwrap();
    let mut damaged = file[..file.len() - 32].to_vec();
    damaged[victim.start + 5] ^= 1;
    let opened = open_snapshot_bytes(damaged).unwrap();
    let said = opened.notes.join("\n");
    assert!(said.contains(&format!("at byte {} is damaged", victim.start)), "{said}");
    let read = pages(&opened, 0x10_0000..0x14_0000);
    assert_eq!(read.iter().filter(|page| page.is_err()).count(), 8);
}

#[test]
fn another_version_is_refused() {
    let mut file = kept(&by_hand());
    file[8..10].copy_from_slice(&2u16.to_le_bytes());
    // A header that was damaged is not believed to be of another version.
    assert!(open_snapshot_bytes(file.clone()).is_ok_and(|t| t.notes[0].contains("header is damaged")));
    let sum = xxhash_rust::xxh3::xxh3_64(&file[..16]);
    file[16..24].copy_from_slice(&sum.to_le_bytes());
    let error = open_snapshot_bytes(file).err().unwrap();
    assert_eq!(error.to_string(), "a snapshot of format 2.0, and this program reads format 1");
}

#[test]
fn lengths_that_lie_take_no_memory() {
    let file = kept(&by_hand());
    for chunk in chunks(&file) {
        for (field, value) in
            [(16, u32::MAX), (20, u32::MAX), (16, 0), (20, 0), (16, 1 << 20), (16, 256 << 20)]
        {
            let mut lying = file[..file.len() - 32].to_vec();
            lying[chunk.start + field..chunk.start + field + 4].copy_from_slice(&value.to_le_bytes());
            // With a checksum that fits, as somebody hostile would write.
            let sum = xxhash_rust::xxh3::xxh3_64(&lying[chunk.start..chunk.start + 40]);
            lying[chunk.start + 40..chunk.start + 48].copy_from_slice(&sum.to_le_bytes());
            if let Ok(opened) = open_snapshot_bytes(lying) {
                let _ = pages(&opened, 0x10_0000..0x14_0000);
            }
        }
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let target = by_hand();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let options = SnapshotOptions { level: 1, redact: None };
    let error = write_snapshot(&target, &full, options, &|_, _| ()).err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}

#[test]
fn a_file_cut_short_while_it_is_open_is_a_fault() {
    let target = by_hand();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, &kept(&target)).unwrap();
    let opened = wmr_memory::open_snapshot(file.path()).unwrap();
    let before = pages(&opened, 0x10_0000..0x10_8000);
    assert!(before == pages(&target, 0x10_0000..0x10_8000));
    file.as_file().set_len(4096).unwrap();
    assert_eq!(pages(&opened, 0x12_0000..0x12_1000), [Err(Why::Damaged)]);
    assert!(opened.memory.troubles()[0].contains("it cannot be read"), "{:?}", opened.memory.troubles());
}

/// What the loader relocated is read-only, and not what the file has.
#[test]
fn a_snapshot_of_a_core_has_the_data_of_its_images() {
    let process = python("3.11").unwrap().spawn(READY).unwrap();
    at_rest(process.pid()).unwrap();
    let core = open_core(&gcore(process.pid()).unwrap(), &Default::default()).unwrap();
    let snapshot = open_snapshot_bytes(kept(&core)).unwrap();
    let data: Vec<Range<u64>> = core.images.iter().flat_map(|image| image.writable()).collect();
    assert!(data.len() > 5, "{data:?}");
    for data in data {
        let [theirs, ours] = [&core, &snapshot].map(|target| {
            let mut bytes = vec![0; (data.end - data.start) as usize];
            target.memory.read(data.start, &mut bytes).map(|()| bytes)
        });
        assert!(theirs == ours, "{data:x?}");
    }
}
