//! Cores built by hand: every odd header, and every file of the fuzzer's corpus.

mod elf_writer;

use elf_writer::{CoreBuilder, EM_AARCH64};
use proptest::prelude::*;
use std::path::PathBuf;
use wmr_memory::{
    Backing, CoreError, CoreOptions, Fault, Target, TargetKind, Why, open_core, open_core_bytes,
};

const A: u64 = 0x10_0000;
const B: u64 = 0x7f00_0000_0000;

/// Two segments, the second with a third of its bytes stored, and the usual notes.
fn builder() -> CoreBuilder {
    let mut core = CoreBuilder::new();
    core.segment(A, &[0x11; 0x2000], 0x2000, 6);
    core.segment(B, &[0x22; 0x1000], 0x3000, 6);
    core.prstatus(77, B + 0x800, A + 0x10, B + 0x100);
    core.prstatus(78, 0, 0, 0);
    core.prpsinfo(77, 7, "name", "prog --flag value ");
    core.auxv(&[(6, 0x1000)]);
    core.files(0x1000, &[(A, A + 0x1000, 3, "/some/data"), (B + 0x5000, B + 0x6000, 0, "/gone (deleted)")]);
    core
}

fn read(target: &Target, addr: u64, len: usize) -> Result<Vec<u8>, Fault> {
    let mut buf = vec![0; len];
    target.reader().read(addr, &mut buf).map(|()| buf)
}

#[test]
fn segments_and_notes_become_a_target() {
    let target = open_core_bytes(builder().build()).unwrap();
    assert_eq!(target.kind, TargetKind::Core);
    assert_eq!((target.process.pid, target.process.ppid, target.page_size), (77, Some(7), 4096));
    assert_eq!(target.process.cmdline, [&b"prog"[..], b"--flag", b"value"]);
    let threads: Vec<_> = target.threads.iter().map(|t| (t.tid, t.sp, t.ip, t.tls, t.regs.len())).collect();
    assert_eq!(threads, [(77, B + 0x800, A + 0x10, B + 0x100, 27), (78, 0, 0, 0, 27)]);
    assert_eq!(target.threads[0].name, b"name");
    let mappings: Vec<_> = target
        .mappings
        .iter()
        .map(|m| (m.start, m.end, m.offset, &m.name[..], m.deleted, m.backing))
        .collect();
    assert_eq!(
        mappings,
        [
            (A, A + 0x1000, 0x3000, &b"/some/data"[..], false, Backing::File),
            (A + 0x1000, A + 0x2000, 0, b"", false, Backing::Anonymous),
            (B, B + 0x3000, 0, b"", false, Backing::Anonymous),
            (B + 0x5000, B + 0x6000, 0, b"/gone", true, Backing::File),
        ]
    );
    let stored: u64 = target.mappings.iter().map(|m| m.residency.charge(m.start..m.end).resident).sum();
    assert_eq!(stored, 0x3000);
    assert!(target.notes.is_empty(), "{:?}", target.notes);
}

#[test]
fn reads_end_where_the_stored_bytes_end() {
    // The next segment's bytes follow in the file: they must not leak into the first one's tail.
    let mut core = CoreBuilder::new();
    core.segment(A, &[1; 0x1000], 0x2000, 6);
    core.segment(A + 0x2000, &[2; 0x1000], 0x1000, 6);
    core.segment(A + 0x3000, &[3; 0x1000], 0x1000, 6);
    let target = open_core_bytes(core.build()).unwrap();
    assert_eq!(read(&target, A + 0xff8, 8), Ok(vec![1; 8]));
    assert_eq!(read(&target, A + 0xff8, 9), Err(Fault::new(A + 0x1000, Why::NotCaptured)));
    assert_eq!(read(&target, A + 0x1fff, 2), Err(Fault::new(A + 0x1fff, Why::NotCaptured)));
    assert_eq!(read(&target, A + 0x2fff, 2), Ok(vec![2, 3]));
    assert_eq!(read(&target, A + 0x3fff, 2), Err(Fault::new(A + 0x4000, Why::NotMapped)));
    assert_eq!(read(&target, A - 1, 2), Err(Fault::new(A - 1, Why::NotMapped)));
    assert_eq!(read(&target, u64::MAX, 2), Err(Fault::new(u64::MAX, Why::NotMapped)));
    // What is contiguous in the file and in memory is held as one.
    let (start, bytes) = target.memory.extent(A + 0x3800).unwrap();
    assert_eq!((start, bytes.len()), (A + 0x2000, 0x2000));
    assert_eq!(target.memory.extent(A + 0x1000), None);
}

