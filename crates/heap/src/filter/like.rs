//! Patterns of LIKE: `%` is any text, `_` any one character. Case counts, as it does in names.

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    One(char),
    AnyOne,
    Any,
}

impl Pattern {
    /// `None`: the pattern ends with the escape character.
    pub fn new(text: &str, escape: Option<char>) -> Option<Pattern> {
        let mut pieces = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let piece = match c {
                c if Some(c) == escape => Piece::One(chars.next()?),
                '%' => Piece::Any,
                '_' => Piece::AnyOne,
                c => Piece::One(c),
            };
            // Two in a row say no more than one.
            if piece != Piece::Any || pieces.last() != Some(&Piece::Any) {
                pieces.push(piece);
            }
        }
        Some(Pattern(pieces))
    }

    /// Goes back to the last `%` only: earlier ones can stay as they are.
    pub fn matches(&self, text: &str) -> bool {
        let pattern = &self.0;
        let (mut at, mut rest) = (0, text.chars());
        let mut retry: Option<(usize, std::str::Chars)> = None;
        loop {
            if pattern.get(at) == Some(&Piece::Any) {
                at += 1;
                retry = Some((at, rest.clone()));
                continue;
            }
            let mut ahead = rest.clone();
            match (pattern.get(at), ahead.next()) {
                (None, None) => return true,
                (Some(Piece::AnyOne), Some(_)) => (at, rest) = (at + 1, ahead),
                (Some(Piece::One(wanted)), Some(c)) if *wanted == c => (at, rest) = (at + 1, ahead),
                _ => {
                    let Some((after, from)) = &mut retry else { return false };
                    if from.next().is_none() {
                        return false;
                    }
                    (at, rest) = (*after, from.clone());
                }
            }
        }
    }
}
