//! What the helper says: 64-bit words, their number first.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

/// Registers of a hundred thousand threads.
const MAX_WORDS: u64 = 1 << 23;

pub(super) fn send(mut socket: &UnixStream, words: &[u64]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity((words.len() + 1) * 8);
    bytes.extend_from_slice(&(words.len() as u64).to_le_bytes());
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    socket.write_all(&bytes)
}

pub(super) fn receive(mut socket: &UnixStream) -> io::Result<Vec<u64>> {
    let mut count = [0; 8];
    socket.read_exact(&mut count)?;
    let count = u64::from_le_bytes(count);
    if count > MAX_WORDS {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    socket.take(count * 8).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != count * 8 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap_or_default())).collect())
}
