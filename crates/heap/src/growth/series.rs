//! A series of pictures, laid side by side.

use super::summary::{Explained, Line, Summary};
use crate::routes;
use rustc_hash::FxHashMap;
use std::time::Duration;

/// A route that was more in each picture than in the one before.
#[derive(Debug, Clone, PartialEq)]
pub struct Grown {
    /// Of the last picture: the objects that became more.
    pub line: Line,
    /// What they are in: the line itself when it is no entry.
    pub container: Line,
    /// Picture by picture.
    pub counts: Vec<u64>,
    /// With what hangs on them, and the container itself.
    pub bytes: Vec<u64>,
    /// Of the objects that were there at first, which share still is.
    pub stayed: f64,
}

impl Grown {
    pub fn more(&self) -> u64 {
        difference(&self.bytes)
    }

    pub fn more_objects(&self) -> u64 {
        difference(&self.counts)
    }
}

fn difference(series: &[u64]) -> u64 {
    let (first, last) = (series.first().copied().unwrap_or(0), series.last().copied().unwrap_or(0));
    last.saturating_sub(first)
}

/// A route that grew and shrank, or whose objects are others each time.
#[derive(Debug, Clone, PartialEq)]
pub struct Churn {
    pub line: Line,
    pub bytes: Vec<u64>,
    pub replaced: bool,
}

/// From one picture to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub before: Explained,
    pub after: Explained,
}

#[derive(Debug, Clone, Default)]
pub struct Growth {
    /// Most bytes first.
    pub grown: Vec<Grown>,
    pub churn: Vec<Churn>,
    /// Large, and not more at the end than at the beginning: places with their bytes.
    pub stable: Vec<Line>,
    /// First picture and last.
    pub rss: Option<(u64, u64)>,
    pub explained: Option<(Explained, Explained)>,
    /// `None` when clocks went backwards.
    pub time: Option<Duration>,
}

/// What is less is noise: caches warm up.
const LEAST: u64 = 2 << 10;
const LARGE: u64 = 64 << 10;
const MOST: usize = 200;
/// Fewer of the earlier objects that are still there: they are replaced.
const REPLACED: f64 = 0.2;

/// Compares pictures, oldest first.
pub fn compare(series: &[&Summary]) -> Growth {
    let mut growth = Growth::default();
    let (Some(first), Some(last)) = (series.first(), series.last()) else { return growth };
    growth.rss = first.rss.zip(last.rss);
    growth.explained = Some((first.explained, last.explained));
    let ordered = series.windows(2).all(|pair| pair[0].time <= pair[1].time);
    growth.time = last.time.duration_since(first.time).ok().filter(|time| ordered && !time.is_zero());
    if series.len() < 2 {
        return growth;
    }
    let by_id: Vec<FxHashMap<u64, &Line>> = series.iter().map(|summary| summary.by_id()).collect();
    let values = |line: &Line, of: fn(&Line) -> u64| -> Vec<u64> {
        by_id.iter().map(|lines| lines.get(&line.id).map_or(0, |line| of(line))).collect()
    };
    let mut taken = vec![false; last.lines.len()];
    let mut stable_above = vec![false; last.lines.len()];
    for (at, line) in last.lines.iter().enumerate() {
        if line.parent.is_some_and(|parent| taken[parent as usize]) {
            taken[at] = true;
            continue;
        }
        let (counts, own) = (values(line, |line| line.count), values(line, |line| line.bytes));
        let all = values(line, |line| line.all_bytes);
        let container = match line.step {
            routes::Step::Item | routes::Step::Key => {
                line.parent.and_then(|parent| last.lines.get(parent as usize)).unwrap_or(line)
            }
            _ => line,
        };
        // Of entries of all types the container tells; it may have the largest already.
        let grew = rises(&counts) || rises(&own);
        let bytes = values(container, |line| line.all_bytes);
        if grew && rises(&bytes) && difference(&bytes) >= LEAST {
            taken[at] = true;
            let stayed = by_id[0].get(&line.id).map_or(1.0, |before| before.stayed(line));
            if stayed < REPLACED && by_id[0].get(&line.id).is_some_and(|before| before.count >= 8) {
                growth.churn.push(Churn { line: line.clone(), bytes: all, replaced: true });
            } else {
                // Of a container whose table has grown, the entries are what people count.
                let entries = last.lines[at..].iter().filter(|below| below.parent == Some(at as u32));
                let entries = entries.filter(|below| below.step == routes::Step::Item);
                let entries = entries
                    .max_by_key(|below| below.all_bytes)
                    .map(|below| (below, values(below, |line| line.count)));
                let (line, counts) = match entries {
                    Some((below, counts)) if !rises(&values(line, |line| line.count)) && rises(&counts) => {
                        (below, counts)
                    }
                    _ => (line, counts),
                };
                growth.grown.push(Grown {
                    line: line.clone(),
                    container: container.clone(),
                    counts,
                    bytes,
                    stayed,
                });
            }
            continue;
        }
        // Its own bytes: what comes and goes deep within it is told there, and hides no growth beside it.
        let fell = own.windows(2).any(|pair| pair[1] + LARGE < pair[0]);
        let rose = own.windows(2).any(|pair| pair[0] + LARGE < pair[1]);
        if fell && rose {
            taken[at] = true;
            growth.churn.push(Churn { line: line.clone(), bytes: all, replaced: false });
            continue;
        }
        let under = line.parent.is_some_and(|parent| stable_above[parent as usize]);
        let entry = matches!(line.step, routes::Step::Item | routes::Step::Key);
        stable_above[at] = under || entry;
        // A container whose entries are no more than they were, though it may hold others now.
        if entry && !under && line.count >= 100 && difference(&all) == 0 && container.all_bytes >= LARGE {
            growth.stable.push(container.clone());
        }
    }
    merge(&mut growth.grown);
    growth.grown.sort_by_key(|grown| std::cmp::Reverse(grown.more()));
    growth.churn.sort_by_key(|churn| std::cmp::Reverse(spread(&churn.bytes)));
    growth.stable.sort_by_key(|line| (std::cmp::Reverse(line.all_bytes), line.id));
    growth.stable.dedup_by_key(|line| line.id);
    growth.grown.truncate(MOST);
    growth.churn.truncate(MOST);
    growth.stable.truncate(MOST);
    growth
}

