//! Exported symbols by the dynamic section alone: for files without section headers, and for images
//! whose file cannot be had but whose memory can be read.

use super::symbols::{ENTRY, MAX_SYMBOLS, Slice, SymbolTable};

/// Reads bytes at an address as in the file: `None` when not all are there, or when more
/// was read than all images together should take.
pub(super) type ReadAt<'a> = &'a dyn Fn(u64, usize) -> Option<Vec<u8>>;

const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_STRSZ: u64 = 10;
const DT_GNU_HASH: u64 = 0x6fff_fef5;

/// The table `PT_DYNAMIC` (address, size) leads to. `bias` is what glibc has added to the addresses
/// in a loaded image's dynamic section (it relocates them in place; musl and the file do not).
pub(super) fn table(dynamic: (u64, u64), bias: u64, read: ReadAt) -> Option<SymbolTable> {
    let (addr, size) = dynamic;
    let bytes = read(addr, size.min(1 << 14) as usize)?;
    let (mut strtab, mut strsz, mut symtab, mut hash, mut gnu) = (None, None, None, None, None);
    for entry in bytes.as_chunks::<16>().0 {
        let (tag, value) = (word(entry, 0)?, word(entry, 8)?);
        match tag {
            0 => break,
            DT_STRTAB => strtab = Some(value),
            DT_STRSZ => strsz = Some(value),
            DT_SYMTAB => symtab = Some(value),
            DT_HASH => hash = Some(value),
            DT_GNU_HASH => gnu = Some(value),
            _ => {}
        }
    }
    // Relocated or not: the one whose bytes are there. Images lie far above their own size, so an
    // unrelocated address minus the bias is never readable.
    let unbiased = |value: u64| match read(value.wrapping_sub(bias), 1) {
        Some(_) => value.wrapping_sub(bias),
        None => value,
    };
    let count = match (gnu, hash) {
        (Some(gnu), _) => gnu_count(unbiased(gnu), read)?,
        (None, Some(hash)) => dword(&read(unbiased(hash).checked_add(4)?, 4)?)?.into(),
        (None, None) => return None,
    };
    let entries = (count.min(MAX_SYMBOLS as u64)) * ENTRY as u64;
    Some(SymbolTable {
        entries: Slice::Owned(read(unbiased(symtab?), entries as usize)?),
        names: Slice::Owned(read(unbiased(strtab?), usize::try_from(strsz?).ok()?)?),
        gnu_hash: None,
    })
}

/// Number of symbols a `DT_GNU_HASH` table covers: the end of the chain that starts last.
fn gnu_count(addr: u64, read: ReadAt) -> Option<u64> {
    let head = read(addr, 16)?;
    let (buckets, first, bloom) = (dword(&head)?, dword(&head[4..])?, dword(&head[8..])?);
    if buckets as usize > MAX_SYMBOLS || bloom as usize > MAX_SYMBOLS {
        return None;
    }
    let buckets_at = addr.checked_add(16 + 8 * u64::from(bloom))?;
    let starts = read(buckets_at, 4 * buckets as usize)?;
    let last = starts.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).max()?;
    let Some(mut i) = last.checked_sub(first) else {
        // No exported symbol: only the undefined ones, before `first`.
        return Some(first.into());
    };
    let chains_at = buckets_at.checked_add(4 * u64::from(buckets))?;
    while (i as usize) < MAX_SYMBOLS {
        let chain = dword(&read(chains_at.checked_add(4 * u64::from(i))?, 4)?)?;
        i += 1;
        if chain & 1 == 1 {
            return Some(u64::from(first) + u64::from(i));
        }
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

fn dword(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|b| u32::from_le_bytes(*b))
}
