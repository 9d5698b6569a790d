//! The command line: one definition per command and flag.

mod amounts;
mod choices;

pub use choices::{By, ExportFormat, RetainedBy, SizesBy, TypesSort};

use crate::command::leaks::Sure;
use amounts::{parse_millis, parse_size, parse_time};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use wmr_memory::live::Capturing;

const AFTER: &str = "\
TARGET is a pid, a core or a snapshot file. A file whose name is all digits is written ./123.

Examples:
  wmr 4242                         the answer on one screen
  wmr heap 4242 --by type          every type with its objects
  wmr select 4242 \"kind = 'str' and bytes > 1K\"
  wmr show 4242 0x7f2a10c0         one address, from the object down to the page
  wmr arenas core.4242 --json      the same questions to a core file
  wmr snapshot 4242 -o it.wmr      keep it; wmr it.wmr opens it on any machine

Exit codes: 0 done, 1 failed, 2 usage, 3 not permitted, 4 not a Python process
(what is known without Python is printed all the same), 5 the process vanished,
6 more was lost than wmr leaks was told to let pass.";

#[derive(Debug, Parser)]
#[command(name = "wmr", version, after_help = AFTER, arg_required_else_help = true, args_override_self = true)]
/// Dude, where's my RAM? Every resident byte of a Python process named, from outside.
///
/// Looks at a live process, a core or a snapshot; nothing runs in the process and nothing is written to it.
pub struct Cli {
    /// A pid, a core or a snapshot file: the answer on one screen
    pub target: Option<OsString>,
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub options: Options,
}

/// What every command understands.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// One JSON document instead of text, numbers exact
    #[arg(long, global = true)]
    pub json: bool,
    /// How to look at a process: clone (a moment's pause), stop (copied in a longer one), or none (copied
    /// while it runs on; what is shown may contradict itself)
    #[arg(
        long,
        global = true,
        value_name = "HOW",
        default_value = "clone",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub capture: Capture,
    /// The same as --capture none
    #[arg(long, global = true, hide = true, conflicts_with = "capture")]
    pub no_pause: bool,
    /// Longest pause of the process that is accepted, milliseconds; it is told before it would begin
    #[arg(
        long,
        global = true,
        value_name = "MS",
        default_value = "100",
        hide_default_value = true,
        value_parser = parse_millis
    )]
    pub max_pause: Duration,
    /// Where copies of the files are that a core's process had mapped
    #[arg(long, global = true, value_name = "DIR")]
    pub sysroot: Option<PathBuf>,
    /// Most memory for the copy of a process, e.g. 512M or 8G; refused above it
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_size)]
    pub max_memory: Option<u64>,
    /// Colour: auto, always or never; NO_COLOR is honoured
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub color: ColorChoice,
    /// Tell on stderr what is being done; twice for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Capture {
    Clone,
    Stop,
    None,
}

