//! Text from the target, made harmless: it is untrusted, whatever it names.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Longest name that is shown, columns.
const MAX_SHOWN: usize = 200;

/// For people: what moves the cursor, changes the terminal's state or turns the order of characters
/// around is escaped, and the rest is cut at a sane length.
pub fn shown(text: &str) -> String {
    let mut out = String::new();
    let mut width = 0;
    for c in text.chars() {
        let start = out.len();
        if is_harmful(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        width += out[start..].width();
        if width > MAX_SHOWN {
            out.truncate(start);
            out.push('…');
            break;
        }
    }
    out
}

/// Control characters (C1 too: 0x9b starts a sequence by itself), line and paragraph separators, and
/// what is invisible or reorders its neighbours.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Bytes as valid UTF-8, what is not escaped as `\xff`.
pub fn utf8(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// `utf8`, then [`shown`].
pub fn shown_bytes(bytes: &[u8]) -> String {
    // A name of megabytes is not converted for the sake of its first line.
    shown(&utf8(&bytes[..bytes.len().min(4 * MAX_SHOWN)]))
}

/// The part after the last slash.
pub fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or_default()
}

/// A command line for people, its program without the folder.
pub fn command_line(cmdline: &[Vec<u8>], exe: &[u8]) -> String {
    let Some((program, arguments)) = cmdline.split_first() else {
        return shown_bytes(file_name(exe));
    };
    let mut line = shown_bytes(file_name(program));
    for argument in arguments.iter().take(MAX_SHOWN) {
        line.push(' ');
        line.push_str(&shown_bytes(argument));
    }
    line
}

/// `text` in at most `width` columns, its end cut.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        let w = c.width().unwrap_or(0);
        if used + w + 1 > width {
            break;
        }
        used += w;
        out.push(c);
    }
    if width > 0 {
        out.push('…');
    }
    out
}

/// `text` in at most `width` columns, cut in its middle: both ends of a path tell something.
pub fn cut_middle(text: &str, width: usize) -> String {
    if text.width() <= width || width < 8 {
        return cut(text, width);
    }
    // Of a path in a narrow column the end is all there is room for.
    let head = if width < 24 { "…".to_owned() } else { cut(text, width / 3) };
    let mut tail: Vec<char> = Vec::new();
    let mut used = head.width();
    for c in text.chars().rev() {
        let w = c.width().unwrap_or(0);
        if used + w > width {
            break;
        }
        used += w;
        tail.push(c);
    }
    head + &tail.into_iter().rev().collect::<String>()
}

/// Words in lines of at most `width` columns.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().map_or(0, |l| l.width());
        if line > 0 && line + 1 + word.width() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// A word of a shell's command line.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else if word.chars().any(is_harmful) {
        // $'…' is what bash, zsh and ksh read escapes in.
        let escaped: String = word
            .chars()
            .flat_map(|c| match c {
                '\'' | '\\' => format!("\\{c}").chars().collect::<Vec<_>>(),
                c if is_harmful(c) && (c as u32) < 0x80 => format!("\\x{:02x}", c as u32).chars().collect(),
                c if is_harmful(c) => format!("\\U{:08x}", c as u32).chars().collect(),
                c => vec![c],
            })
            .collect();
        format!("$'{escaped}'")
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_safe_from_names() {
        assert_eq!(shown("a\x1b[31mb\nc\u{9b}\u{202e}d"), "a\\u{1b}[31mb\\nc\\u{9b}\\u{202e}d");
        assert_eq!(shown("naïve 名前"), "naïve 名前");
        let long = shown(&"\x1b".repeat(10_000_000));
        assert!(long.width() <= MAX_SHOWN + 1 && long.ends_with('…'));
    }

    #[test]
    fn invalid_bytes_are_kept_readable() {
        assert_eq!(utf8(b"a\xffb\xc3"), "a\\xffb\\xc3");
        assert_eq!(utf8("ä".as_bytes()), "ä");
    }

    #[test]
    fn cuts_by_columns() {
        assert_eq!(cut("名前名前", 5), "名前…");
        assert_eq!(cut("abc", 3), "abc");
        let path = "/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0";
        let short = cut_middle(path, 24);
        assert!(
            short.width() <= 24 && short.starts_with("/usr") && short.ends_with("3.11.so.1.0"),
            "{short}"
        );
    }

    #[test]
    fn shell_words() {
        assert_eq!(quoted("core.12"), "core.12");
        assert_eq!(quoted("my core's"), r"'my core'\''s'");
        assert_eq!(quoted("a\nb"), r"$'a\x0ab'");
    }

    #[test]
    fn wrapping() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
    }
}
