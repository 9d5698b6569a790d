//! Answers that are taller than the terminal go through a pager.

use std::io::{IsTerminal, Write};
use std::process::{Command, Stdio};

/// Shows the text in `$PAGER`, by default `less -FRX`. False when there is no need for a pager, none is
/// wanted (`PAGER=cat`, or empty) or none can be started: then it is still to be written.
pub fn shown(text: &str) -> bool {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return false;
    }
    let rows = terminal_size::terminal_size_of(std::io::stdout()).map_or(24, |size| usize::from(size.1.0));
    if text.lines().take(rows).count() < rows {
        return false;
    }
    let mut command = match std::env::var("PAGER") {
        Ok(pager) if pager.trim().is_empty() || pager.trim() == "cat" => return false,
        Ok(pager) => {
            // May have arguments and quotes: a shell reads them, as in every program that pages.
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(pager);
            command
        }
        Err(_) => {
            let mut command = Command::new("less");
            command.arg("-FRX");
            command
        }
    };
    if std::env::var_os("LESS").is_none() {
        // A `less` without arguments of its own shows colours as they are.
        command.env("LESS", "FRX");
    }
    let Ok(mut pager) = command.stdin(Stdio::piped()).spawn() else { return false };
    if let Some(mut input) = pager.stdin.take() {
        // One that is quit early has seen enough.
        let _ = input.write_all(text.as_bytes());
    }
    // Not found by the shell: 126, 127.
    pager.wait().is_ok_and(|status| !matches!(status.code(), Some(126 | 127)))
}
