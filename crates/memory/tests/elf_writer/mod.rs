//! Writes ELF cores, sharing nothing with the reader: numbers are from the ELF specification, the
//! layouts of notes from `linux/elfcore.h` and `fs/binfmt_elf.c`.

pub const EM_AARCH64: u16 = 183;
pub const IMAGE_AT: u64 = 0x7e00_0000_0000;

struct Segment {
    start: u64,
    bytes: Vec<u8>,
    memsz: u64,
    flags: u32,
}

pub struct CoreBuilder {
    kind: u16,
    machine: u16,
    segments: Vec<Segment>,
    notes: Vec<u8>,
    /// Write the number of segments as if there were more than 65534.
    pub extended_count: bool,
}

fn put(out: &mut Vec<u8>, values: &[(u64, usize)]) {
    for (value, size) in values {
        out.extend_from_slice(&value.to_le_bytes()[..*size]);
    }
}

fn header(kind: u16, machine: u16, shoff: u64, phnum: u64) -> Vec<u8> {
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    put(&mut out, &[(kind.into(), 2), (machine.into(), 2), (1, 4), (0, 8), (64, 8), (shoff, 8)]);
    put(
        &mut out,
        &[(0, 4), (64, 2), (56, 2), (phnum.min(0xffff), 2), (64, 2), (u64::from(shoff != 0), 2), (0, 2)],
    );
    out
}

fn program_header(out: &mut Vec<u8>, kind: u64, flags: u32, numbers: [u64; 4]) {
    let [offset, vaddr, filesz, memsz] = numbers;
    put(
        out,
        &[(kind, 4), (flags.into(), 4), (offset, 8), (vaddr, 8), (0, 8), (filesz, 8), (memsz, 8), (1, 8)],
    );
}

