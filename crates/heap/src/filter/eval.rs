//! Evaluating over batches of rows, in SQL's three-valued logic: what compares with NULL is unknown.

use super::Column;
use super::parser::{Cmp, Cond, Num, Op};

/// Code of a row that has no text in a column.
pub const NO_TEXT: u32 = u32::MAX;

/// A batch of rows. `rows` are indexes in it; what is asked for is appended in their order.
pub trait Batch {
    /// Values, and `None` for NULL.
    fn numbers(&mut self, column: Column, rows: &[u32], out: &mut Vec<Option<i64>>);
    /// Codes of texts in [`Texts`], and [`NO_TEXT`].
    fn texts(&mut self, column: Column, rows: &[u32], out: &mut Vec<u32>);
}

/// The texts of each column by code.
pub trait Texts: Sync {
    fn count(&self, column: Column) -> u32;
    fn text(&self, column: Column, code: u32) -> &str;
}

/// True, false, unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truth {
    No,
    Yes,
    Unknown,
}

impl Truth {
    #[inline]
    fn of(value: bool) -> Truth {
        if value { Truth::Yes } else { Truth::No }
    }
}

/// An expression in which every question about a text is answered already, one bool a code.
#[derive(Debug)]
pub struct Bound(Node);

#[derive(Debug)]
enum Node {
    Const(bool),
    Compare(Cmp, Num, Num),
    /// A column with a constant: by far the most frequent.
    CompareColumn(Cmp, Column, i64),
    In(Num, Vec<i64>),
    Text(Column, Vec<bool>),
    /// Ranks of the texts of both columns, taken together.
    TextColumns(Cmp, [(Column, Vec<u32>); 2]),
    NumberIsNull(Num),
    TextIsNull(Column),
    Not(Box<Node>),
    All(Vec<Node>),
    Any(Vec<Node>),
}

pub(super) fn bind(cond: &Cond, texts: &dyn Texts) -> Bound {
    Bound(node(cond, texts))
}

fn node(cond: &Cond, texts: &dyn Texts) -> Node {
    match cond {
        Cond::Const(value) => Node::Const(*value),
        Cond::Compare(cmp, Num::Column(column), Num::Literal(n)) => Node::CompareColumn(*cmp, *column, *n),
        Cond::Compare(cmp, a, b) => Node::Compare(*cmp, a.clone(), b.clone()),
        Cond::In(number, list) => Node::In(number.clone(), list.clone()),
        Cond::Text(column, test) => {
            let codes = 0..texts.count(*column);
            Node::Text(*column, codes.map(|code| test.holds(texts.text(*column, code))).collect())
        }
        Cond::TextColumns(cmp, a, b) => {
            let list = |column: Column| (0..texts.count(column)).map(move |code| texts.text(column, code));
            let mut sorted: Vec<&str> = list(*a).chain(list(*b)).collect();
            sorted.sort_unstable();
            sorted.dedup();
            let ranks = |column: Column| {
                let rank = |text: &str| sorted.partition_point(|other| *other < text) as u32;
                (column, list(column).map(rank).collect())
            };
            Node::TextColumns(*cmp, [ranks(*a), ranks(*b)])
        }
        Cond::NumberIsNull(number) => Node::NumberIsNull(number.clone()),
        Cond::TextIsNull(column) => Node::TextIsNull(*column),
        Cond::Not(inner) => Node::Not(Box::new(node(inner, texts))),
        Cond::All(terms) => Node::All(terms.iter().map(|term| node(term, texts)).collect()),
        Cond::Any(terms) => Node::Any(terms.iter().map(|term| node(term, texts)).collect()),
    }
}

impl Bound {
    /// Which of the first `len` rows of the batch match, in order.
    pub fn select(&self, batch: &mut dyn Batch, len: u32) -> Vec<u32> {
        let mut rows: Vec<u32> = (0..len).collect();
        // At the top unknown is as good as false: each term of an AND leaves fewer rows to the next.
        let terms = match &self.0 {
            Node::All(terms) => terms.as_slice(),
            other => std::slice::from_ref(other),
        };
        for term in terms {
            if rows.is_empty() {
                break;
            }
            let truths = term.truths(batch, &rows);
            let mut truth = truths.into_iter();
            rows.retain(|_| truth.next() == Some(Truth::Yes));
        }
        rows
    }
}

