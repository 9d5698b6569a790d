//! Which line of its file an instruction is of: the tables that code objects keep, by how they are written.

/// How a table of lines is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `co_lnotab` of Python 2: steps of instructions and of lines, each a byte.
    Unsigned,
    /// `co_lnotab` of 3.6 to 3.9: lines may go back.
    Signed,
    /// `co_linetable` of 3.10 (`Objects/lnotab_notes.txt`): −128 stands for "of no line".
    Ranges,
    /// `co_linetable` of 3.11 and later (`Objects/locations.md`): entries of several forms, with columns.
    Locations,
}

/// The line that the instruction at `offset` bytes of the code is of. None: it is of no line, or the table
/// ends before it.
pub fn line(format: Format, first: i64, offset: i64, table: impl Iterator<Item = u8>) -> Option<i64> {
    match format {
        _ if offset < 0 => Some(first),
        Format::Unsigned => by_steps(first, offset, table, i64::from),
        Format::Signed => by_steps(first, offset, table, |step| i64::from(step as i8)),
        Format::Ranges => by_ranges(first, offset, table),
        Format::Locations => by_locations(first, offset, table),
    }
}

fn by_steps(
    first: i64,
    offset: i64,
    mut table: impl Iterator<Item = u8>,
    step: fn(u8) -> i64,
) -> Option<i64> {
    let (mut at, mut line) = (0i64, first);
    while let (Some(bytes), Some(lines)) = (table.next(), table.next()) {
        at += i64::from(bytes);
        if at > offset {
            break;
        }
        line += step(lines);
    }
    Some(line)
}

fn by_ranges(first: i64, offset: i64, mut table: impl Iterator<Item = u8>) -> Option<i64> {
    const NO_LINE: i8 = -128;
    let (mut end, mut line) = (0i64, first);
    while let (Some(bytes), Some(lines)) = (table.next(), table.next()) {
        end += i64::from(bytes);
        let lines = lines as i8;
        if lines != NO_LINE {
            line += i64::from(lines);
        }
        if end > offset {
            return (lines != NO_LINE).then_some(line);
        }
    }
    None
}

fn by_locations(first: i64, offset: i64, table: impl Iterator<Item = u8>) -> Option<i64> {
    let mut table = table.peekable();
    let (mut end, mut line) = (0i64, first);
    while let Some(head) = table.next() {
        end += 2 * (i64::from(head & 7) + 1);
        // `_PyCodeLocationInfoKind`: 15 none, 14 long, 13 no columns, 10 to 12 one line with a step of 0 to 2.
        let of_line = match head >> 3 & 15 {
            15 => false,
            13 | 14 => {
                line += signed_varint(&mut table);
                true
            }
            form => {
                line += i64::from(form.saturating_sub(10));
                true
            }
        };
        if end > offset {
            return of_line.then_some(line);
        }
        // An entry begins where the highest bit is set.
        while table.next_if(|byte| byte & 0x80 == 0).is_some() {}
    }
    None
}

/// Six bits at a time, lowest first; the lowest bit of all is the sign.
fn signed_varint(table: &mut std::iter::Peekable<impl Iterator<Item = u8>>) -> i64 {
    let (mut value, mut shift) = (0u64, 0);
    while let Some(byte) = table.next_if(|byte| byte & 0x80 == 0) {
        if shift < 36 {
            value |= u64::from(byte & 0x3f) << shift;
        }
        shift += 6;
        if byte & 0x40 == 0 {
            break;
        }
    }
    let size = (value >> 1) as i64;
    if value & 1 == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(format: Format, offset: i64, table: &[u8]) -> Option<i64> {
        line(format, 10, offset, table.iter().copied())
    }

    #[test]
    fn steps() {
        // Two bytes on line 10, four on 11, then back to 9.
        let table = [2, 1, 4, 0xfe];
        assert_eq!([0, 1, 2, 5, 6].map(|at| of(Format::Signed, at, &table)), [10, 10, 11, 11, 9].map(Some));
        assert_eq!(of(Format::Unsigned, 6, &table), Some(11 + 0xfe));
        assert_eq!(of(Format::Signed, -1, &table), Some(10));
    }

    #[test]
    fn ranges() {
        // Bytes 0–1 on line 11, 2–3 of no line, 4–5 on line 9.
        let table = [2, 1, 2, 0x80, 2, 0xfe];
        assert_eq!([0, 2, 4, 6].map(|at| of(Format::Ranges, at, &table)), [Some(11), None, Some(9), None]);
    }

    #[test]
    fn locations() {
        // A short form on line 10, one line further on, none, long with −3 and columns.
        let table = [0x80, 0x11, 0x80 | 11 << 3, 1, 2, 0x80 | 15 << 3 | 1, 0x80 | 14 << 3, 7, 0, 1, 2];
        assert_eq!(
            [0, 2, 4, 7, 8, 10].map(|at| of(Format::Locations, at, &table)),
            [Some(10), Some(11), None, None, Some(8), None]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(table: Vec<u8>, first: i32, offset in -2i64..1 << 34) {
            for format in [Format::Unsigned, Format::Signed, Format::Ranges, Format::Locations] {
                line(format, first.into(), offset, table.iter().copied());
            }
        }
    }
}