/// Several types of entries of one container are one finding: that of which there are most.
fn merge(grown: &mut Vec<Grown>) {
    grown.sort_by_key(|grown| (grown.container.id, std::cmp::Reverse(grown.line.all_bytes)));
    grown.dedup_by_key(|grown| grown.container.id);
}

fn spread(bytes: &[u64]) -> u64 {
    bytes.iter().max().copied().unwrap_or(0) - bytes.iter().min().copied().unwrap_or(0)
}

/// More at every step.
fn rises(series: &[u64]) -> bool {
    series.windows(2).all(|pair| pair[0] < pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::Step as By;
    use std::time::SystemTime;

    fn line(id: u64, parent: Option<u32>, step: By, count: u64, bytes: u64, all_bytes: u64) -> Line {
        Line {
            id,
            parent,
            type_name: format!("T{id}"),
            step,
            place: crate::suspects::Place::default(),
            count,
            bytes,
            all_bytes,
            addr: 0,
            sketch: Vec::new(),
        }
    }

    fn summary(seconds: u64, lines: Vec<Line>) -> Summary {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + seconds);
        Summary { time, rss: Some(1 << 20), explained: Explained::default(), lines }
    }

    /// Module, list, entries; the list's table does not grow with each entry.
    fn picture(seconds: u64, entries: u64, table: u64, churning: u64) -> Summary {
        let entry = entries * 100;
        summary(
            seconds,
            vec![
                line(1, None, By::Root, 1, 1000, 1000 + table + entry + churning),
                line(2, Some(0), By::Named, 1, table, table + entry),
                line(3, Some(1), By::Item, entries, entry, entry),
                line(4, Some(0), By::Named, 1, churning, churning),
            ],
        )
    }

    #[test]
    fn the_topmost_that_grew_at_every_step_is_told() {
        let series =
            [picture(0, 100, 900, 1 << 20), picture(60, 200, 1800, 0), picture(120, 300, 1800, 1 << 20)];
        let growth = compare(&series.iter().collect::<Vec<_>>());
        let [grown] = &growth.grown[..] else { panic!("{:?}", growth.grown) };
        assert_eq!((grown.line.id, grown.container.id), (3, 2));
        assert_eq!(grown.counts, [100, 200, 300]);
        assert_eq!((grown.more_objects(), grown.more()), (200, 20_900));
        assert_eq!(growth.time, Some(Duration::from_secs(120)));
        let [churn] = &growth.churn[..] else { panic!("{:?}", growth.churn) };
        assert_eq!((churn.line.id, churn.replaced), (4, false));
    }

    #[test]
    fn what_once_shrank_has_not_grown() {
        let series = [picture(0, 500, 900, 0), picture(60, 400, 900, 0), picture(120, 600, 900, 0)];
        assert!(compare(&series.iter().collect::<Vec<_>>()).grown.is_empty());
    }

    #[test]
    fn clocks_that_go_backwards_give_no_time() {
        let series = [picture(60, 100, 900, 0), picture(0, 200, 900, 0)];
        let growth = compare(&series.iter().collect::<Vec<_>>());
        assert_eq!((growth.time, growth.grown.len()), (None, 1));
        assert!(compare(&[&series[0]]).grown.is_empty());
    }

    #[test]
    fn what_is_replaced_is_churn() {
        let mut series = [picture(0, 100, 900, 0), picture(60, 200, 900, 0)];
        series[0].lines[2].sketch = (0..16).collect();
        series[1].lines[2].sketch = (100..116).collect();
        let growth = compare(&series.iter().collect::<Vec<_>>());
        assert_eq!((growth.grown.len(), growth.churn.len()), (0, 1));
        assert!(growth.churn[0].replaced);
    }
}