#[test]
fn a_file_cut_short_while_it_is_open_is_a_fault() {
    let mut core = CoreBuilder::new();
    let bytes: Vec<u8> = (0..0x4_0000u32).map(|at| (at >> 4) as u8).collect();
    core.segment(A, &bytes, 0x4_0000, 6);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, &core.build()).unwrap();
    let target = open_core(file.path(), &CoreOptions::default()).unwrap();
    let mut reader = target.reader();
    assert_eq!(reader.array::<16>(A + 0x3_0000).unwrap(), bytes[0x3_0000..0x3_0010]);
    let left = file.as_file().metadata().unwrap().len() - 0x2_0800;
    file.as_file().set_len(left).unwrap();
    assert_eq!(read(&target, A + 0x1_f000, 0x800), Ok(bytes[0x1_f000..0x1_f800].to_vec()));
    assert_eq!(read(&target, A + 0x1_f000, 0x2000), Err(Fault::new(A + 0x1_f800, Why::Truncated)));
    assert_eq!(reader.u64(A + 0x2_0000), Err(Fault::new(A + 0x2_0000, Why::Truncated)));
}

#[test]
fn what_is_no_core_is_declined_by_name() {
    let error = |bytes: &[u8]| open_core_bytes(bytes.to_vec()).err().unwrap().to_string();
    assert!(error(b"").contains("empty"));
    assert!(error(b"some words\nof text\n").contains("a text file"));
    assert!(error(b"\x1f\x8b\x08\x00").contains("gunzip"));
    assert!(error(b"\xfd7zXZ\x00").contains("unxz"));
    assert!(error(&[0; 100]).contains("not an ELF core file"));
    assert!(error(&builder().build()[..40]).contains("after 40 bytes"));
    for (kind, name) in [(1, "object file"), (2, "a program"), (3, "shared library")] {
        assert!(error(&builder().kind(kind).build()).contains(name));
    }
    assert!(error(&builder().machine(EM_AARCH64).build()).contains("aarch64"));
    assert!(error(&builder().machine(999).build()).contains("ELF machine 999"));
    let mut bits32 = builder().machine(3).build();
    bits32[4] = 1;
    assert!(error(&bits32).contains("32-bit core (i386)"));
    let mut big = builder().build();
    big[5] = 2;
    big[16..20].copy_from_slice(&[0, 4, 0, 22]);
    assert!(error(&big).contains("big-endian core (s390x)"), "{}", error(&big));
    assert!(error(&CoreBuilder::new().build()).contains("no memory"));

    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(matches!(open_core_bytes(own), Err(CoreError::NotCore(_))));
    let folder = std::env::temp_dir();
    assert!(matches!(open_core(&folder, &CoreOptions::default()), Err(CoreError::NotAFile)));
    let absent = folder.join("there is no such core");
    assert!(matches!(open_core(&absent, &CoreOptions::default()), Err(CoreError::Read { .. })));
}

#[test]
fn without_notes_the_bytes_are_still_there() {
    let mut core = CoreBuilder::new();
    core.segment(A, &[5; 0x1000], 0x1000, 6);
    let target = open_core_bytes(core.build()).unwrap();
    assert_eq!(read(&target, A, 3), Ok(vec![5; 3]));
    assert_eq!(target.notes.len(), 2, "{:?}", target.notes);
}

