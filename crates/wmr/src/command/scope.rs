//! `--where` and `--arena`: which blocks an answer is about.

use super::address;
use crate::cli::Scope;
use crate::failure::{self, Failure, code};
use crate::open::Subject;
use crate::text;
use wmr_alloc::glibc::Arena;
use wmr_heap::filter::Filter;

/// What was typed, read: nothing is opened for an expression that is wrong.
pub struct Wanted {
    filter: Option<Filter>,
    arena: Option<String>,
}

/// Reads an expression.
pub fn filter(text: &str) -> Result<Filter, Failure> {
    Filter::parse(text).map_err(|error| failure::of_filter(text, &error))
}

fn both(a: Option<Filter>, b: Option<Filter>) -> Option<Filter> {
    match (a, b) {
        (Some(a), Some(b)) => Some(Filter::and(a, b)),
        (a, b) => a.or(b),
    }
}

impl Wanted {
    pub fn of(scope: &Scope) -> Result<Wanted, Failure> {
        if let Some(word) = &scope.arena {
            address::parse(word)?;
        }
        Ok(Wanted { filter: scope.filter.as_deref().map(filter).transpose()?, arena: scope.arena.clone() })
    }

    /// Both must hold.
    pub fn and(self, other: Option<Filter>) -> Wanted {
        Wanted { filter: both(other, self.filter), ..self }
    }

    /// The filter for a target, `None` for all of it.
    pub fn within(&self, subject: &Subject) -> Result<Option<Filter>, Failure> {
        let arena = of_arena(self.arena.as_deref(), subject)?.as_deref().map(filter).transpose()?;
        Ok(both(self.filter.clone(), arena))
    }
}

fn of_arena(word: Option<&str>, subject: &Subject) -> Result<Option<String>, Failure> {
    let arena = word.map(|word| arena(subject, word)).transpose()?;
    Ok(arena.map(|(_, arena)| format!("arena = {:#x}", arena.addr)))
}

/// What the flags mean, as one expression.
pub fn expression(scope: &Scope, subject: &Subject) -> Result<String, Failure> {
    let arena = of_arena(scope.arena.as_deref(), subject)?;
    Ok(match (&scope.filter, arena) {
        (Some(filter), Some(arena)) => format!("({filter}) and {arena}"),
        (filter, arena) => filter.clone().or(arena).unwrap_or_default(),
    })
}

/// The malloc arena that a number or an address means, with its number.
pub fn arena<'s>(subject: &'s Subject, word: &str) -> Result<(usize, &'s Arena), Failure> {
    let arenas = subject.inspection.glibc.as_ref().map(|g| g.arenas.as_slice()).unwrap_or_default();
    let asked = address::parse(word)?;
    let numbered = usize::try_from(asked).ok().filter(|&n| n < arenas.len());
    let found = numbered.or_else(|| arenas.iter().position(|arena| arena.addr == asked));
    found.map(|n| (n, &arenas[n])).ok_or_else(|| {
        let there = match arenas.len() {
            0 => "glibc's malloc has no arenas here".to_owned(),
            1 => "there is one malloc arena: 0".to_owned(),
            n => format!("there are {n} malloc arenas: 0 to {}", n - 1),
        };
        let message = format!("there is no malloc arena {}", text::shown(word));
        Failure::new(code::FAILED, message).advise(there).advise(format!("wmr arenas {}", subject.typed))
    })
}

/// The flags as they were typed, to be repeated in a command.
pub fn flags(scope: &Scope) -> String {
    let given = [("where", &scope.filter), ("arena", &scope.arena)];
    let given = given.into_iter().filter_map(|(flag, given)| Some((flag, given.as_ref()?)));
    given.map(|(flag, given)| format!(" --{flag} {}", text::quoted(given))).collect()
}
