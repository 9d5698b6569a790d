//! Developer commands. `cargo xtask --help` lists them.

mod debian;
mod pythons;

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
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Pythons { required, update } => pythons::run(required, update).map(drop),
    }
}