impl Node {
    fn truths(&self, batch: &mut dyn Batch, rows: &[u32]) -> Vec<Truth> {
        let of = |value: Option<bool>| value.map_or(Truth::Unknown, Truth::of);
        match self {
            Node::Const(value) => vec![Truth::of(*value); rows.len()],
            Node::CompareColumn(cmp, column, with) => {
                let mut values = Vec::with_capacity(rows.len());
                batch.numbers(*column, rows, &mut values);
                values.into_iter().map(|a| of(a.map(|a| cmp.holds(&a, with)))).collect()
            }
            Node::Compare(cmp, a, b) => {
                let (a, b) = (numbers(a, batch, rows), numbers(b, batch, rows));
                let pairs = a.into_iter().zip(b);
                pairs.map(|(a, b)| of(a.zip(b).map(|(a, b)| cmp.holds(&a, &b)))).collect()
            }
            Node::In(number, list) => {
                let values = numbers(number, batch, rows).into_iter();
                values.map(|a| of(a.map(|a| list.binary_search(&a).is_ok()))).collect()
            }
            Node::Text(column, holds) => {
                let codes = texts(*column, batch, rows).into_iter();
                codes.map(|code| of(holds.get(code as usize).copied())).collect()
            }
            Node::TextColumns(cmp, [(a, ranks), (b, other_ranks)]) => {
                let (a, b) = (texts(*a, batch, rows), texts(*b, batch, rows));
                let pairs = a.into_iter().zip(b);
                let rank = |ranks: &[u32], code: u32| ranks.get(code as usize).copied();
                pairs
                    .map(|(a, b)| {
                        of(rank(ranks, a).zip(rank(other_ranks, b)).map(|(a, b)| cmp.holds(&a, &b)))
                    })
                    .collect()
            }
            Node::NumberIsNull(number) => {
                numbers(number, batch, rows).into_iter().map(|n| Truth::of(n.is_none())).collect()
            }
            Node::TextIsNull(column) => {
                texts(*column, batch, rows).into_iter().map(|code| Truth::of(code == NO_TEXT)).collect()
            }
            Node::Not(inner) => {
                let turned = |truth| match truth {
                    Truth::No => Truth::Yes,
                    Truth::Yes => Truth::No,
                    Truth::Unknown => Truth::Unknown,
                };
                inner.truths(batch, rows).into_iter().map(turned).collect()
            }
            Node::All(terms) => chain(terms, batch, rows, Truth::Yes, Truth::No),
            Node::Any(terms) => chain(terms, batch, rows, Truth::No, Truth::Yes),
        }
    }
}

/// AND and OR: `decided` ends the matter for a row, which is then not asked further.
fn chain(terms: &[Node], batch: &mut dyn Batch, rows: &[u32], start: Truth, decided: Truth) -> Vec<Truth> {
    let mut result = vec![start; rows.len()];
    // Places in `result` of the rows that are still open, and the rows.
    let mut open: Vec<u32> = (0..rows.len() as u32).collect();
    let mut ask = rows.to_vec();
    for term in terms {
        if open.is_empty() {
            break;
        }
        let truths = term.truths(batch, &ask);
        let mut kept = 0;
        for (i, truth) in truths.into_iter().enumerate() {
            let place = open[i];
            if truth == decided {
                result[place as usize] = decided;
                continue;
            }
            if truth == Truth::Unknown {
                result[place as usize] = Truth::Unknown;
            }
            (open[kept], ask[kept]) = (place, ask[i]);
            kept += 1;
        }
        open.truncate(kept);
        ask.truncate(kept);
    }
    result
}

fn texts(column: Column, batch: &mut dyn Batch, rows: &[u32]) -> Vec<u32> {
    let mut out = Vec::with_capacity(rows.len());
    batch.texts(column, rows, &mut out);
    out
}

fn numbers(number: &Num, batch: &mut dyn Batch, rows: &[u32]) -> Vec<Option<i64>> {
    match number {
        Num::Column(column) => {
            let mut out = Vec::with_capacity(rows.len());
            batch.numbers(*column, rows, &mut out);
            out
        }
        Num::Literal(n) => vec![Some(*n); rows.len()],
        Num::Op(op, a, b) => {
            let mut left = numbers(a, batch, rows);
            if let Num::Literal(b) = **b {
                left.iter_mut().for_each(|a| *a = a.and_then(|a| op.apply(a, b)));
                return left;
            }
            let right = numbers(b, batch, rows);
            let apply = |op: Op, a: Option<i64>, b: Option<i64>| op.apply(a?, b?);
            left.iter_mut().zip(right).for_each(|(a, b)| *a = apply(*op, *a, b));
            left
        }
    }
}
