//! From text to words.

use super::FilterError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// A column or a keyword, as it was written.
    Name(String),
    Number(i64),
    /// In single quotes.
    Text(String),
    /// In double quotes: a string, or on the left a column.
    Quoted(String),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

#[derive(Debug, Clone)]
pub struct Token {
    pub word: Word,
    pub at: usize,
    pub len: usize,
}

/// Longer ones first.
const SIGNS: [&str; 17] =
    ["<>", "!=", "==", "<=", ">=", "&&", "||", "=", "<", ">", "(", ")", ",", "+", "-", "*", "/"];

fn wrong(message: impl Into<String>, at: usize, len: usize) -> FilterError {
    FilterError { message: message.into(), at, len: len.max(1), list_columns: false }
}

/// All words, an [`End`](Word::End) last.
pub fn words(text: &str) -> Result<Vec<Token>, FilterError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let (word, len) = if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        } else if c == '\'' || c == '"' {
            quoted(rest, c, at)?
        } else if c.is_ascii_digit() || c == '.' {
            number(rest, at)?
        } else if c.is_alphabetic() || c == '_' {
            let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            (Word::Name(rest[..len].to_owned()), len)
        } else if c == '%' {
            (Word::Sign("%"), 1)
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            (Word::Sign(sign), sign.len())
        } else {
            return Err(wrong("this character has no meaning here", at, c.len_utf8()));
        };
        tokens.push(Token { word, at, len });
        at += len;
    }
    tokens.push(Token { word: Word::End, at: text.len(), len: 1 });
    Ok(tokens)
}

/// A quote inside is written twice, as in SQL.
fn quoted(rest: &str, quote: char, at: usize) -> Result<(Word, usize), FilterError> {
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((i, c)) = chars.next() {
        if c != quote {
            value.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            value.push(quote);
        } else {
            let word = if quote == '"' { Word::Quoted(value) } else { Word::Text(value) };
            return Ok((word, i + 1));
        }
    }
    Err(wrong(format!("this {quote} is never closed"), at, 1))
}

/// `42`, `0x2a`, `10K`, `1.5MiB`: suffixes count in 1,024s, as everywhere in this program.
fn number(rest: &str, at: usize) -> Result<(Word, usize), FilterError> {
    let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_').unwrap_or(rest.len());
    let written = &rest[..len];
    let bad = |why: &str| Err(wrong(why, at, len));
    // No value of a column is larger, so that a larger number compares as this one.
    let clamped = |n: u64| Ok((Word::Number(i64::try_from(n).unwrap_or(i64::MAX)), len));
    let plain = written.replace('_', "");
    if let Some(hex) = plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")) {
        return match u64::from_str_radix(hex, 16) {
            Ok(n) => clamped(n),
            Err(_) => bad("no hexadecimal number of up to 64 bits"),
        };
    }
    let digits = plain.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(plain.len());
    let (digits, suffix) = plain.split_at(digits);
    let suffix = suffix.to_ascii_lowercase();
    let factor: u64 = match suffix.trim_end_matches("ib").trim_end_matches('b') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return bad("no number, nor a size such as 10K, 1.5M or 2GiB"),
    };
    if digits.contains('.') {
        if factor == 1 {
            return bad("numbers are whole, but for sizes such as 1.5K");
        }
        return match digits.parse::<f64>() {
            // `as` saturates.
            Ok(n) => clamped((n * factor as f64) as u64),
            Err(_) => bad("no number"),
        };
    }
    match digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)) {
        Some(n) => clamped(n),
        None => bad("larger than 64 bits"),
    }
}
