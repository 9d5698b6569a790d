//! `wmr hexdump`: bytes at an address.

use super::address;
use crate::Answer;
use crate::cli::Options;
use crate::document::{Document, hex};
use crate::failure::{self, Failure, code};
use crate::open::open_target;
use crate::screen::{Look, Screen};
use serde::Serialize;
use std::ffi::OsStr;
use wmr_memory::{Fault, Target};

/// Most bytes that are shown at once.
pub const MOST: u64 = 1 << 20;
/// Bytes that are read at once: what fails costs no more than the rest of one.
const PIECE: u64 = 4096;
const LINE: usize = 16;
const MAPPING_ENDS: &str = "the mapping ends";

#[derive(Serialize)]
struct Body {
    addr: String,
    /// Bytes that could be read, from `addr` on.
    bytes: u64,
    /// In hexadecimal, two digits a byte.
    data: String,
    /// Why there are fewer than were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<Ended>,
    #[serde(skip)]
    raw: Vec<u8>,
    #[serde(skip)]
    start: u64,
}

#[derive(Serialize)]
struct Ended {
    addr: String,
    why: String,
}

pub fn run(word: &OsStr, addr: &str, len: u64, options: &Options) -> Result<Answer, Failure> {
    let start = address::parse(addr)?;
    if len == 0 || len > MOST {
        return Err(Failure::new(code::USAGE, "LEN is between 1 and 1M"));
    }
    let target = open_target(word, options)?;
    address::mapped(&target, start)?;
    let end = target.mapping(start).map_or(u64::MAX, |mapping| mapping.end);
    let (raw, fault) = read(&target, start, len.min(end - start));
    // Another mapping may begin there: it is another thing.
    let end =
        (start.saturating_add(len) > end).then(|| Ended { addr: hex(end), why: MAPPING_ENDS.to_owned() });
    let body = Body {
        addr: hex(start),
        bytes: raw.len() as u64,
        data: raw.iter().map(|byte| format!("{byte:02x}")).collect(),
        ended: fault.map(|fault| Ended { addr: hex(fault.addr), why: fault.why.to_string() }).or(end),
        raw,
        start,
    };
    target.memory.finish().map_err(failure::of_lost)?;
    if body.raw.is_empty()
        && let Some(ended) = &body.ended
        && !options.json
    {
        return Err(Failure::new(code::FAILED, format!("cannot read {}: {}", ended.addr, ended.why)));
    }
    let text = if options.json {
        let mut notes = target.notes.clone();
        notes.extend(target.memory.troubles());
        Document::of_target("wmr/hexdump/1", &target, notes, body).to_text()
    } else {
        let screen = Screen::of_stdout(options.color);
        let mut page = lines(&screen, body.start, &body.raw, &|_| Look::Plain);
        if let Some(ended) = &body.ended {
            page.push_str(&screen.paint(Look::Dim, &format!("  ends at {}: {}\n", ended.addr, ended.why)));
        }
        screen.finished(page)
    };
    Ok(Answer { text, code: 0, complaint: None })
}

/// Up to `len` bytes from `addr` on, and why there are no more.
pub fn read(target: &Target, addr: u64, len: u64) -> (Vec<u8>, Option<Fault>) {
    let mut reader = target.reader();
    let mut bytes = Vec::new();
    let end = addr.saturating_add(len.min(MOST));
    let mut at = addr;
    while at < end {
        // Piece by piece, none across a page: what the last page lacks costs that page.
        let next = (at / PIECE + 1).saturating_mul(PIECE).min(end);
        let mut piece = [0; PIECE as usize];
        let piece = &mut piece[..(next - at) as usize];
        if let Err(fault) = reader.read(at, piece) {
            return (bytes, Some(fault));
        }
        bytes.extend_from_slice(piece);
        at = next;
    }
    (bytes, None)
}

/// Sixteen bytes a line, as words of one byte and as text; `look` colours each byte by its offset.
pub fn lines(screen: &Screen, start: u64, bytes: &[u8], look: &dyn Fn(usize) -> Look) -> String {
    let mut out = String::new();
    for (n, line) in bytes.chunks(LINE).enumerate() {
        let at = start.saturating_add((n * LINE) as u64);
        // Without an indent: 80 columns just hold it.
        out.push_str(&screen.paint(Look::Dim, &format!("{at:012x}")));
        let mut i = 0;
        let (mut hexes, mut texts) = (String::new(), String::new());
        while i < line.len() {
            // Bytes of one look are painted together.
            let this = look(n * LINE + i);
            let run =
                line[i..].iter().enumerate().take_while(|(k, _)| look(n * LINE + i + k) == this).count();
            let (mut hex, mut text) = (String::new(), String::new());
            for (k, byte) in line[i..i + run].iter().enumerate() {
                hex.push_str(if (i + k).is_multiple_of(8) { "  " } else { " " });
                hex.push_str(&format!("{byte:02x}"));
                text.push(if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' });
            }
            hexes.push_str(&screen.paint(this, &hex));
            texts.push_str(&screen.paint(this, &text));
            i += run;
        }
        let lacking = LINE - line.len();
        let gap = 3 * lacking + usize::from(line.len() <= 8) + 2;
        out.push_str(&format!("{hexes}{}{texts}\n", " ".repeat(gap)));
    }
    out
}
