//! The language by itself, over rows made up here.

use super::*;
use proptest::prelude::*;
use rayon::prelude::*;
use std::time::{Duration, Instant};

/// Rows that a test writes down: addr, bytes, kind, refcount.
struct Made(Vec<(i64, i64, Option<u32>, Option<i64>)>);

const KINDS: [&str; 4] = ["str", "dict", "app.Entry", "it's"];

impl Texts for Made {
    fn count(&self, column: Column) -> u32 {
        if matches!(column, Column::Kind | Column::Type) { KINDS.len() as u32 } else { 0 }
    }

    fn text(&self, _: Column, code: u32) -> &str {
        KINDS[code as usize]
    }
}

impl Batch for &Made {
    fn numbers(&mut self, column: Column, rows: &[u32], out: &mut Vec<Option<i64>>) {
        out.extend(rows.iter().map(|&row| {
            let row = self.0[row as usize];
            match column {
                Column::Addr => Some(row.0),
                Column::Bytes => Some(row.1),
                Column::Refcount => row.3,
                _ => None,
            }
        }));
    }

    fn texts(&mut self, column: Column, rows: &[u32], out: &mut Vec<u32>) {
        out.extend(rows.iter().map(|&row| match column {
            Column::Kind | Column::Type => self.0[row as usize].2.unwrap_or(NO_TEXT),
            _ => NO_TEXT,
        }));
    }
}

fn made() -> Made {
    Made(vec![
        (0x1000, 16, Some(0), Some(1)),
        (0x2000, 2048, Some(0), Some(3)),
        (0x3000, 64, Some(1), None),
        (0x4000, 4096, Some(2), Some(7)),
        (0x5000, 32, None, None),
        (0x6000, 48, Some(3), Some(2)),
    ])
}

fn rows(text: &str) -> Vec<u32> {
    let made = made();
    let filter = Filter::parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
    filter.bind(&made).select(&mut &made, made.0.len() as u32)
}