#[test]
fn segments_that_overlap_keep_the_first_bytes() {
    let mut core = CoreBuilder::new();
    core.segment(A, &[1; 0x2000], 0x2000, 6);
    core.segment(A + 0x1000, &[[2; 0x1000], [3; 0x1000]].concat(), 0x2000, 6);
    core.segment(A + 0x1800, &[4; 0x100], 0x100, 6);
    core.segment(u64::MAX - 0x10, &[6; 0x100], 0x100, 6);
    let target = open_core_bytes(core.build()).unwrap();
    assert_eq!(read(&target, A + 0x1fff, 2), Ok(vec![1, 3]));
    assert!(target.notes.iter().any(|n| n.contains("2 segments overlap")), "{:?}", target.notes);
    assert!(target.mappings.windows(2).all(|w| w[0].end <= w[1].start));
    let stored: u64 = target.mappings.iter().map(|m| m.residency.charge(m.start..m.end).resident).sum();
    assert_eq!(stored, 0x3000 + 0x10);
}

#[test]
fn more_than_65535_segments() {
    let mut core = CoreBuilder::new();
    core.prstatus(1, 0, 0, 0);
    for i in 0..70_000_u64 {
        core.segment(A + i * 0x2000, &i.to_le_bytes(), 0x1000, 6);
    }
    let bytes = core.build();
    let target = open_core_bytes(bytes.clone()).unwrap();
    assert_eq!(target.mappings.len(), 70_000);
    assert_eq!(target.reader().u64(A + 69_999 * 0x2000), Ok(69_999));
    // The count is the last thing in the file: without it, it is found by the first segment's place.
    let target = open_core_bytes(bytes[..bytes.len() - 1].to_vec()).unwrap();
    assert_eq!(target.reader().u64(A + 69_999 * 0x2000), Ok(69_999));
    assert!(target.notes.iter().any(|n| n.contains("estimated")), "{:?}", target.notes);
}

#[test]
fn truncation_is_told_to_the_byte() {
    let whole = builder().build();
    let target = open_core_bytes(whole[..whole.len() - 0x1234].to_vec()).unwrap();
    let told = target.notes.iter().find(|n| n.contains("truncated")).unwrap();
    // 0x1000 of the second segment, and 0x234 of the first.
    assert!(told.contains(&format!("{} bytes of 2 of its 2 segments", 0x1234)), "{told}");
    assert_eq!(read(&target, A + 0x1dcb, 2), Err(Fault::new(A + 0x1dcc, Why::Truncated)));
    assert_eq!(read(&target, B, 1), Err(Fault::new(B, Why::Truncated)));
    assert_eq!(read(&target, B + 0x1000, 1), Err(Fault::new(B + 0x1000, Why::NotCaptured)));
}

#[test]
fn names_in_a_core_open_no_pipe_and_no_directory() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
    for name in [pipe.to_str().unwrap(), "/", "/dev/zero", "/proc/kmsg", "relative", "/../../x", "/\u{1b}[2J"]
    {
        let mut core = CoreBuilder::new();
        core.segment(A, &elf_writer::image_head(b"0123"), 0x4000, 5);
        core.files(0x1000, &[(A, A + 0x4000, 0, name)]);
        let path = folder.path().join("core");
        std::fs::write(&path, core.build()).unwrap();
        let sysroot = Some(folder.path().to_owned());
        let target = open_core(&path, &CoreOptions { sysroot, ..CoreOptions::default() }).unwrap();
        assert!(target.notes.iter().all(|n| !n.contains('\u{1b}')));
        if name.starts_with("/.") {
            assert!(target.notes.iter().any(|n| n.contains("build-id 30313233")), "{:?}", target.notes);
        }
    }
}

