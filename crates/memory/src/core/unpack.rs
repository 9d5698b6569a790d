//! Compressed cores.

use super::{CoreError, CoreOptions};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

pub(super) struct Unpacked {
    /// Unlinked: gone when it is closed, however the program ends.
    pub file: File,
    pub note: Option<String>,
}

const CHUNK: usize = 1 << 20;
const BLOCK: usize = 4096;
/// How often free space is asked for, in bytes written, and what is left of it to others.
const SPACE_EVERY: u64 = 64 << 20;
const SPACE_LEFT: u64 = 256 << 20;

/// Unpacks a file that begins as zstd or lz4 do; `None` when it does not.
pub(super) fn unpack(file: &mut File, options: &CoreOptions) -> Result<Option<Unpacked>, CoreError> {
    let mut magic = Vec::new();
    let fail = |format, why: io::Error| CoreError::Unpack { format, why: why.to_string() };
    let begin = Read::by_ref(file).take(4).read_to_end(&mut magic).and_then(|_| file.rewind());
    begin.map_err(|why| fail("perhaps", why))?;
    match magic[..] {
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let decoder = zstd::Decoder::new(&*file).map_err(|why| fail("zstd", why))?;
            write(decoder, "zstd", options).map(Some)
        }
        [0x04, 0x22, 0x4d, 0x18] => {
            write(lz4_flex::frame::FrameDecoder::new(io::BufReader::new(&*file)), "lz4", options).map(Some)
        }
        _ => Ok(None),
    }
}

fn write(mut from: impl Read, format: &'static str, options: &CoreOptions) -> Result<Unpacked, CoreError> {
    let fail = |why: String| CoreError::Unpack { format, why };
    // Cores are large and /tmp is often memory.
    let default = || std::env::var_os("TMPDIR").map_or_else(|| "/var/tmp".into(), PathBuf::from);
    let folder = options.scratch.clone().unwrap_or_else(default);
    let mut file =
        tempfile::tempfile_in(&folder).map_err(|why| fail(format!("{}: {why}", folder.display())))?;
    let limit = options.max_unpacked.unwrap_or(u64::MAX >> 1);

    let mut buf = vec![0; CHUNK];
    let (mut len, mut written, mut checked) = (0_u64, 0_u64, None);
    let mut note = None;
    loop {
        let n = match fill(&mut from, &mut buf) {
            (n, Ok(())) => n,
            (n, Err(why)) if len + n as u64 > 0 => {
                note = Some(format!("the {format}-compressed core ends early or is damaged: {why}"));
                n
            }
            (_, Err(why)) => return Err(fail(why.to_string())),
        };
        if len == 0 && !buf[..n].starts_with(b"\x7fELF") {
            return Err(fail("what is inside is no ELF core".into()));
        }
        if len + n as u64 > limit {
            return Err(fail(format!("it unpacks to more than the {limit} bytes allowed")));
        }
        if checked.is_none_or(|at| written - at >= SPACE_EVERY) {
            let free = free_space(&file).map_err(|why| fail(why.to_string()))?;
            if free < SPACE_LEFT {
                let folder = folder.display();
                return Err(fail(format!(
                    "{folder} has {free} bytes left after {written}; set TMPDIR to a roomier place"
                )));
            }
            checked = Some(written);
        }
        written += write_sparse(&mut file, &buf[..n]).map_err(|why| fail(why.to_string()))?;
        len += n as u64;
        if n < CHUNK || note.is_some() {
            break;
        }
    }
    // A hole at the end counts.
    file.set_len(len).map_err(|why| fail(why.to_string()))?;
    Ok(Unpacked { file, note })
}

/// Reads until `buf` is full or the input ends; what was read counts even if then it fails.
fn fill(from: &mut impl Read, buf: &mut [u8]) -> (usize, io::Result<()>) {
    let mut n = 0;
    while n < buf.len() {
        match from.read(&mut buf[n..]) {
            Ok(0) => break,
            Ok(got) => n += got,
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            Err(why) => return (n, Err(why)),
        }
    }
    (n, Ok(()))
}

/// Leaves holes for blocks of zeroes; answers the bytes really written.
fn write_sparse(file: &mut File, bytes: &[u8]) -> io::Result<u64> {
    let mut written = 0;
    for run in bytes.chunks(BLOCK).collect::<Vec<_>>().chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        let size: usize = run.iter().map(|b| b.len()).sum();
        if is_zero(run[0]) {
            file.seek(SeekFrom::Current(size as i64))?;
        } else {
            run.iter().try_for_each(|block| file.write_all(block))?;
            written += size as u64;
        }
    }
    Ok(written)
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|&b| b == 0)
}

fn free_space(file: &File) -> io::Result<u64> {
    let stat = nix::sys::statvfs::fstatvfs(file).map_err(io::Error::from)?;
    Ok(stat.blocks_available() as u64 * stat.fragment_size() as u64)
}
