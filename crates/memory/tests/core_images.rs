//! Images of this very process, against the dynamic loader's own word.

use std::ffi::CString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use wmr_memory::{Backing, Fault, FileSource, Image, Mapping, Memory, Perms, Why, find_images};

struct OwnFiles;

impl FileSource for OwnFiles {
    fn open(&self, mapping: &Mapping) -> Option<File> {
        File::open(std::ffi::OsStr::from_bytes(&mapping.name)).ok()
    }
}

struct NoFiles;

impl FileSource for NoFiles {
    fn open(&self, _: &Mapping) -> Option<File> {
        None
    }
}

/// This process by way of `/proc/self/mem`.
struct OwnMemory(File);

impl OwnMemory {
    fn open() -> Self {
        OwnMemory(File::open("/proc/self/mem").unwrap())
    }
}

impl Memory for OwnMemory {
    fn extent(&self, _: u64) -> Option<(u64, &[u8])> {
        None
    }

    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        self.0.read_exact_at(buf, addr).map_err(|_| Fault::new(addr, Why::NotMapped))
    }
}

fn own_mappings() -> Vec<Mapping> {
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let perms = fields.next()?.as_bytes();
        let offset = fields.next()?;
        let inode = fields.nth(1)?.parse().ok()?;
        let name = fields.next().unwrap_or_default();
        Some(Mapping {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            perms: Perms {
                read: perms[0] == b'r',
                write: perms[1] == b'w',
                exec: perms[2] == b'x',
                shared: perms[3] == b's',
            },
            offset: u64::from_str_radix(offset, 16).ok()?,
            inode,
            name: name.into(),
            backing: if inode != 0 { Backing::File } else { Backing::Anonymous },
            ..Mapping::default()
        })
    };
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter_map(parse).collect()
}

/// A symbol's address by the loader.
fn dlsym(name: &str) -> u64 {
    let name = CString::new(name).unwrap();
    // SAFETY: looks up a name; the address is only compared.
    let addr = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    assert!(!addr.is_null());
    addr as u64
}

#[test]
fn own_images_agree_with_the_loader() {
    for files in [&OwnFiles as &dyn FileSource, &NoFiles] {
        let (images, notes) = find_images(&own_mappings(), files, &OwnMemory::open());
        assert!(notes.is_empty(), "{notes:?}");
        assert!(images.windows(2).all(|w| w[0].segments[0].range.start < w[1].segments[0].range.start));
        let libc_image = images.iter().find(|i| i.path.ends_with(b"/libc.so.6")).unwrap();
        for name in ["malloc", "environ", "qsort", "puts", "mallinfo2"] {
            let addr = dlsym(name);
            assert_eq!(libc_image.symbol(name), Some(addr), "{name}");
            let (found, offset) = libc_image.symbolize(addr).unwrap();
            assert_eq!(libc_image.symbol(found), Some(addr), "{found}");
            assert_eq!(offset, 0);
        }
        assert_eq!(libc_image.symbol("no_such_symbol"), None);
        assert!(libc_image.build_id.as_ref().is_some_and(|id| id.len() == 20));
        assert_eq!(biases_by_loader(), biases(&images));
    }
}

fn biases(images: &[Image]) -> Vec<u64> {
    let mut biases: Vec<u64> = images.iter().map(|i| i.bias).collect();
    biases.sort_unstable();
    biases
}

/// Of every image `dl_iterate_phdr` lists, the vdso aside.
fn biases_by_loader() -> Vec<u64> {
    unsafe extern "C" fn each(info: *mut libc::dl_phdr_info, _: usize, out: *mut libc::c_void) -> i32 {
        // SAFETY: the loader hands a valid pointer, and `out` is the vector below.
        unsafe { (*out.cast::<Vec<u64>>()).push((*info).dlpi_addr) };
        0
    }
    let mut listed: Vec<u64> = Vec::new();
    // SAFETY: `each` only appends to `listed`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(each), (&raw mut listed).cast()) };
    // SAFETY: no pointers involved.
    let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    listed.retain(|&bias| bias != vdso);
    listed.sort_unstable();
    listed
}

#[test]
fn the_program_itself_has_sections_statics_and_file_bytes() {
    static MARK: [u8; 32] = *b"thirty-two bytes of read-only da";
    let (images, _) = find_images(&own_mappings(), &OwnFiles, &OwnMemory::open());
    let at = std::hint::black_box(&MARK).as_ptr() as u64;
    let own = images.iter().find(|i| i.contains(at)).unwrap();
    assert!(own.section(".rodata").unwrap().contains(&at));
    assert!(own.writable().all(|r| !r.contains(&at)));
    assert_eq!(&own.file_bytes(at).unwrap()[..32], &MARK);
    assert_eq!(own.file_bytes(own.segments.last().unwrap().range.end), None);
    let here = dlsym as *const () as u64;
    let (name, offset) = own.symbolize(here).unwrap();
    assert!(name.contains("dlsym"), "{name}");
    assert_eq!(offset, 0);
}

#[test]
fn a_file_mapped_as_data_is_no_image() {
    let libc_path = own_mappings().into_iter().map(|m| m.name).find(|n| n.ends_with(b"/libc.so.6")).unwrap();
    let file = File::open(std::ffi::OsStr::from_bytes(&libc_path)).unwrap();
    // SAFETY: read-only and private; the library is not written to during the test.
    let data = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    assert_eq!(&data[..4], b"\x7fELF");
    let (images, _) = find_images(&own_mappings(), &OwnFiles, &OwnMemory::open());
    assert_eq!(images.iter().filter(|i| i.path == libc_path).count(), 1);
    assert!(images.iter().all(|i| !i.contains(data.as_ptr() as u64)));
}