/// Touches everything that a hostile file could break.
fn exercise(bytes: Vec<u8>) {
    let Ok(target) = open_core_bytes(bytes) else { return };
    assert!(target.mappings.windows(2).all(|w| w[0].end <= w[1].start));
    assert!(target.mappings.iter().all(|m| m.start < m.end));
    for mapping in &target.mappings {
        let _ = read(&target, mapping.start, 16);
        let _ = read(&target, mapping.end - 1, 2);
        let charge = mapping.residency.charge(mapping.start..mapping.end).total();
        assert!(charge <= mapping.len());
        if let Some((start, bytes)) = target.memory.extent(mapping.start) {
            assert!(start <= mapping.start && mapping.start - start < bytes.len() as u64);
        }
    }
    for image in &target.images {
        let _ = (image.symbol("main"), image.symbolize(image.bias), image.symbols().count());
        let _ = (image.section(".data"), image.writable().count(), image.file_bytes(image.bias));
    }
}

proptest! {
    #[test]
    fn any_damage_is_survived(
        at in prop::collection::vec((0..0x3000_usize, any::<u64>(), 1..9_usize), 1..20),
        cut in prop::option::of(0..0x6000_usize),
    ) {
        let mut bytes = elf_writer::with_image().build();
        for (at, value, size) in at {
            let at = at % (bytes.len() - 8);
            bytes[at..at + size.min(8)].copy_from_slice(&value.to_le_bytes()[..size.min(8)]);
        }
        bytes.truncate(cut.unwrap_or(bytes.len()));
        exercise(bytes);
    }

    #[test]
    fn any_small_numbers_in_the_headers_are_survived(
        at in prop::collection::vec((0..0x400_usize, 0..0x200_u64), 1..20),
    ) {
        let mut bytes = elf_writer::with_image().build();
        for (at, value) in at {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        exercise(bytes);
    }
}

#[test]
fn an_image_is_read_from_the_core_alone() {
    let target = open_core_bytes(elf_writer::with_image().build()).unwrap();
    let image = &target.images[0];
    assert_eq!(image.path, b"/lib/libsynthetic.so");
    assert_eq!(image.build_id.as_deref(), Some(&b"0123"[..]));
    assert_eq!(image.bias, elf_writer::IMAGE_AT);
    assert_eq!(image.symbol("exported"), Some(elf_writer::IMAGE_AT + 0x1010));
    assert_eq!(image.symbolize(elf_writer::IMAGE_AT + 0x1014), Some(("exported", 4)));
}

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/core_reader")
}

#[test]
fn the_corpus_is_survived() {
    let files: Vec<_> = std::fs::read_dir(corpus()).unwrap().map(|f| f.unwrap().path()).collect();
    assert!(files.len() >= 5);
    files.iter().for_each(|file| exercise(std::fs::read(file).unwrap()));
}

/// Writes the corpus' first files anew.
#[test]
#[ignore = "writes into the source tree"]
fn write_seeds() {
    let folder = corpus();
    std::fs::create_dir_all(&folder).unwrap();
    let small = |mut core: CoreBuilder| {
        core.segment(B, &[7; 64], 0x1000, 6);
        core.prstatus(77, B + 0x20, A + 0x10, B);
        core.prpsinfo(77, 7, "name", "prog --flag");
        core.auxv(&[(6, 0x1000), (31, B + 8)]);
        core.build()
    };
    let image = elf_writer::with_image().build();
    let mut many = CoreBuilder::new();
    many.extended_count = true;
    let seeds: [(&str, Vec<u8>); 6] = [
        ("small", small(CoreBuilder::new())),
        ("cut", small(CoreBuilder::new())[..0x140].to_vec()),
        ("extended-count", small(many)),
        ("image", image.clone()),
        ("image-cut", image[..0x500].to_vec()),
        ("text", b"not a core\n".to_vec()),
    ];
    for (name, bytes) in seeds {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}
