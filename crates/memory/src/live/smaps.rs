//! `/proc/PID/maps` and `/proc/PID/smaps`.

use crate::{Backing, Mapping, Perms};

/// One entry with what its `VmFlags` say of the danger of reading it.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    pub mapping: Mapping,
    pub flags: Flags,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// `io` or `pf`: device memory or bare page frames. Present in pagemap, not counted in Rss.
    pub device: bool,
    /// `um`, `uw`, `ui`: registered with userfaultfd, another thread may answer for its pages.
    pub userfault: bool,
    /// `ht`: hugetlbfs, which smaps counts outside Rss.
    pub hugetlb: bool,
    /// `dc` or `wf`: a clone has none of it (`MADV_DONTFORK`), or an empty one (`MADV_WIPEONFORK`).
    pub not_cloned: bool,
}

impl Flags {
    /// Is it memory of the program that a clone lacks?
    pub fn apart(self) -> bool {
        self.not_cloned && !self.device && !self.userfault && !self.hugetlb
    }
}

/// Parses either file: maps is smaps without the figures.
pub(super) fn parse(text: &[u8]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.split(|&b| b == b'\n') {
        // A header starts with a lower-case hexadecimal digit, a figure with a capital.
        match line.first() {
            Some(b'0'..=b'9' | b'a'..=b'f') => entries.extend(header(line)),
            Some(_) => {
                if let Some(entry) = entries.last_mut() {
                    figure(line, entry);
                }
            }
            None => {}
        }
    }
    for entry in &mut entries {
        entry.classify();
    }
    entries
}

fn header(line: &[u8]) -> Option<Entry> {
    let mut rest = line;
    let mut field = || {
        let end = rest.iter().position(|&b| b == b' ').unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        rest = tail.get(1..).unwrap_or_default();
        std::str::from_utf8(word).ok()
    };
    let (start, end) = field()?.split_once('-')?;
    let perms = field()?.as_bytes();
    let offset = field()?;
    let (major, minor) = field()?.split_once(':')?;
    let inode = field()?.parse().ok()?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (name, deleted) = plain_name(rest.trim_ascii_start());
    let mapping = Mapping {
        start: hex(start)?,
        end: hex(end)?,
        perms: Perms {
            read: perms.first() == Some(&b'r'),
            write: perms.get(1) == Some(&b'w'),
            exec: perms.get(2) == Some(&b'x'),
            shared: perms.get(3) == Some(&b's'),
        },
        offset: hex(offset)?,
        dev: (hex(major)? as u32, hex(minor)? as u32),
        inode,
        name,
        deleted,
        ..Mapping::default()
    };
    (mapping.start < mapping.end).then_some(Entry { mapping, flags: Flags::default() })
}

