//! The bytes of a snapshot file; described for others in docs/snapshot-format.md.
//!
//! A header, chunks one behind the other, an index of the chunks, and a trailer that tells where the
//! index is. Each chunk begins with what the index says of it, so that a file without its end can be read
//! from the front. All numbers are little-endian.

use xxhash_rust::xxh3::xxh3_64;

/// Like PNG's: the first byte shows a transfer that keeps only seven bits, the line ends one that
/// rewrites those.
const MAGIC: [u8; 8] = *b"\x89WMR\r\n\x1a\n";
const CHUNK: [u8; 4] = *b"wmrC";
const END: [u8; 8] = *b"wmr-end\n";

/// A reader refuses another major version; a greater minor one has what it may not know of.
pub(super) const MAJOR: u16 = 1;
pub(super) const MINOR: u16 = 0;

pub(super) const HEADER: usize = 24;
pub(super) const HEAD: usize = 48;
pub(super) const INDEX_ENTRY: usize = HEAD + 8;
pub(super) const TRAILER: usize = 32;

/// Most bytes that a chunk of memory or of a file unpacks to.
pub(super) const MAX_PART: u32 = 1 << 20;
/// Most bytes that the facts, or the index, unpack to.
pub(super) const MAX_TABLE: u32 = 256 << 20;

pub(super) fn checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// `MAGIC`, major and minor version, 4 bytes of zeroes, checksum of these 16 bytes.
pub(super) fn header() -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..8].copy_from_slice(&MAGIC);
    out[8..10].copy_from_slice(&MAJOR.to_le_bytes());
    out[10..12].copy_from_slice(&MINOR.to_le_bytes());
    let sum = checksum(&out[..16]);
    out[16..].copy_from_slice(&sum.to_le_bytes());
    out
}

pub(super) fn has_magic(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Major and minor version, and whether the header is as it was written.
pub(super) fn version(bytes: &[u8]) -> Option<(u16, u16, bool)> {
    let header: &[u8; HEADER] = bytes.first_chunk().filter(|_| has_magic(bytes))?;
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    Some((half(8), half(10), checksum(&header[..16]) == word(header, 16)))
}

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// JSON: everything that is not bytes of memory or of files. Twice, at both ends.
    Facts,
    /// Memory from `at` on.
    Memory,
    /// The file of that number in the facts, from offset `at` on.
    File(u32),
    Index,
    /// Of a later minor version.
    Unknown(u32),
}

impl Kind {
    /// As in the file: number of the kind, number of the file.
    fn encode(self) -> (u32, u32) {
        match self {
            Kind::Facts => (1, 0),
            Kind::Memory => (2, 0),
            Kind::File(file) => (3, file),
            Kind::Index => (4, 0),
            Kind::Unknown(kind) => (kind, 0),
        }
    }

    fn decode(kind: u32, file: u32) -> Kind {
        match kind {
            1 => Kind::Facts,
            2 => Kind::Memory,
            3 => Kind::File(file),
            4 => Kind::Index,
            other => Kind::Unknown(other),
        }
    }

    /// Most bytes it unpacks to.
    pub fn limit(self) -> u32 {
        match self {
            Kind::Memory | Kind::File(_) => MAX_PART,
            Kind::Facts | Kind::Index | Kind::Unknown(_) => MAX_TABLE,
        }
    }
}

/// How a chunk's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Plain,
    Zstd,
    Unknown(u32),
}

/// What stands in front of a chunk's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub kind: Kind,
    pub codec: Codec,
    pub at: u64,
    /// Bytes unpacked.
    pub raw: u32,
    /// Bytes in the file.
    pub stored: u32,
    /// Of the bytes as they are in the file.
    pub checksum: u64,
}

impl Head {
    pub fn encode(&self) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        let (kind, file) = self.kind.encode();
        let codec = match self.codec {
            Codec::Plain => 0,
            Codec::Zstd => 1,
            Codec::Unknown(codec) => codec,
        };
        out[..4].copy_from_slice(&CHUNK);
        for (i, half) in [kind, codec, file, self.raw, self.stored].into_iter().enumerate() {
            out[4 + 4 * i..8 + 4 * i].copy_from_slice(&half.to_le_bytes());
        }
        out[24..32].copy_from_slice(&self.at.to_le_bytes());
        out[32..40].copy_from_slice(&self.checksum.to_le_bytes());
        let sum = checksum(&out[..40]);
        out[40..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// `None` when it is none, or not as it was written.
    pub fn decode(bytes: &[u8]) -> Option<Head> {
        let bytes: &[u8; HEAD] = bytes.first_chunk().filter(|bytes| bytes.starts_with(&CHUNK))?;
        if checksum(&bytes[..40]) != word(bytes, 40) {
            return None;
        }
        let half = |i: usize| word(bytes, 4 + 4 * i) as u32;
        Some(Head {
            kind: Kind::decode(half(0), half(2)),
            codec: match half(1) {
                0 => Codec::Plain,
                1 => Codec::Zstd,
                other => Codec::Unknown(other),
            },
            at: word(bytes, 24),
            raw: half(3),
            stored: half(4),
            checksum: word(bytes, 32),
        })
    }
}

/// A chunk, and the place of its head in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub offset: u64,
    pub head: Head,
}

impl Chunk {
    pub fn encode(&self) -> [u8; INDEX_ENTRY] {
        let mut out = [0; INDEX_ENTRY];
        out[..8].copy_from_slice(&self.offset.to_le_bytes());
        out[8..].copy_from_slice(&self.head.encode());
        out
    }

    pub fn decode(entry: &[u8; INDEX_ENTRY]) -> Option<Chunk> {
        Some(Chunk { offset: word(entry, 0), head: Head::decode(&entry[8..])? })
    }

    /// Where the next chunk begins.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(HEAD as u64).saturating_add(self.head.stored.into())
    }
}

/// Offset of the index's head, 8 bytes of zeroes, checksum of these 16, `END`.
pub(super) fn trailer(index: u64) -> [u8; TRAILER] {
    let mut out = [0; TRAILER];
    out[..8].copy_from_slice(&index.to_le_bytes());
    let sum = checksum(&out[..16]);
    out[16..24].copy_from_slice(&sum.to_le_bytes());
    out[24..].copy_from_slice(&END);
    out
}

/// Where the index is, by the last bytes of the file.
pub(super) fn index_offset(file: &[u8]) -> Option<u64> {
    let bytes: &[u8; TRAILER] = file.last_chunk().filter(|bytes| bytes.ends_with(&END))?;
    (checksum(&bytes[..16]) == word(bytes, 16)).then(|| word(bytes, 0))
}

/// Eight bytes of a record that has them.
fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_every_flipped_bit_is_seen() {
        let head = Head {
            kind: Kind::File(7),
            codec: Codec::Zstd,
            at: 0x7fff_1234_5000,
            raw: 1 << 18,
            stored: 99,
            checksum: 0x0123_4567_89ab_cdef,
        };
        let chunk = Chunk { offset: 5 << 32, head };
        assert_eq!(Chunk::decode(&chunk.encode()), Some(chunk));
        let encoded = head.encode();
        for bit in 0..HEAD * 8 {
            let mut damaged = encoded;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::decode(&damaged), None, "bit {bit}");
        }
        assert_eq!(version(&header()), Some((MAJOR, MINOR, true)));
        assert_eq!(index_offset(&trailer(77)), Some(77));
        assert_eq!(index_offset(&trailer(77)[1..]), None);
    }
}