#[test]
fn what_the_language_says() {
    let cases: &[(&str, &[u32])] = &[
        ("kind = 'str' and bytes > 1024", &[1]),
        // As gdb-heap wrote it.
        (r#"kind="str" and size > 1024"#, &[1]),
        (r#""kind" == "str" && start >= 0x2000"#, &[1]),
        ("bytes >= 2K", &[1, 3]),
        ("bytes >= 1.5KiB AND bytes < 4kb", &[1]),
        ("bytes * 2 = 32 or bytes / 64 = 1", &[0, 2]),
        ("bytes % 48 = 0 and not bytes = 0", &[5]),
        ("-bytes < -64", &[1, 3]),
        ("bytes - 16 + 2 * 8 = 64", &[2]),
        ("addr between 0x2000 and 0x3fff", &[1, 2]),
        ("addr not between 0x2000 and 0x5000", &[0, 5]),
        ("kind in ('str', 'dict')", &[0, 1, 2]),
        ("kind not in ('str', 'dict')", &[3, 5]),
        ("bytes in (16, 2 * 16, 64)", &[0, 2, 4]),
        ("addr in (bytes * 256, 0x2000)", &[0, 1]),
        ("kind like 'app.%'", &[3]),
        ("kind like '_i%'", &[2]),
        ("kind like '%t%'", &[0, 1, 2, 3, 5]),
        ("kind not like '%t'", &[0, 1, 3, 5]),
        (r"kind like 'it''s' escape '\'", &[5]),
        ("kind is null", &[4]),
        ("kind is not null and refcount is null", &[2]),
        ("refcount > 0", &[0, 1, 3, 5]),
        // Unknown is neither.
        ("not refcount > 0", &[]),
        ("refcount > 0 or bytes = 32", &[0, 1, 3, 4, 5]),
        ("not (refcount > 100 and bytes > 0)", &[0, 1, 3, 5]),
        ("not (refcount > 100 and bytes < 0)", &[0, 1, 2, 3, 4, 5]),
        ("kind = type", &[0, 1, 2, 3, 5]),
        ("kind < type or kind != 'str'", &[2, 3, 5]),
        ("'str' > kind", &[2, 3, 5]),
        ("bytes / 0 = 1 or bytes / 0 is null", &[0, 1, 2, 3, 4, 5]),
        ("bytes * 9223372036854775807 is null", &[0, 1, 2, 3, 4, 5]),
        // Kernel space: larger than any value.
        ("addr < 0xffffffff81000000", &[0, 1, 2, 3, 4, 5]),
        ("addr >= 0xffffffffff600000", &[]),
        ("((bytes)) = (16)", &[0]),
        ("true and not false and bytes = 16", &[0]),
        ("mapping is null and owner is null and bytes = 16", &[0]),
        ("BYTES = 16 Or Kind LIKE 'DICT'", &[0]),
    ];
    for (text, expected) in cases {
        assert_eq!(rows(text), *expected, "{text}");
    }
}

#[test]
fn what_is_wrong_and_where() {
    let cases = [
        ("", 0, "an expression is needed"),
        ("color = 1", 0, "no such column"),
        ("bytes = lots", 8, "text is quoted"),
        ("kind = 5", 7, "this is a number, it is compared with text"),
        ("bytes > 'x'", 8, "this is text, it is compared with a number"),
        ("bytes > 1 and kind", 14, "this is text, it must be compared"),
        ("bytes + kind > 1", 8, "a number is needed here, this is text"),
        ("addr like '0x7%'", 0, "LIKE looks at a column of text"),
        ("kind like str", 10, "a pattern in quotes"),
        ("kind like 'a!' escape '!'", 10, "ends with its escape"),
        ("kind = 'str", 7, "never closed"),
        (r#"kind = "str"#, 7, "never closed"),
        ("kind = 'str' and", 16, "ends too early"),
        ("bytes >", 7, "ends too early"),
        ("bytes > > 1", 8, "a column or a value"),
        ("bytes = 1 bytes = 2", 10, "AND or OR"),
        ("(bytes = 1", 10, "closing bracket"),
        ("bytes = 1)", 9, "could end here"),
        ("bytes = null", 8, "IS NULL"),
        ("bytes is 5", 9, "NULL was expected"),
        ("bytes between 1", 15, "AND was expected"),
        ("bytes in 5", 9, "in brackets"),
        ("bytes in ()", 10, "a column or a value"),
        ("bytes in (1 2)", 12, "a comma or )"),
        ("bytes not 5", 10, "BETWEEN, IN or LIKE"),
        ("1 < bytes < 9", 10, "joined by AND"),
        ("bytes = 12X", 8, "no number"),
        ("bytes = 1.5", 8, "numbers are whole"),
        ("bytes = 0x", 8, "hexadecimal"),
        ("bytes = 99999999999999999999", 8, "larger than 64 bits"),
        ("bytes = 1/0", 11, "cannot be computed"),
        ("bytes = $1", 8, "no meaning"),
        ("and bytes = 1", 0, "expected before this"),
    ];
    for (text, at, said) in cases {
        let error = Filter::parse(text).expect_err(text);
        assert!(error.message.contains(said), "{text}: {}", error.message);
        assert_eq!(error.at, at, "{text}: {}", error.message);
    }
}

#[test]
fn too_much_is_refused() {
    let long = format!("bytes > 1 {}", "or bytes > 1 ".repeat(1 << 17));
    assert!(Filter::parse(&long).unwrap_err().message.contains("at most"));
    for (open, close) in [("(", ")"), ("not ", ""), ("not (", ")"), ("(1 + ", ")"), ("- ", "")] {
        let text = format!("{}bytes = 1{}", open.repeat(10_000), close.repeat(10_000));
        assert!(Filter::parse(&text).is_err(), "{open}");
    }
    let sum = format!("bytes = bytes{}", " + bytes".repeat(5_000));
    assert!(Filter::parse(&sum).unwrap_err().message.contains("nested deeper"));
    // Long and flat is fine.
    let flat = format!("bytes = 16 {}", "or bytes = 17 ".repeat(4_000));
    assert_eq!(rows(&flat), [0]);
    let list = format!("bytes in ({})", vec!["16"; 10_000].join(","));
    assert_eq!(rows(&list), [0]);
}

/// Expressions with what they mean, built side by side.
fn conditions() -> impl Strategy<Value = (String, fn_tree::Tree)> {
    use fn_tree::Tree;
    let leaf = prop_oneof![
        (0i64..5000, 0..6usize).prop_map(|(n, op)| {
            let sign = ["=", "!=", "<", "<=", ">", ">="][op];
            (format!("bytes {sign} {n}"), Tree::Bytes(op, n))
        }),
        (0..4usize)
            .prop_map(|k| { (format!("kind = '{}'", KINDS[k].replace('\'', "''")), Tree::Kind(k as u32)) }),
        (0i64..8).prop_map(|n| (format!("refcount > {n}"), Tree::Refcount(n))),
        Just(("kind is null".to_owned(), Tree::NoKind)),
    ];
    leaf.prop_recursive(5, 40, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|(text, tree)| (format!("NOT ({text})"), Tree::Not(Box::new(tree)))),
            (inner.clone(), inner.clone()).prop_map(|((a, x), (b, y))| {
                (format!("({a}) AND ({b})"), Tree::And(Box::new(x), Box::new(y)))
            }),
            (inner.clone(), inner).prop_map(|((a, x), (b, y))| {
                (format!("({a}) OR ({b})"), Tree::Or(Box::new(x), Box::new(y)))
            }),
        ]
    })
}