/// The kernel escapes newlines alone (seq_file_path in fs/proc/task_mmu.c) and marks unlinked files.
fn plain_name(name: &[u8]) -> (Vec<u8>, bool) {
    let (name, deleted) = match name.strip_suffix(b" (deleted)") {
        Some(name) => (name, true),
        None => (name, false),
    };
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(b"\\012") {
            out.push(b'\n');
            rest = tail;
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    (out, deleted)
}

fn figure(line: &[u8], entry: &mut Entry) {
    let Some((key, value)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once(':')) else {
        return;
    };
    if key == "VmFlags" {
        for flag in value.split_ascii_whitespace() {
            match flag {
                "io" | "pf" => entry.flags.device = true,
                "um" | "uw" | "ui" => entry.flags.userfault = true,
                "ht" => entry.flags.hugetlb = true,
                "dc" | "wf" => entry.flags.not_cloned = true,
                _ => {}
            }
        }
        return;
    }
    let usage = &mut entry.mapping.usage;
    let slot = match key {
        "Rss" => &mut usage.rss,
        "Pss" => &mut usage.pss,
        "Shared_Clean" => &mut usage.shared_clean,
        "Shared_Dirty" => &mut usage.shared_dirty,
        "Private_Clean" => &mut usage.private_clean,
        "Private_Dirty" => &mut usage.private_dirty,
        "Anonymous" => &mut usage.anonymous,
        "AnonHugePages" => &mut usage.anon_huge,
        "Swap" => &mut usage.swap,
        _ => return,
    };
    let kib: u64 = value.split_ascii_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    *slot = kib.saturating_mul(1024);
}

impl Entry {
    /// Sets the backing from name, permissions and flags.
    pub fn classify(&mut self) {
        let shared = self.mapping.perms.shared;
        let name = self.mapping.name.as_slice();
        let starts = |prefix: &[u8]| name.starts_with(prefix);
        self.mapping.backing = if self.flags.device || self.flags.userfault {
            // [vvar] is a bare page frame too.
            if starts(b"[v") { Backing::Kernel } else { Backing::Device }
        } else if name == b"[heap]" {
            Backing::Brk
        } else if name == b"[stack]" {
            Backing::Stack
        } else if starts(b"[vdso]") || starts(b"[vvar") || starts(b"[vsyscall]") || starts(b"[uprobes]") {
            Backing::Kernel
        } else if starts(b"[anon_shmem:") {
            Backing::SharedMemory
        } else if name.is_empty() || starts(b"[") {
            Backing::Anonymous
        } else if starts(b"anon_inode:") {
            Backing::Device
        } else if starts(b"/dev/zero") {
            // A private mapping of /dev/zero is ordinary anonymous memory, a shared one tmpfs.
            if shared { Backing::SharedMemory } else { Backing::Anonymous }
        } else if starts(b"/dev/shm/") || starts(b"/SYSV") || starts(b"/memfd:") || self.flags.hugetlb {
            if shared || self.flags.hugetlb { Backing::SharedMemory } else { Backing::File }
        } else if starts(b"/dev/") {
            Backing::Device
        } else {
            Backing::File
        };
    }

    /// Is `other` the same mapping, perhaps grown, cut or protected differently meanwhile?
    pub fn same_object(&self, other: &Entry) -> bool {
        let (a, b) = (&self.mapping, &other.mapping);
        (a.dev, a.inode, &a.name, a.perms.shared) == (b.dev, b.inode, &b.name, b.perms.shared)
            && a.start < b.end
            && b.start < a.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"\
55d0e0000000-55d0e0002000 r-xp 00001000 fe:01 1234                       /opt/a b\\012c (deleted)
Size:                  8 kB
Rss:                   4 kB
Pss:                   3 kB
Private_Dirty:         4 kB
Swap:                  8 kB
SwapPss:               1 kB
VmFlags: rd ex mr mw me sd
55d0e0002000-55d0e0004000 rw-p 00000000 00:00 0                          [heap]
VmFlags: rd wr mr mw me ac sd
7f0000000000-7f0000001000 rw-s 00000000 00:05 7                          /dev/zero (deleted)
7f0000001000-7f0000002000 rw-p 00000000 00:00 0 \n\
7f0000002000-7f0000003000 rw-s 00000000 00:06 99                         /dev/nvidia0
7ffd00000000-7ffd00004000 r--p 00000000 00:00 0                          [vvar]
VmFlags: rd mr pf io de dd sd
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";

    #[test]
    fn headers_figures_and_flags() {
        let entries = parse(TEXT);
        let first = &entries[0].mapping;
        assert_eq!((first.start, first.end, first.offset), (0x55d0_e000_0000, 0x55d0_e000_2000, 0x1000));
        assert_eq!((first.dev, first.inode), ((0xfe, 1), 1234));
        assert_eq!((first.name.as_slice(), first.deleted), (&b"/opt/a b\nc"[..], true));
        assert_eq!(first.perms, Perms { read: true, write: false, exec: true, shared: false });
        assert_eq!((first.usage.rss, first.usage.pss, first.usage.swap), (4096, 3072, 8192));
        let backings: Vec<_> = entries.iter().map(|e| e.mapping.backing).collect();
        use Backing::*;
        assert_eq!(backings, [File, Brk, SharedMemory, Anonymous, Device, Kernel, Kernel]);
        assert!(entries[5].flags.device);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in proptest::collection::vec(0u8..=255, 0..400)) {
            parse(&text);
        }
    }
}