impl Options {
    pub fn capturing(&self) -> Capturing {
        match self.capture {
            _ if self.no_pause => Capturing::None,
            Capture::Clone => Capturing::Clone,
            Capture::Stop => Capturing::Stop,
            Capture::None => Capturing::None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Python processes of this machine with what they take
    Ps {
        /// Parents with the workers they forked: what these share still, and what is un-shared since
        #[arg(long)]
        tree: bool,
        #[command(flatten)]
        csv: Csv,
    },
    /// Where every byte is: domain, kind, detail, count, bytes
    Heap {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// What the rows are
        #[arg(long, value_name = "WHAT", default_value = "kind")]
        by: By,
        /// Rows to show, 0 for all; default: 40 for people, all for machines
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        #[command(flatten)]
        scope: Scope,
        #[command(flatten)]
        csv: Csv,
    },
    /// Blocks that match an expression, used and free ones
    Select {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// SQL's WHERE over the columns, e.g. "type like 'app.%' and bytes > 1K"
        #[arg(value_name = "WHERE")]
        expression: String,
        #[command(flatten)]
        listing: ListingOptions,
    },
    /// Blocks in use
    Used {
        /// A pid, a core or a snapshot file
        target: OsString,
        #[command(flatten)]
        listing: ListingOptions,
    },
    /// Free blocks, chunks and pools
    Free {
        /// A pid, a core or a snapshot file
        target: OsString,
        #[command(flatten)]
        listing: ListingOptions,
    },
    /// All blocks, used and free
    All {
        /// A pid, a core or a snapshot file
        target: OsString,
        #[command(flatten)]
        listing: ListingOptions,
    },
    /// Everything about one address: object, block, pool, arena, mapping, page
    Show {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// Any address inside of what is asked about: 0x7f…, or decimal
        #[arg(value_name = "ADDR")]
        addr: String,
        /// Bytes of the block to show
        #[arg(long, value_name = "N", default_value_t = 128)]
        bytes: u64,
        /// What would be freed with the object too: all references are followed for it
        #[arg(long)]
        refs: bool,
    },
    /// Bytes at an address, in hexadecimal and as text
    Hexdump {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// Where to begin: 0x7f…, or decimal
        #[arg(value_name = "ADDR")]
        addr: String,
        /// How many bytes, e.g. 512 or 4K; at most 1M
        #[arg(value_name = "LEN", value_parser = parse_size, default_value = "256")]
        len: u64,
    },
    /// What is new, freed and used anew between two targets, or since a label
    Diff {
        /// The earlier target; or a pid, to compare it with a label of its own
        #[arg(value_name = "A")]
        before: OsString,
        /// The later target; or a label of the pid. Default: its latest label
        #[arg(value_name = "B")]
        after: Option<OsString>,
        /// Rows to show, 0 for all; default: 40 for people, all for machines
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        #[command(flatten)]
        scope: Scope,
    },
    /// Keep how a process is now under a name, to compare with later
    Label {
        /// A pid
        target: OsString,
        /// Letters, digits, and . _ - in between
        name: String,
    },
    /// The labels of a process
    Log {
        /// A pid
        target: OsString,
    },
    /// Arenas of pymalloc and malloc: used, free, fragmentation, what pins them
    Arenas {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// Arenas to show, 0 for all; default: 20 for people, all for machines
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Only one malloc arena: its number (the main one is 0) or its address
        #[arg(long, value_name = "N")]
        arena: Option<String>,
    },
    /// Arenas of pymalloc with their free pools, as gdb-heap showed them
    CpythonAllocators {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// Arenas to show, 0 for all; default: 20 for people, all for machines
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Mappings with what is in RAM, what is shared, and who has them
    Map {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// What of each kind of memory is shared with other processes; of a forked worker, why pages
        /// were copied since
        #[arg(long)]
        sharing: bool,
        #[command(flatten)]
        csv: Csv,
    },
    /// Sizes of the built-in types, and of dicts by entries, for this interpreter
    Sizes {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// Of what: types, or used blocks by size as wmr heap --by size has them
        #[arg(long, value_name = "WHAT", default_value = "type")]
        by: SizesBy,
        /// Rows of blocks to show, 0 for all; default: 40 for people, all for machines
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        #[command(flatten)]
        scope: Scope,
        #[command(flatten)]
        csv: Csv,
    },
    /// What an object refers to, and what refers to it
    Refs {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// Of an object, or anywhere in it
        #[arg(value_name = "ADDR")]
        addr: String,
        /// Levels of references to show, both ways
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
        depth: u8,
        /// References of each side to list, 0 for all; default: 100,000 for machines
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        #[command(flatten)]
        fold: Fold,
    },
    /// Who holds an object, or many: from a module, a frame or a variable on
    Path {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// Of an object, or anywhere in it
        #[arg(required_unless_present_any = ["ty", "where", "arena"], conflicts_with_all = ["ty", "where", "arena"])]
        addr: Option<String>,
        /// All objects of this type, by its qualified name or the last part of it
        #[arg(long = "type", value_name = "TYPE")]
        ty: Option<String>,
        /// Ways to show: of one object those that share no step; default 3; of many 100 for machines
        #[arg(long, value_name = "N")]
        paths: Option<usize>,
        /// Steps of the tree to show, 0 for all; default: 30 for people, all for machines
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        #[command(flatten)]
        scope: Scope,
        #[command(flatten)]
        fold: Fold,
    },
    /// What would be freed with each object, with all of a type, with a module or a root
    Retained {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// What the rows are
        #[arg(long, value_name = "WHAT", default_value = "object")]
        by: RetainedBy,
        /// Rows to show, 0 for all; default: 25 for people
        #[arg(long, visible_alias = "top", value_name = "N")]
        limit: Option<usize>,
        #[command(flatten)]
        scope: Scope,
        #[command(flatten)]
        fold: Fold,
    },
    /// What hangs together: what retains what, from the roots or from one object on
    Tree {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// Of an object, or anywhere in it; default: from the roots
        #[arg(value_name = "ADDR")]
        addr: Option<String>,
        /// Levels to show
        #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
        depth: u8,
        /// Branches of each branch to show
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
        width: u16,
        /// Rows to show, 0 for all; default: 60 for people, all for machines
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        #[command(flatten)]
        fold: Fold,
    },
    /// What would be freed if some objects went away
    WhatIf {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// The objects that go: SQL's WHERE, e.g. "type = 'app.Entry'"
        #[arg(long, value_name = "WHERE")]
        without: String,
        /// Types to show, 0 for all; default: 25 for people, all for machines
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        #[command(flatten)]
        fold: Fold,
    },
    /// Classes and built-in types: instances, subclasses, and which are there several times
    Types {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// What comes first
        #[arg(long, value_name = "WHAT", default_value = "bytes")]
        sort: TypesSort,
        /// Rows to show, 0 for all; default: 40 for people, all for machines
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        #[command(flatten)]
        csv: Csv,
    },
    /// What each thread is doing: its Python frames, their variables, and what each alone keeps
    Threads {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// The variables of each frame
        #[arg(long)]
        locals: bool,
        /// All frames and tasks, not the innermost ones alone
        #[arg(long)]
        all: bool,
    },
    /// The references to all objects together, as sys.gettotalrefcount() counts them in a debug build
    TotalRefs {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// Types to show, 0 for all; default: 25 for people, all for machines
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        #[command(flatten)]
        csv: Csv,
    },
    /// The objects there are with their reference counts, by type, as PYTHONDUMPREFS has them written
    Alive {
        /// A pid, a core or a snapshot file
        target: OsString,
        #[command(flatten)]
        scope: Scope,
        /// Order by a column, e.g. refcount or bytes; default: by type, then by reference count
        #[arg(long, value_name = "COLUMN")]
        sort: Option<String>,
        /// Rows to show, 0 for all; default: 40 for people, all for machines
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        #[command(flatten)]
        csv: Csv,
    },
    /// Write the graph of objects to a file that other programs read
    Export {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// Whose format it is
        #[arg(long, value_name = "FORMAT")]
        format: ExportFormat,
        /// Where to write it; packed when its name ends with .gz
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Replace a file that is there
        #[arg(long)]
        force: bool,
    },
    /// What nobody can reach: lost native blocks, objects nobody holds, cycles not collected; what accumulates;
    /// of a series of snapshots, what grew
    Leaks {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// Later ones of the same program, oldest first: what grew from each to the next
        #[arg(value_name = "LATER")]
        later: Vec<OsString>,
        /// Why the object at this address is held: the way from a root to it, and what is thought of each step
        #[arg(long, value_name = "ADDR", conflicts_with_all = ["later", "known", "fail_on"])]
        story: Option<String>,
        /// Findings to show, 0 for all; default: 12 for people, all for machines
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Leave out findings whose signatures are in this file, one a line
        #[arg(long, value_name = "FILE")]
        known: Option<PathBuf>,
        /// End with exit code 6 when something is lost that is at least so sure
        #[arg(long, value_name = "SURE")]
        fail_on: Option<Sure>,
        /// With --fail-on: so much may be lost, e.g. 10M
        #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "fail_on")]
        max_bytes: Option<u64>,
    },
    /// Keep a process or a core in a small file that every command opens, on any machine
    Snapshot {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// The file to write; default: the pid with .wmr behind it
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Replace the file if there is one
        #[arg(long)]
        force: bool,
        /// Leave out what strings, bytes, arrays and native buffers hold, but not their sizes: the file
        /// can be given to others
        #[arg(long)]
        strip_values: bool,
        /// How hard to compress, 1 to 19
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=19))]
        level: i32,
    },
    /// Tell what grows in a process, look by look; or wait until it has grown to a size and keep it then, before
    /// it is killed for that
    Watch {
        /// A pid
        target: OsString,
        /// Time between looks, e.g. 500ms, 10s or 1m; longer where looking would cost the process more than
        /// 1 % of its time. Default: 30s, with --rss 1s
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        every: Option<Duration>,
        /// So many looks
        #[arg(long, value_name = "N")]
        times: Option<u64>,
        /// Until it has grown by so much since the first look, e.g. 500M
        #[arg(long, value_name = "GROWTH", value_parser = parse_size)]
        until: Option<u64>,
        /// Resident size to wait for, e.g. 2G: looks at nothing else
        #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "snapshot", conflicts_with = "until")]
        rss: Option<u64>,
        /// The snapshot to write when that is so
        #[arg(long, value_name = "FILE")]
        snapshot: Option<PathBuf>,
        /// Replace the file if there is one
        #[arg(long)]
        force: bool,
        /// As of wmr snapshot
        #[arg(long)]
        strip_values: bool,
    },
    /// Write a process as an ELF core, for gdb, pystack and others
    Core {
        /// A pid, a core or a snapshot file
        target: OsString,
        /// The file to write; default: the pid with .core behind it
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Replace the file if there is one
        #[arg(long)]
        force: bool,
    },
    /// Start an example under python3 and look at it live
    Demo {
        /// Look at the sample core that comes with this program instead
        #[arg(long)]
        core: bool,
    },
}

