//! Developer commands. `cargo xtask --help` lists them.

mod bench;
mod debian;
mod layouts;
mod pythons;
mod suite;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install the interpreters that tests run on, and write their index
    Pythons {
        /// Lacking one of the supported versions is an error
        #[arg(long)]
        required: bool,
        /// Fetch the Debian packages again, should they have moved
        #[arg(long)]
        update: bool,
    },
    /// Run the whole suite and say which interpreters it covered
    Test {
        /// Lacking one of the supported versions is a failure (as under CI=true)
        #[arg(long)]
        required: bool,
    },
    /// Time and memory on the workloads, beside the tools people have today
    #[command(args_conflicts_with_subcommands = true)]
    Bench {
        #[command(subcommand)]
        what: Option<Bench>,
        /// w1, w2, w3, w4, w4c, w5; all without a name
        workloads: Vec<String>,
        /// How often each command is run; the best counts
        #[arg(long, default_value_t = 5)]
        runs: u32,
        /// The interpreter that runs the workloads
        #[arg(long, default_value = "3.11")]
        python: String,
    },
    /// Generate the layout tables of crates/cpython out of DWARF
    Layouts {
        /// Compare with the committed tables instead
        #[arg(long)]
        check: bool,
        /// Print every structure that a version's DWARF has, by compile unit
        #[arg(long, value_name = "TAG", conflicts_with = "check")]
        names: Option<String>,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// Own memory and the clone's life on processes full of small objects of one kind
    Dense {
        /// How often each is looked at; the best time and the worst peak count
        #[arg(long, default_value_t = 3)]
        runs: u32,
        /// The interpreter that makes them
        #[arg(long, default_value = "3.11")]
        python: String,
    },
    /// What a process notices of being looked at: its pause beside gcore's, and the time lost in all
    Pause {
        /// How often each is done; the median counts
        #[arg(long, default_value_t = 10)]
        runs: u32,
        /// The interpreter that runs the workload
        #[arg(long, default_value = "3.11")]
        python: String,
        /// What the processes without Python hold
        #[arg(long, default_value_t = 1024)]
        mib: u64,
    },
    /// References, retained sizes and leaks beside the census, and dominators of synthetic graphs
    Graph {
        /// How often each is done; the best counts
        #[arg(long, default_value_t = 3)]
        runs: u32,
        /// The interpreter that runs the workloads
        #[arg(long, default_value = "3.11")]
        python: String,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Pythons { required, update } => pythons::run(required, update).map(drop),
        Command::Test { required } => suite::run(required),
        Command::Bench { what: Some(Bench::Pause { runs, python, mib }), .. } => {
            bench::pause::run(runs, &python, mib)
        }
        Command::Bench { what: Some(Bench::Dense { runs, python }), .. } => bench::dense::run(runs, &python),
        Command::Bench { what: Some(Bench::Graph { runs, python }), .. } => bench::graph::run(runs, &python),
        Command::Bench { what: None, workloads, runs, python } => bench::run(&workloads, runs, &python),
        Command::Layouts { check, names } => layouts::run(check, names.as_deref()),
    }
}