mod fn_tree {
    /// What an expression means, row by row.
    #[derive(Debug, Clone)]
    pub enum Tree {
        Bytes(usize, i64),
        Kind(u32),
        Refcount(i64),
        NoKind,
        Not(Box<Tree>),
        And(Box<Tree>, Box<Tree>),
        Or(Box<Tree>, Box<Tree>),
    }

    impl Tree {
        pub fn holds(&self, row: (i64, i64, Option<u32>, Option<i64>)) -> Option<bool> {
            match self {
                Tree::Bytes(op, n) => {
                    Some([row.1 == *n, row.1 != *n, row.1 < *n, row.1 <= *n, row.1 > *n, row.1 >= *n][*op])
                }
                Tree::Kind(k) => row.2.map(|kind| kind == *k),
                Tree::Refcount(n) => row.3.map(|count| count > *n),
                Tree::NoKind => Some(row.2.is_none()),
                Tree::Not(a) => a.holds(row).map(|a| !a),
                Tree::And(a, b) => match (a.holds(row), b.holds(row)) {
                    (Some(false), _) | (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    _ => None,
                },
                Tree::Or(a, b) => match (a.holds(row), b.holds(row)) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    (Some(false), Some(false)) => Some(false),
                    _ => None,
                },
            }
        }
    }
}

proptest! {
    #[test]
    fn means_what_sql_means((text, tree) in conditions()) {
        let expected: Vec<u32> =
            (0..).zip(made().0).filter(|(_, row)| tree.holds(*row) == Some(true)).map(|(i, _)| i).collect();
        prop_assert_eq!(rows(&text), expected, "{}", text);
    }

    #[test]
    fn any_text_is_answered(text in "\\PC{0,60}") {
        let _ = Filter::parse(&text);
    }

    #[test]
    fn any_words_are_answered(
        words in prop::collection::vec(prop::sample::select(vec![
            "bytes", "kind", "and", "or", "not", "(", ")", "=", "<", "in", "like", "between", "is", "null",
            "'a'", "\"b\"", "1", "0x2", "3K", ",", "+", "-", "*", "/", "%", "escape", "é", "'",
        ]), 0..24)
    ) {
        if let Err(error) = Filter::parse(&words.join(" ")) {
            prop_assert!(error.len >= 1 && error.at <= words.join(" ").len());
        }
    }

    #[test]
    fn like_is_what_it_says(pattern in "[ab%_]{0,8}", text in "[abc]{0,10}") {
        fn slow(pattern: &[char], text: &[char]) -> bool {
            match (pattern.split_first(), text.split_first()) {
                (None, rest) => rest.is_none(),
                (Some(('%', more)), _) => (0..=text.len()).any(|n| slow(more, &text[n..])),
                (Some(('_', more)), Some((_, rest))) => slow(more, rest),
                (Some((c, more)), Some((d, rest))) => c == d && slow(more, rest),
                (Some(_), None) => false,
            }
        }
        let chars = |s: &str| s.chars().collect::<Vec<_>>();
        let compiled = like::Pattern::new(&pattern, None).unwrap();
        prop_assert_eq!(compiled.matches(&text), slow(&chars(&pattern), &chars(&text)));
    }
}

/// Ten million rows and three terms. Generous for a busy machine and for a build that is not optimised.
#[test]
fn ten_million_rows() {
    const ROWS: u32 = 10_000_000;
    const BATCH: u32 = 4096;
    struct Counted(u32);
    impl Batch for Counted {
        fn numbers(&mut self, _: Column, rows: &[u32], out: &mut Vec<Option<i64>>) {
            out.extend(
                rows.iter().map(|&row| Some(i64::from((self.0 + row).wrapping_mul(2654435761) % 4096))),
            );
        }
        fn texts(&mut self, _: Column, rows: &[u32], out: &mut Vec<u32>) {
            out.extend(rows.iter().map(|&row| (self.0 + row) % 4));
        }
    }
    let filter = Filter::parse("kind = 'str' and bytes > 1K and addr between 100 and 3000").unwrap();
    let bound = filter.bind(&made());
    let began = Instant::now();
    let found: usize = (0..ROWS / BATCH)
        .into_par_iter()
        .map(|batch| bound.select(&mut Counted(batch * BATCH), BATCH).len())
        .sum();
    let took = began.elapsed();
    println!("{found} of {ROWS} rows in {took:?}");
    assert!(found > 1_000_000 && took < Duration::from_secs(3), "{found} in {took:?}");
}