/// What every listing of blocks understands.
#[derive(Debug, Clone, Args)]
pub struct ListingOptions {
    #[command(flatten)]
    pub scope: Scope,
    /// Rows to show, 0 for all; default: 40 for people, all for machines
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Order by a column, e.g. bytes or type:desc; sizes and counts begin with the largest
    #[arg(long, value_name = "COLUMN")]
    pub sort: Option<String>,
    /// Columns to show, e.g. addr,bytes,kind,owner
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub columns: Vec<String>,
    #[command(flatten)]
    pub csv: Csv,
}

/// Which blocks an answer is about.
#[derive(Debug, Clone, Default, Args)]
pub struct Scope {
    /// Only blocks that match: SQL's WHERE, e.g. "domain = 'malloc' and bytes >= 1M"
    #[arg(id = "where", long = "where", value_name = "WHERE")]
    pub filter: Option<String>,
    /// Only blocks of one malloc arena: its number in wmr arenas (the main one is 0) or its address
    #[arg(long, value_name = "N")]
    pub arena: Option<String>,
}

impl Scope {
    pub fn is_given(&self) -> bool {
        self.filter.is_some() || self.arena.is_some()
    }
}

#[derive(Debug, Clone, Copy, Args)]
pub struct Csv {
    /// The rows as comma-separated values
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
}

#[derive(Debug, Clone, Copy, Args)]
pub struct Fold {
    /// Dicts and other parts of objects by themselves, not as one with the object they belong to
    #[arg(long)]
    pub no_fold: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_target_and_commands_live_together() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ').collect::<Vec<_>>());
        let cli = parse("wmr 4242 --json").unwrap();
        assert!(cli.options.json && cli.command.is_none() && cli.target.unwrap() == "4242");
        let cli = parse("wmr --json heap 4242 --by type").unwrap();
        assert!(cli.options.json && cli.target.is_none());
        assert!(matches!(cli.command, Some(Command::Heap { by: By::Type, .. })));
        assert!(parse("wmr heap").is_err());
        assert!(parse("wmr heap 1 --json --csv").is_err());
    }
}
