//! What the cyclic collector is set to, and what that says of cycles that wait.

use super::finding::Sure;
use crate::numbers::{counted, grouped};
use serde::Serialize;
use wmr_cpython::collector::{Collector, GenerationState};
use wmr_heap::leaks::{Leaks, Standing};

/// The collector of the main interpreter, or of all.
#[derive(Serialize)]
pub struct CollectorFacts {
    enabled: bool,
    /// What `gc.set_debug()` was told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    debug: Vec<&'static str>,
    generations: Vec<GenerationFacts>,
    /// Objects that `gc.freeze()` set aside.
    frozen: u64,
    /// Objects in `gc.garbage`.
    garbage: usize,
}

#[derive(Serialize)]
struct GenerationFacts {
    threshold: u32,
    count: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    collections: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    collected: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uncollectable: Option<u64>,
}

/// `gc.DEBUG_…`, by bit.
const DEBUG: [(u32, &str); 5] = [
    (1, "DEBUG_STATS"),
    (2, "DEBUG_COLLECTABLE"),
    (4, "DEBUG_UNCOLLECTABLE"),
    (8, "DEBUG_INSTANCES"),
    (32, "DEBUG_SAVEALL"),
];
const SAVEALL: u32 = 32;

/// From here on the youngest generation is seldom collected; 700 and 2,000 are the defaults.
const HIGH: u32 = 50_000;

impl CollectorFacts {
    /// Interpreters are listed newest first: the main one is the last.
    pub fn of(leaks: &Leaks) -> Option<CollectorFacts> {
        let collector = leaks.collectors.last()?;
        let generation = |state: &GenerationState| GenerationFacts {
            threshold: state.threshold,
            count: state.count,
            collections: state.stats.map(|stats| stats.collections),
            collected: state.stats.map(|stats| stats.collected),
            uncollectable: state.stats.map(|stats| stats.uncollectable),
        };
        Some(CollectorFacts {
            enabled: collector.enabled,
            debug: DEBUG
                .iter()
                .filter(|(bit, _)| collector.debug & bit != 0)
                .map(|(_, name)| *name)
                .collect(),
            generations: collector.generations.iter().map(generation).collect(),
            frozen: leaks.frozen,
            garbage: collector.uncollectable.len(),
        })
    }
}

/// Is it on, in every interpreter?
pub fn is_enabled(leaks: &Leaks) -> Option<bool> {
    (!leaks.collectors.is_empty()).then(|| leaks.collectors.iter().all(|collector| collector.enabled))
}

fn first_threshold(collector: &Collector) -> Option<u32> {
    collector.generations.first().map(|generation| generation.threshold)
}

/// How sure it is that cycles will stay that nothing keeps the collector from, and why.
pub fn waiting(leaks: &Leaks, standing: Standing) -> (Sure, String) {
    let any = |is: &dyn Fn(&Collector) -> bool| leaks.collectors.iter().any(is);
    let why = "nothing reaches them";
    if standing == Standing::Uncollectable {
        let told = any(&|collector| collector.debug & SAVEALL != 0);
        let why = if told {
            "gc.set_debug(gc.DEBUG_SAVEALL) has the collector keep what it finds in gc.garbage".to_owned()
        } else {
            "the collector has given up on them and put them into gc.garbage: they have finalizers (__del__), and no order to run them in".to_owned()
        };
        return (Sure::Certain, why);
    }
    if leaks.collectors.is_empty() {
        return (Sure::Likely, format!("{why}; whether the collector is on is not known"));
    }
    if any(&|collector| !collector.enabled) {
        return (
            Sure::Certain,
            format!("{why}, and the collector is off: gc.enable(), or gc.collect() now and then"),
        );
    }
    if any(&|collector| first_threshold(collector) == Some(0)) {
        return (
            Sure::Certain,
            format!("{why}, and gc.set_threshold(0) has the collector never run by itself"),
        );
    }
    if let Some(threshold) = leaks.collectors.iter().filter_map(first_threshold).find(|&t| t >= HIGH) {
        let why = format!(
            "{why}, and the collector runs only once {} objects more were made than freed (gc.set_threshold)",
            grouped(threshold.into())
        );
        return (Sure::Likely, why);
    }
    let why = match standing {
        Standing::Young => format!("{why}; one of the next collections will take them"),
        _ => format!(
            "{why}; they are in the oldest generation, which is collected when enough has come to it{}",
            ran(leaks)
        ),
    };
    (Sure::Possible, why)
}

fn ran(leaks: &Leaks) -> String {
    let times =
        leaks.collectors.last().and_then(|collector| Some(collector.generations.last()?.stats?.collections));
    times.map_or_else(String::new, |times| format!(" ({} so far)", counted(times, "collection")))
}

/// One line for people.
pub fn line(leaks: &Leaks) -> Option<String> {
    let collector = leaks.collectors.last()?;
    let list = |of: &dyn Fn(&GenerationState) -> String| -> String {
        collector.generations.iter().map(of).collect::<Vec<_>>().join(", ")
    };
    let mut line = format!(
        "collector {} · thresholds {} · counts {}",
        if collector.enabled { "on" } else { "off" },
        list(&|state| grouped(state.threshold.into())),
        list(&|state| state.count.to_string()),
    );
    if collector.generations.iter().any(|state| state.stats.is_some()) {
        let collections =
            list(&|state| state.stats.map_or("?".to_owned(), |stats| grouped(stats.collections)));
        line.push_str(&format!(" · collections {collections}"));
    }
    if leaks.frozen > 0 {
        line.push_str(&format!(" · {} frozen", grouped(leaks.frozen)));
    }
    if !collector.uncollectable.is_empty() {
        line.push_str(&format!(" · gc.garbage has {}", grouped(collector.uncollectable.len() as u64)));
    }
    Some(line)
}
