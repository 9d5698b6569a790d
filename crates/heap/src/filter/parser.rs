//! From words to a typed expression.

use super::lexer::{Token, Word, words};
use super::like::Pattern;
use super::{Column, FilterError, Type};

/// Brackets in brackets, NOT of NOT, and sums of so many terms are refused: each level is a call.
const MAX_DEPTH: u32 = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Cmp {
    #[inline]
    pub fn holds<T: Ord + ?Sized>(self, a: &T, b: &T) -> bool {
        match self {
            Cmp::Eq => a == b,
            Cmp::Ne => a != b,
            Cmp::Lt => a < b,
            Cmp::Le => a <= b,
            Cmp::Gt => a > b,
            Cmp::Ge => a >= b,
        }
    }

    /// With its sides exchanged.
    fn turned(self) -> Cmp {
        match self {
            Cmp::Lt => Cmp::Gt,
            Cmp::Le => Cmp::Ge,
            Cmp::Gt => Cmp::Lt,
            Cmp::Ge => Cmp::Le,
            same => same,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

impl Op {
    /// `None` where there is no result: NULL, as in SQL.
    #[inline]
    pub fn apply(self, a: i64, b: i64) -> Option<i64> {
        match self {
            Op::Add => a.checked_add(b),
            Op::Sub => a.checked_sub(b),
            Op::Mul => a.checked_mul(b),
            Op::Div => a.checked_div(b),
            Op::Rem => a.checked_rem(b),
        }
    }
}

/// A number.
#[derive(Debug, Clone)]
pub enum Num {
    Column(Column),
    Literal(i64),
    Op(Op, Box<Num>, Box<Num>),
}

/// What is asked of the text of one column.
#[derive(Debug, Clone)]
pub enum TextTest {
    Compare(Cmp, String),
    In(Vec<String>),
    Like(Pattern),
}

impl TextTest {
    pub fn holds(&self, text: &str) -> bool {
        match self {
            TextTest::Compare(cmp, with) => cmp.holds(text, with.as_str()),
            TextTest::In(list) => list.iter().any(|one| one == text),
            TextTest::Like(pattern) => pattern.matches(text),
        }
    }
}

/// True, false or unknown.
#[derive(Debug, Clone)]
pub enum Cond {
    Const(bool),
    Compare(Cmp, Num, Num),
    /// Sorted.
    In(Num, Vec<i64>),
    Text(Column, TextTest),
    TextColumns(Cmp, Column, Column),
    NumberIsNull(Num),
    TextIsNull(Column),
    Not(Box<Cond>),
    All(Vec<Cond>),
    Any(Vec<Cond>),
}

impl Cond {
    /// AND, flat and with the cheap ones first: a row that one term rules out is not asked the others.
    pub fn all(terms: Vec<Cond>) -> Cond {
        let mut flat = Vec::with_capacity(terms.len());
        for term in terms {
            match term {
                Cond::All(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        flat.sort_by_cached_key(Cond::cost);
        Cond::All(flat)
    }

    fn any(mut terms: Vec<Cond>) -> Cond {
        terms.sort_by_cached_key(Cond::cost);
        Cond::Any(terms)
    }

    fn cost(&self) -> u32 {
        let mut sum = 0u32;
        self.columns(&mut |column| sum = sum.saturating_add(column.cost()));
        sum
    }

    pub fn uses(&self, wanted: Column) -> bool {
        let mut found = false;
        self.columns(&mut |column| found |= column == wanted);
        found
    }

    fn columns(&self, f: &mut dyn FnMut(Column)) {
        match self {
            Cond::Const(_) => {}
            Cond::Compare(_, a, b) => {
                a.columns(f);
                b.columns(f);
            }
            Cond::In(a, _) | Cond::NumberIsNull(a) => a.columns(f),
            Cond::Text(column, _) | Cond::TextIsNull(column) => f(*column),
            Cond::TextColumns(_, a, b) => {
                f(*a);
                f(*b);
            }
            Cond::Not(inner) => inner.columns(f),
            Cond::All(terms) | Cond::Any(terms) => terms.iter().for_each(|term| term.columns(f)),
        }
    }
}

impl Num {
    fn columns(&self, f: &mut dyn FnMut(Column)) {
        match self {
            Num::Column(column) => f(*column),
            Num::Literal(_) => {}
            Num::Op(_, a, b) => {
                a.columns(f);
                b.columns(f);
            }
        }
    }
}

/// What a piece of the text turned out to be, where it is, and how deep.
struct Part {
    value: Value,
    at: usize,
    len: usize,
    depth: u32,
}

enum Value {
    Number(Num),
    /// A column.
    Text(Column),
    Literal(String),
    Cond(Cond),
    Null,
}

impl Part {
    fn what(&self) -> &'static str {
        match self.value {
            Value::Number(_) => "a number",
            Value::Text(_) | Value::Literal(_) => "text",
            Value::Cond(_) => "a condition",
            Value::Null => "NULL",
        }
    }

    fn wrong(&self, message: impl Into<String>) -> FilterError {
        FilterError { message: message.into(), at: self.at, len: self.len, list_columns: false }
    }

    fn number(self) -> Result<(Num, u32), FilterError> {
        let message = match &self.value {
            Value::Number(number) => return Ok((number.clone(), self.depth)),
            Value::Null => "NULL is asked for with IS NULL or IS NOT NULL".to_owned(),
            _ => format!("a number is needed here, this is {}", self.what()),
        };
        Err(self.wrong(message))
    }

    fn cond(self) -> Result<(Cond, u32), FilterError> {
        let message = match self.value {
            Value::Cond(cond) => return Ok((cond, self.depth)),
            _ => format!("this is {}, it must be compared with something", self.what()),
        };
        Err(FilterError { message, at: self.at, len: self.len, list_columns: false })
    }
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    /// Calls that are open.
    depth: u32,
}

/// # Errors
/// As [`Filter::parse`](super::Filter::parse).
pub fn parse(text: &str) -> Result<Cond, FilterError> {
    let mut parser = Parser { tokens: words(text)?, next: 0, depth: 0 };
    if parser.token().word == Word::End {
        return Err(parser.wrong("an expression is needed, e.g. kind = 'str' and bytes > 1K", true));
    }
    let part = parser.any()?;
    if parser.token().word != Word::End {
        return Err(parser.wrong("the expression could end here; AND or OR was expected", false));
    }
    Ok(part.cond()?.0)
}

impl Parser {
    fn token(&self) -> &Token {
        // The last one is an end, and is never passed.
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn wrong(&self, message: impl Into<String>, list_columns: bool) -> FilterError {
        let token = self.token();
        FilterError { message: message.into(), at: token.at, len: token.len, list_columns }
    }

    fn advance(&mut self) -> Token {
        let token = self.token().clone();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    fn is_keyword(&self, keyword: &str) -> bool {
        matches!(&self.token().word, Word::Name(name) if name.eq_ignore_ascii_case(keyword))
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let there = self.is_keyword(keyword);
        if there {
            self.advance();
        }
        there
    }

    fn sign(&mut self, sign: &str) -> bool {
        let there = matches!(&self.token().word, Word::Sign(s) if *s == sign);
        if there {
            self.advance();
        }
        there
    }

    fn deeper(&self, depth: u32) -> Result<u32, FilterError> {
        if depth >= MAX_DEPTH {
            return Err(self.wrong(format!("nested deeper than {MAX_DEPTH} levels"), false));
        }
        Ok(depth + 1)
    }

    /// Runs `f` one call deeper.
    fn within<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, FilterError>) -> Result<T, FilterError> {
        self.depth = self.deeper(self.depth)?;
        let result = f(self);
        self.depth -= 1;
        result
    }

    fn any(&mut self) -> Result<Part, FilterError> {
        self.joined(|p| p.keyword("or") || p.sign("||"), Parser::all, Cond::any)
    }

    fn all(&mut self) -> Result<Part, FilterError> {
        self.joined(|p| p.keyword("and") || p.sign("&&"), Parser::not, Cond::all)
    }

    /// One term, or several with `join` between them.
    fn joined(
        &mut self,
        join: fn(&mut Self) -> bool,
        term: fn(&mut Self) -> Result<Part, FilterError>,
        make: fn(Vec<Cond>) -> Cond,
    ) -> Result<Part, FilterError> {
        let first = term(self)?;
        if !join(self) {
            return Ok(first);
        }
        let at = first.at;
        let (cond, mut deepest) = first.cond()?;
        let mut terms = vec![cond];
        let len = loop {
            let next = term(self)?;
            let end = next.at + next.len;
            let (cond, depth) = next.cond()?;
            terms.push(cond);
            deepest = deepest.max(depth);
            if !join(self) {
                break end - at;
            }
        };
        let depth = self.deeper(deepest)?;
        Ok(Part { value: Value::Cond(make(terms)), at, len, depth })
    }

    fn not(&mut self) -> Result<Part, FilterError> {
        let at = self.token().at;
        if !self.keyword("not") {
            return self.predicate();
        }
        let inner = self.within(Parser::not)?;
        let len = inner.at + inner.len - at;
        let (cond, depth) = inner.cond()?;
        let depth = self.deeper(depth)?;
        Ok(Part { value: Value::Cond(Cond::Not(Box::new(cond))), at, len, depth })
    }

    /// A comparison, BETWEEN, IN, LIKE, IS NULL; or just what stands on its left.
    fn predicate(&mut self) -> Result<Part, FilterError> {
        let left = self.sum(true)?;
        let (at, depth) = (left.at, left.depth);
        if let Word::Sign(sign) = self.token().word
            && let Some(cmp) = comparison(sign)
        {
            self.advance();
            let right = self.sum(false)?;
            let end = right.at + right.len;
            let depth = self.deeper(depth.max(right.depth))?;
            let cond = compare(cmp, left, right)?;
            if let Word::Sign(sign) = self.token().word
                && comparison(sign).is_some()
            {
                return Err(self.wrong("comparisons are joined by AND: 1 < bytes AND bytes < 9", false));
            }
            return Ok(Part { value: Value::Cond(cond), at, len: end - at, depth });
        }
        if self.keyword("is") {
            let not = self.keyword("not");
            if !self.keyword("null") {
                return Err(self.wrong("NULL was expected", false));
            }
            let cond = match left.value {
                Value::Text(column) => Cond::TextIsNull(column),
                Value::Number(number) => Cond::NumberIsNull(number),
                Value::Literal(_) => Cond::Const(false),
                Value::Null => Cond::Const(true),
                Value::Cond(_) => return Err(left.wrong("IS NULL asks about a column, this is a condition")),
            };
            return self.finished(cond, not, at, depth);
        }
        let not = self.is_keyword("not");
        if not {
            self.advance();
        }
        let cond = if self.keyword("between") {
            self.between(left)?
        } else if self.keyword("in") {
            self.list(left)?
        } else if self.keyword("like") {
            self.like(left)?
        } else if not {
            return Err(self.wrong("BETWEEN, IN or LIKE was expected", false));
        } else {
            return Ok(left);
        };
        self.finished(cond, not, at, depth)
    }

    fn finished(&self, cond: Cond, not: bool, at: usize, depth: u32) -> Result<Part, FilterError> {
        let last = &self.tokens[self.next.saturating_sub(1)];
        let cond = if not { Cond::Not(Box::new(cond)) } else { cond };
        let depth = self.deeper(depth + 2)?;
        Ok(Part { value: Value::Cond(cond), at, len: (last.at + last.len).saturating_sub(at).max(1), depth })
    }

    fn between(&mut self, left: Part) -> Result<Cond, FilterError> {
        let low = self.sum(false)?;
        if !self.keyword("and") {
            return Err(self.wrong("BETWEEN low AND high: AND was expected", false));
        }
        let high = self.sum(false)?;
        let copy = Part { value: left.value.copied(), ..left };
        Ok(Cond::all(vec![compare(Cmp::Ge, left, low)?, compare(Cmp::Le, copy, high)?]))
    }

    fn list(&mut self, left: Part) -> Result<Cond, FilterError> {
        if !self.sign("(") {
            return Err(self.wrong("IN is followed by a list in brackets: IN (1, 2)", false));
        }
        let (mut numbers, mut texts, mut others) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let item = self.within(|p| p.sum(false))?;
            match (&left.value, item.value) {
                (Value::Number(_), Value::Number(Num::Literal(n))) => numbers.push(n),
                (Value::Text(_), Value::Literal(text)) => texts.push(text),
                (_, value) => {
                    let copy = Part { value: left.value.copied(), ..left };
                    others.push(compare(Cmp::Eq, copy, Part { value, ..item })?);
                }
            }
            if self.sign(")") {
                break;
            }
            if !self.sign(",") {
                return Err(self.wrong("a comma or ) was expected", false));
            }
        }
        numbers.sort_unstable();
        match left.value {
            Value::Number(number) if !numbers.is_empty() => others.push(Cond::In(number, numbers)),
            Value::Text(column) if !texts.is_empty() => {
                others.push(Cond::Text(column, TextTest::In(texts)));
            }
            _ => {}
        }
        Ok(Cond::any(others))
    }

    fn like(&mut self, left: Part) -> Result<Cond, FilterError> {
        let Value::Text(column) = left.value else {
            let what = left.what();
            return Err(left.wrong(format!("LIKE looks at a column of text, this is {what}")));
        };
        let token = self.advance();
        let (Word::Text(text) | Word::Quoted(text)) = token.word else {
            self.next = self.next.saturating_sub(1);
            return Err(self.wrong("LIKE is followed by a pattern in quotes: 'app.%'", false));
        };
        let mut escape = None;
        if self.keyword("escape") {
            let (Word::Text(c) | Word::Quoted(c)) = &self.token().word else {
                return Err(self.wrong("ESCAPE is followed by one character in quotes", false));
            };
            let mut chars = c.chars();
            escape = chars.next();
            if escape.is_none() || chars.next().is_some() {
                return Err(self.wrong("ESCAPE is followed by one character in quotes", false));
            }
            self.advance();
        }
        match Pattern::new(&text, escape) {
            Some(pattern) => Ok(Cond::Text(column, TextTest::Like(pattern))),
            None => Err(FilterError {
                message: "the pattern ends with its escape character".to_owned(),
                at: token.at,
                len: token.len,
                list_columns: false,
            }),
        }
    }

    fn sum(&mut self, left: bool) -> Result<Part, FilterError> {
        self.arithmetic(left, Parser::product, &[("+", Op::Add), ("-", Op::Sub)])
    }

    fn product(&mut self, left: bool) -> Result<Part, FilterError> {
        self.arithmetic(left, Parser::factor, &[("*", Op::Mul), ("/", Op::Div), ("%", Op::Rem)])
    }

    fn arithmetic(
        &mut self,
        left: bool,
        operand: fn(&mut Self, bool) -> Result<Part, FilterError>,
        ops: &[(&str, Op)],
    ) -> Result<Part, FilterError> {
        let mut result = operand(self, left)?;
        while let Some(op) = ops.iter().find_map(|(sign, op)| self.sign(sign).then_some(*op)) {
            let right = operand(self, false)?;
            let (at, end) = (result.at, right.at + right.len);
            let ((a, deep), (b, deep_too)) = (result.number()?, right.number()?);
            let depth = self.deeper(deep.max(deep_too))?;
            let number = match (&a, &b) {
                (Num::Literal(x), Num::Literal(y)) => match op.apply(*x, *y) {
                    Some(n) => Num::Literal(n),
                    None => return Err(self.wrong("this cannot be computed", false)),
                },
                _ => Num::Op(op, Box::new(a), Box::new(b)),
            };
            result = Part { value: Value::Number(number), at, len: end - at, depth };
        }
        Ok(result)
    }

    fn factor(&mut self, left: bool) -> Result<Part, FilterError> {
        let at = self.token().at;
        if self.sign("-") {
            let inner = self.within(|p| p.factor(false))?;
            let len = inner.at + inner.len - at;
            let (number, depth) = inner.number()?;
            let number = match number {
                // No literal is the least number.
                Num::Literal(n) => Num::Literal(-n),
                other => Num::Op(Op::Sub, Box::new(Num::Literal(0)), Box::new(other)),
            };
            return Ok(Part { value: Value::Number(number), at, len, depth: self.deeper(depth)? });
        }
        if self.sign("(") {
            let inner = self.within(Parser::any)?;
            if !self.sign(")") {
                return Err(self.wrong("a closing bracket was expected", false));
            }
            let last = &self.tokens[self.next - 1];
            return Ok(Part { len: last.at + 1 - at, at, ..inner });
        }
        self.operand(left)
    }

    fn operand(&mut self, left: bool) -> Result<Part, FilterError> {
        let token = self.token().clone();
        let value = match token.word {
            Word::Number(n) => Value::Number(Num::Literal(n)),
            Word::Text(text) => Value::Literal(text),
            // On the left `"kind"` names a column, as SQL has it; on the right it is a string.
            Word::Quoted(text) => match Column::of_name(&text).filter(|_| left) {
                Some(column) => column_value(column),
                None => Value::Literal(text),
            },
            Word::Name(name) => match name.to_ascii_lowercase().as_str() {
                "null" => Value::Null,
                "true" => Value::Cond(Cond::Const(true)),
                "false" => Value::Cond(Cond::Const(false)),
                "and" | "or" | "is" | "in" | "like" | "between" | "escape" | "not" => {
                    return Err(self.wrong("a column or a value was expected before this", true));
                }
                _ => match Column::of_name(&name) {
                    Some(column) => column_value(column),
                    None if left => return Err(self.wrong("there is no such column", true)),
                    None => {
                        return Err(self.wrong("there is no such column; text is quoted: 'like this'", true));
                    }
                },
            },
            Word::End => return Err(self.wrong("the expression ends too early", true)),
            Word::Sign(_) => return Err(self.wrong("a column or a value was expected", true)),
        };
        self.advance();
        Ok(Part { value, at: token.at, len: token.len, depth: 0 })
    }
}

impl Value {
    fn copied(&self) -> Value {
        match self {
            Value::Number(number) => Value::Number(number.clone()),
            Value::Text(column) => Value::Text(*column),
            Value::Literal(text) => Value::Literal(text.clone()),
            Value::Cond(cond) => Value::Cond(cond.clone()),
            Value::Null => Value::Null,
        }
    }
}

fn column_value(column: Column) -> Value {
    match column.type_of() {
        Type::Number => Value::Number(Num::Column(column)),
        Type::Text => Value::Text(column),
    }
}

fn comparison(sign: &str) -> Option<Cmp> {
    Some(match sign {
        "=" | "==" => Cmp::Eq,
        "!=" | "<>" => Cmp::Ne,
        "<" => Cmp::Lt,
        "<=" => Cmp::Le,
        ">" => Cmp::Gt,
        ">=" => Cmp::Ge,
        _ => return None,
    })
}

fn compare(cmp: Cmp, left: Part, right: Part) -> Result<Cond, FilterError> {
    let (what, with) = (left.what(), right.what());
    Ok(match (left.value, right.value) {
        (Value::Number(a), Value::Number(b)) => Cond::Compare(cmp, a, b),
        (Value::Text(column), Value::Literal(text)) => Cond::Text(column, TextTest::Compare(cmp, text)),
        (Value::Literal(text), Value::Text(column)) => {
            Cond::Text(column, TextTest::Compare(cmp.turned(), text))
        }
        (Value::Text(a), Value::Text(b)) => Cond::TextColumns(cmp, a, b),
        (Value::Literal(a), Value::Literal(b)) => Cond::Const(cmp.holds(&a, &b)),
        (Value::Null, _) | (_, Value::Null) => {
            return Err(FilterError {
                message: "NULL is asked for with IS NULL or IS NOT NULL".to_owned(),
                at: right.at,
                len: right.len,
                list_columns: false,
            });
        }
        _ => {
            return Err(FilterError {
                message: format!("this is {with}, it is compared with {what}"),
                at: right.at,
                len: right.len,
                list_columns: false,
            });
        }
    })
}
