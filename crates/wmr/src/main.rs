//! `wmr`: where's my RAM?
//!
//! Parses the command line, opens the target, asks the layers below, and shows the answer to people
//! or to machines. Each command is a module under `command/`, with the JSON document it prints.

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
use cli::{By, Cli, Command, SizesBy};
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
                let blocks = csv.csv || limit.is_some() || scope.filter.is_some() || scope.arena.is_some();
                command::sizes::run(target, blocks, options)
            }
            Command::Path { target, addr, ty, limit, scope } => {
                use command::path::{self, Of};
                let of = match (addr, ty) {
                    (_, Some(ty)) => Of::Type(ty),
                    (Some(addr), None) => Of::Address(addr),
                    (None, None) => Of::Matching,
                };
                path::run(target, of, *limit, scope, options)
            }
            Command::Retained { target, by, limit, scope } => {
                command::retained::run(target, *by, *limit, scope, options)
            }
            Command::Leaks { target, limit, known, fail_on, max_bytes } => {
                let gate = command::leaks::Gate { fail_on: *fail_on, max_bytes: max_bytes.unwrap_or(0) };
                command::leaks::run(target, *limit, known.as_deref(), gate, options)
            }
            Command::Snapshot { target, output, force, strip_values, level } => {
                let how = command::snapshot::How { strip: *strip_values, level: *level };
                command::snapshot::run(target, output.as_deref(), *force, how, options)
            }
            Command::Core { target, output, force } => {
                command::core::run(target, output.as_deref(), *force, options)
            }
            Command::Watch { target, rss, snapshot, every, times, force, strip_values } => {
                let wait = command::watch::Wait { rss: *rss, every: *every, times: *times };
                let how = command::snapshot::How { strip: *strip_values, level: 1 };
                command::watch::run(target, wait, snapshot, *force, how, options)
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
