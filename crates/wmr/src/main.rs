//! `wmr`: where's my RAM?
//!
//! Parses the command line, opens the target, asks the layers below, and shows the answer to people
//! or to machines. Each command is a module under `command/`, with the JSON document it prints.

mod aside;
mod cli;
mod command;
mod document;
mod failure;
mod numbers;
mod open;
mod pager;
mod screen;
mod table;
mod text;

use clap::Parser;
use cli::{By, Cli, Command, RetainedBy, SizesBy};
use failure::{Failure, code};
use std::io::Write;
use std::process::ExitCode;
use wmr_heap::select::States;

/// What a command prints, and what it exits with.
pub struct Answer {
    pub text: String,
    pub code: u8,
    /// For stderr, after the answer.
    pub complaint: Option<String>,
}

fn main() -> ExitCode {
    keep_our_heap_small();
    let cli = Cli::parse();
    tell(cli.options.verbose);
    let result = run(&cli).and_then(|answer| {
        print(&answer.text)?;
        if let Some(complaint) = answer.complaint {
            let _ = writeln!(std::io::stderr(), "{complaint}");
        }
        Ok(answer.code)
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            // Nowhere left to complain to.
            let _ = writeln!(std::io::stderr(), "{failure}");
            ExitCode::from(failure.code)
        }
    }
}

fn run(cli: &Cli) -> Result<Answer, Failure> {
    let options = &cli.options;
    if let Some(answer) = of_graph(cli)? {
        return Ok(answer);
    }
    match (&cli.target, &cli.command) {
        (Some(target), None) => command::summary::run(target, options),
        (None, Some(command)) => match command {
            Command::Ps { tree, csv } => command::ps::run(*tree, csv.csv, options),
            Command::Heap { target, by, limit, scope, csv } => {
                command::heap::run(target, *by, *limit, scope, csv.csv, options)
            }
            Command::Select { target, expression, listing } => {
                command::listing::run(target, States::All, Some(expression), listing, options)
            }
            Command::Used { target, listing } => {
                command::listing::run(target, States::Used, None, listing, options)
            }
            Command::Free { target, listing } => {
                command::listing::run(target, States::Free, None, listing, options)
            }
            Command::All { target, listing } => {
                command::listing::run(target, States::All, None, listing, options)
            }
            Command::Show { target, addr, bytes, refs } => {
                command::show::run(target, addr, *bytes, *refs, options)
            }
            Command::Hexdump { target, addr, len } => command::hexdump::run(target, addr, *len, options),
            Command::Diff { before, after, limit, scope } => {
                command::diff::run(before, after.as_deref(), *limit, scope, options)
            }
            Command::Label { target, name } => command::labels::keep(target, name, options),
            Command::Log { target } => command::labels::log(target, options),
            Command::Arenas { target, limit, arena } => {
                command::arenas::run(target, *limit, arena.as_deref(), options)
            }
            Command::CpythonAllocators { target, limit } => {
                command::arenas::of_pymalloc(target, *limit, options)
            }
            Command::Map { target, sharing: true, csv } => command::sharing::run(target, csv.csv, options),
            Command::Map { target, csv, .. } => command::map::run(target, csv.csv, options),
            Command::Sizes { target, by: SizesBy::Size, limit, scope, csv } => {
                command::heap::run(target, By::Size, *limit, scope, csv.csv, options)
            }
            Command::Sizes { target, scope, csv, limit, .. } => {
                let blocks = csv.csv || limit.is_some() || scope.is_given();
                command::sizes::run(target, blocks, options)
            }
            Command::Refs { target, addr, depth, limit, fold } => {
                let (depth, no_fold) = (usize::from(*depth), fold.no_fold);
                command::refs::run(
                    target,
                    &command::refs::Ask { addr, depth, limit: *limit, no_fold },
                    options,
                )
            }
            Command::Path { target, addr, ty, paths, limit, scope, fold } => {
                use command::path::{self, How, Of};
                let of = match (addr, ty) {
                    (_, Some(ty)) => Of::Type(ty),
                    (Some(addr), None) => Of::Address(addr),
                    (None, None) => Of::Matching,
                };
                let how = How { paths: *paths, limit: *limit, no_fold: fold.no_fold };
                path::run(target, &of, &how, scope, options)
            }
            Command::Retained { target, by, limit, scope, fold } => {
                command::retained::run(target, *by, *limit, scope, fold.no_fold, options)
            }
            Command::Tree { target, addr, depth, width, limit, fold } => {
                let ask = command::tree::Ask {
                    addr: addr.as_deref(),
                    depth: usize::from(*depth),
                    width: usize::from(*width),
                    limit: *limit,
                    no_fold: fold.no_fold,
                };
                command::tree::run(target, &ask, options)
            }
            Command::WhatIf { target, without, limit, fold } => {
                command::what_if::run(target, without, *limit, fold.no_fold, options)
            }
            Command::Types { target, sort, limit, csv } => {
                command::types::run(target, *sort, *limit, csv.csv, options)
            }
            Command::Threads { target, locals, all } => {
                let ask = command::threads::Ask { locals: *locals, all: *all };
                command::threads::run(target, ask, options)
            }
            Command::TotalRefs { target, limit, csv } => {
                command::total_refs::run(target, *limit, csv.csv, options)
            }
            Command::Alive { target, sort, limit, scope, csv } => {
                let ask = command::alive::Ask { scope, sort: sort.as_deref(), limit: *limit, csv: csv.csv };
                command::alive::run(target, &ask, options)
            }
            Command::Export { target, format, output, force } => {
                command::export::run(target, *format, output, *force, options)
            }
            Command::Leaks { target, story: Some(addr), .. } => command::leaks::story(target, addr, options),
            Command::Leaks { target, later, limit, known, fail_on, max_bytes, story: None } => {
                let gate = command::leaks::Gate { fail_on: *fail_on, max_bytes: max_bytes.unwrap_or(0) };
                let ask = command::leaks::Ask { limit: *limit, known: known.as_deref(), gate };
                if later.is_empty() {
                    return command::leaks::run(target, &ask, options);
                }
                let series: Vec<_> = std::iter::once(target).chain(later).cloned().collect();
                command::leaks::growth::run(&series, &ask, options)
            }
            Command::Snapshot { target, output, force, strip_values, level } => {
                let how = command::snapshot::How { strip: *strip_values, level: *level };
                command::snapshot::run(target, output.as_deref(), *force, how, options)
            }
            Command::Core { target, output, force } => {
                command::core::run(target, output.as_deref(), *force, options)
            }
            Command::Watch { target, every, times, until, rss, snapshot, force, strip_values } => {
                let how = command::snapshot::How { strip: *strip_values, level: 1 };
                let goal = command::watch::Goal { rss: *rss, until: *until, snapshot: snapshot.as_deref() };
                command::watch::run(target, goal, *every, *times, *force, how, options)
            }
            Command::Demo { core } => command::demo::run(*core, options),
        },
        (Some(target), Some(_)) => {
            let target = text::shown(&target.to_string_lossy());
            Err(Failure::new(code::USAGE, format!("{target} stands before the command"))
                .advise("the command comes first: wmr COMMAND TARGET"))
        }
        (None, None) => {
            Err(Failure::new(code::USAGE, "a TARGET or a command is needed").advise("wmr --help"))
        }
    }
}