fn note(out: &mut Vec<u8>, name: &str, kind: u64, desc: &[u8]) {
    put(out, &[(name.len() as u64 + 1, 4), (desc.len() as u64, 4), (kind, 4)]);
    for part in [[name.as_bytes(), &[0]].concat(), desc.to_vec()] {
        out.extend_from_slice(&part);
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

impl CoreBuilder {
    pub fn new() -> Self {
        CoreBuilder { kind: 4, machine: 62, segments: Vec::new(), notes: Vec::new(), extended_count: false }
    }

    pub fn kind(mut self, kind: u16) -> Self {
        self.kind = kind;
        self
    }

    pub fn machine(mut self, machine: u16) -> Self {
        self.machine = machine;
        self
    }

    /// `flags`: 4 read, 2 write, 1 execute.
    pub fn segment(&mut self, start: u64, bytes: &[u8], memsz: u64, flags: u32) {
        self.segments.push(Segment { start, bytes: bytes.to_vec(), memsz, flags });
    }

    pub fn prstatus(&mut self, tid: u32, sp: u64, ip: u64, fs_base: u64) {
        let mut desc = vec![0; 336];
        desc[32..36].copy_from_slice(&tid.to_le_bytes());
        for (register, value) in [(16, ip), (19, sp), (21, fs_base)] {
            desc[112 + 8 * register..][..8].copy_from_slice(&value.to_le_bytes());
        }
        note(&mut self.notes, "CORE", 1, &desc);
    }

    pub fn prpsinfo(&mut self, pid: u32, ppid: u32, name: &str, arguments: &str) {
        let mut desc = vec![0; 136];
        desc[24..28].copy_from_slice(&pid.to_le_bytes());
        desc[28..32].copy_from_slice(&ppid.to_le_bytes());
        desc[40..40 + name.len()].copy_from_slice(name.as_bytes());
        desc[56..56 + arguments.len()].copy_from_slice(arguments.as_bytes());
        note(&mut self.notes, "CORE", 3, &desc);
    }

    pub fn auxv(&mut self, entries: &[(u64, u64)]) {
        let mut desc = Vec::new();
        entries.iter().chain(&[(0, 0)]).for_each(|(key, value)| put(&mut desc, &[(*key, 8), (*value, 8)]));
        note(&mut self.notes, "CORE", 6, &desc);
    }

    /// `(start, end, offset in units, name)`.
    pub fn files(&mut self, unit: u64, files: &[(u64, u64, u64, &str)]) {
        let mut desc = Vec::new();
        put(&mut desc, &[(files.len() as u64, 8), (unit, 8)]);
        files.iter().for_each(|f| put(&mut desc, &[(f.0, 8), (f.1, 8), (f.2, 8)]));
        files.iter().for_each(|f| desc.extend([f.3.as_bytes(), &[0]].concat()));
        note(&mut self.notes, "CORE", 0x4649_4c45, &desc);
    }

    pub fn build(self) -> Vec<u8> {
        let count = self.segments.len() as u64 + 1;
        let extended = self.extended_count || count >= 0xffff;
        let notes_at = 64 + 56 * count;
        let mut at = notes_at + self.notes.len() as u64;
        let mut headers = Vec::new();
        program_header(&mut headers, 4, 0, [notes_at, 0, self.notes.len() as u64, 0]);
        for s in &self.segments {
            program_header(&mut headers, 1, s.flags, [at, s.start, s.bytes.len() as u64, s.memsz]);
            at += s.bytes.len() as u64;
        }
        let (shoff, phnum) = if extended { (at, 0xffff) } else { (0, count) };
        let mut out = header(self.kind, self.machine, shoff, phnum);
        out.extend(headers);
        out.extend(self.notes);
        self.segments.into_iter().for_each(|s| out.extend(s.bytes));
        if extended {
            // Section 0: sh_info at 44.
            put(&mut out, &[(0, 8); 5]);
            put(&mut out, &[(0, 4), (count, 4), (0, 8), (0, 8)]);
        }
        out
    }
}

/// The first page of a shared library with a build-id: text at 0x1000, data at 0x2000.
pub fn image_head(build_id: &[u8]) -> Vec<u8> {
    let mut id = Vec::new();
    note(&mut id, "GNU", 3, build_id);
    let mut out = header(3, 62, 0, 5);
    program_header(&mut out, 1, 4, [0, 0, 0x1000, 0x1000]);
    program_header(&mut out, 1, 5, [0x1000, 0x1000, 0x1000, 0x1000]);
    program_header(&mut out, 1, 6, [0x2000, 0x2000, 0x800, 0x1800]);
    program_header(&mut out, 2, 6, [0x2000, 0x2000, 0x60, 0x60]);
    program_header(&mut out, 4, 4, [0x200, 0x200, id.len() as u64, id.len() as u64]);
    out.resize(0x200, 0);
    out.extend(id);
    out.resize(0x1000, 0);
    out
}

/// A core with a shared library in it, its dynamic section relocated as glibc does.
pub fn with_image() -> CoreBuilder {
    let mut head = image_head(b"0123");
    // .dynstr at 0x300, .dynsym at 0x340: the null symbol and one function.
    head[0x301..0x30a].copy_from_slice(b"exported\0");
    let mut symbol = Vec::new();
    put(&mut symbol, &[(1, 4), (0x12, 1), (0, 1), (1, 2), (0x1010, 8), (8, 8)]);
    head[0x358..0x370].copy_from_slice(&symbol);
    // .gnu.hash at 0x380: one bucket, symbols from 1, one bloom word, bucket 1, the chain's end.
    let mut hash = Vec::new();
    put(&mut hash, &[(1, 4), (1, 4), (1, 4), (0, 4), (u64::MAX, 8), (1, 4), (1, 4)]);
    head[0x380..0x380 + hash.len()].copy_from_slice(&hash);
    let mut data = Vec::new();
    for (tag, value) in
        [(5, IMAGE_AT + 0x300), (10, 10), (6, IMAGE_AT + 0x340), (0x6fff_fef5, IMAGE_AT + 0x380), (0, 0)]
    {
        put(&mut data, &[(tag, 8), (value, 8)]);
    }
    data.resize(0x1000, 0);

    let mut core = CoreBuilder::new();
    core.segment(IMAGE_AT, &head, 0x1000, 4);
    core.segment(IMAGE_AT + 0x1000, &[], 0x1000, 5);
    core.segment(IMAGE_AT + 0x2000, &data, 0x1000, 6);
    core.prstatus(1, IMAGE_AT + 0x2800, IMAGE_AT + 0x1010, 0);
    core.auxv(&[(3, IMAGE_AT + 64), (6, 0x1000)]);
    let name = "/lib/libsynthetic.so";
    let piece = |i: u64| (IMAGE_AT + 0x1000 * i, IMAGE_AT + 0x1000 * (i + 1), i, name);
    core.files(0x1000, &[piece(0), piece(1), piece(2)]);
    core
}
