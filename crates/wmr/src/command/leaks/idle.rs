//! What is no leak, by name: the other kinds of memory trouble.

use crate::command::title;
use crate::numbers::{counted, scaled, share};
use crate::open::Subject;
use crate::screen::{Look, Screen};
use crate::text::wrap;
use serde::Serialize;
use wmr_heap::idle::Idle;
use wmr_heap::leaks::Unread;

#[derive(Serialize)]
pub struct NotALeak {
    /// `fragmentation`, `high-water mark`, `reference counts`, `workload`.
    kind: &'static str,
    what: String,
    bytes: u64,
    next: String,
}

pub fn find(subject: &Subject) -> Vec<NotALeak> {
    let idle = Idle::of(&subject.target, &subject.inspection);
    let next = |command: &str, rest: &str| format!("wmr {command} {}{rest}", subject.typed);
    let mut found = Vec::new();
    let part = |bytes: u64| format!("{} ({:.0} %)", scaled(bytes), share(bytes, idle.total));
    if idle.fragmented() > 0 {
        let arenas = match idle.sparse_arenas {
            0 => String::new(),
            n => format!(
                "; {} of {} are less than a quarter full, each kept by the few objects in it",
                n,
                counted(idle.arenas, "pymalloc arena")
            ),
        };
        found.push(NotALeak {
            kind: "fragmentation",
            what: format!(
                "{} is free between blocks in use: {} of pymalloc, {} of malloc{arenas}",
                part(idle.fragmented()),
                scaled(idle.pymalloc_free),
                scaled(idle.malloc_free)
            ),
            bytes: idle.fragmented(),
            next: next("arenas", ""),
        });
    }
    let high = idle.top + idle.returned;
    if high > 0 {
        found.push(NotALeak {
            kind: "high-water mark",
            what: format!(
                "{} more was in RAM at the peak; {} of that time is free at malloc's end still, \
                 malloc_trim(0) would give back {}",
                scaled(idle.returned),
                scaled(idle.top),
                scaled(idle.trimmable)
            ),
            bytes: high,
            next: next("arenas", ""),
        });
    }
    if idle.shared > 0 {
        found.push(NotALeak {
            kind: "reference counts",
            what: format!(
                "{} is shared with forked relatives until somebody writes to it, and using an object writes its \
                 reference count",
                part(idle.shared)
            ),
            bytes: idle.shared,
            next: next("map", " --sharing"),
        });
    }
    if idle.objects > 0 {
        found.push(NotALeak {
            kind: "workload",
            what: format!("{} is Python objects in use", part(idle.objects)),
            bytes: idle.objects,
            next: next("heap", " --by type"),
        });
    }
    found
}

/// What the report comes to.
pub fn verdict(leaks: bool, unread: Unread, found: &[NotALeak], total: u64) -> &'static str {
    let much = |kind: &str| {
        found.iter().any(|f| f.kind == kind && f.bytes >= 1 << 20 && share(f.bytes, total) >= 10.0)
    };
    match leaks {
        true => "leaks are likely",
        false if !unread.is_none() => "not all could be read: whether there are leaks is not known",
        false if much("fragmentation") => "not a leak: memory is held by fragmentation",
        false if much("high-water mark") => "not a leak: memory is left over from a peak",
        false => "no leak is likely",
    }
}

/// Of what there is much.
pub fn page(screen: &Screen, found: &[NotALeak], total: u64) -> String {
    let much = |f: &&NotALeak| f.kind != "workload" && f.bytes >= 1 << 20 && share(f.bytes, total) >= 5.0;
    let told: Vec<&NotALeak> = found.iter().filter(much).collect();
    if told.is_empty() {
        return String::new();
    }
    let mut out = format!("\n{}", title(screen, "NOT A LEAK"));
    for f in told {
        let text = format!("{}: {} → {}", f.kind, f.what, f.next);
        for (at, line) in wrap(&text, screen.width - 4).iter().enumerate() {
            let line = format!("  {}{line}", if at == 0 { "" } else { "  " });
            out.push_str(&screen.paint(Look::Dim, &line));
            out.push('\n');
        }
    }
    out
}