/// What is asked of a graph that has no memory beneath it.
fn of_graph(cli: &Cli) -> Result<Option<Answer>, Failure> {
    use command::foreign::open;
    let options = &cli.options;
    let refused = |what: &str, instead: &str| {
        Failure::new(code::USAGE, format!("the file is a graph without a memory: {what}")).advise(instead)
    };
    Ok(match &cli.command {
        Some(Command::Refs { target, addr, limit, .. }) => match open(target)? {
            Some(graph) => Some(graph.refs(addr, *limit, options)?),
            None => None,
        },
        Some(Command::Path { target, addr, ty, scope, paths, limit, .. }) => match open(target)? {
            Some(_) if scope.is_given() => {
                return Err(refused(
                    "there are no columns for --where, and no arenas",
                    "an address, or --type TYPE",
                ));
            }
            Some(graph) => Some(graph.path(addr.as_deref(), ty.as_deref(), paths.or(*limit), options)?),
            None => None,
        },
        Some(Command::Retained { target, by, limit, scope, .. }) => match (open(target)?, by) {
            (Some(_), _) if scope.is_given() => {
                return Err(refused("there are no columns for --where, and no arenas", "--by type"));
            }
            (Some(graph), RetainedBy::Object) => Some(graph.retained(false, *limit, options)?),
            (Some(graph), RetainedBy::Type) => Some(graph.retained(true, *limit, options)?),
            (Some(_), _) => return Err(refused("its roots have no names", "--by object, or --by type")),
            (None, _) => None,
        },
        _ => None,
    })
}

/// What one thread frees, the others use: with an arena of malloc's for each, a tenth of our own peak was memory
/// freed in the wrong one. They allocate seldom enough not to wait for each other, and what was touched before a
/// clone is there for all of them. And what takes more than a few pages is mapped by itself where that has gone:
/// columns that were handed on left holes in malloc's heap, two fifths of the peak on millions of `object()`.
fn keep_our_heap_small() {
    /// Of the 65,530 mappings a process may have, malloc takes at most so many.
    const MAPPED: i32 = 1 << 14;
    const MAPPED_FROM: i32 = 64 << 10;
    #[cfg(target_env = "gnu")]
    // SAFETY: sets numbers, and no other thread is there yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        libc::mallopt(libc::M_MMAP_MAX, MAPPED);
    }
}

/// Where `-v` goes: stderr, so that the answer can still be piped.
fn tell(verbose: u8) {
    use tracing_subscriber::filter::LevelFilter;
    let level = match verbose {
        0 => return,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_ansi(false).init();
}

/// Writes the answer. A reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> Result<(), Failure> {
    if pager::shown(text) {
        return Ok(());
    }
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(code::FAILED, format!("cannot write the answer: {error}")))
        }
        _ => Ok(()),
    }
}
