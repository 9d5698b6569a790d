//! Two lists of blocks side by side: what is new, what was freed, and which addresses hold something else.
//!
//! Of each target one list is kept, 24 bytes a block, so that the first can be let go before the second is
//! looked at. An address with another size or another kind was used anew: it is never "unchanged".

use crate::filter::Filter;
use crate::select::{Facts, Listing, Order, States};
use rustc_hash::FxHashMap;

/// Names of blocks, shared by the lists that are compared.
#[derive(Debug, Default)]
pub struct Names {
    list: Vec<Name>,
    ids: FxHashMap<Name, u32>,
}

/// Domain, kind and detail.
pub type Name = (&'static str, String, String);

impl Names {
    fn intern(&mut self, facts: &Facts) -> u32 {
        let name = (facts.domain, facts.kind.to_owned(), facts.detail.to_owned());
        if let Some(id) = self.ids.get(&name) {
            return *id;
        }
        let id = self.list.len() as u32;
        self.list.push(name.clone());
        self.ids.insert(name, id);
        id
    }
}

/// A block as it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    addr: u64,
    bytes: u64,
    name: u32,
}

/// The used blocks of one target, in address order.
#[derive(Debug, Default)]
pub struct Blocks(Vec<Entry>);

impl Blocks {
    /// Used blocks, those that match.
    pub fn of(listing: &Listing, filter: Option<&Filter>, names: &mut Names) -> Blocks {
        let order = Order { by: None, descending: false, limit: 0 };
        let selection = listing.select(States::Used, filter, order);
        // A name is looked up once, not once a block.
        let mut known: FxHashMap<u32, u32> = FxHashMap::default();
        let entries = selection.rows.iter().map(|row| {
            let name =
                *known.entry(row.name_code()).or_insert_with(|| names.intern(&listing.named_facts(row)));
            Entry { addr: row.addr, bytes: row.bytes, name }
        });
        Blocks(entries.collect())
    }
}

/// A count of blocks with their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    pub count: u64,
    pub bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What happened to the blocks of one name, or to all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    pub before: Sum,
    pub after: Sum,
    /// At addresses that held nothing before.
    pub new: Sum,
    /// At addresses that hold nothing now.
    pub freed: Sum,
    /// Now at addresses that held another size or kind before.
    pub reused: Sum,
    pub unchanged: Sum,
}

/// Addresses of `after` that held nothing before, or another size or kind.
pub fn fresh(before: &Blocks, after: &Blocks) -> Vec<u64> {
    let mut old = before.0.iter().peekable();
    let is_fresh = |entry: &&Entry| {
        while old.next_if(|known| known.addr < entry.addr).is_some() {}
        old.peek() != Some(entry)
    };
    after.0.iter().filter(is_fresh).map(|entry| entry.addr).collect()
}

/// The whole comparison.
#[derive(Debug, Default)]
pub struct Difference {
    pub total: Change,
    /// Names of which anything changed, those that grew most first.
    pub rows: Vec<(Name, Change)>,
}

/// Lays `after` beside `before`.
pub fn compare(names: &Names, before: &Blocks, after: &Blocks) -> Difference {
    let mut changes = vec![Change::default(); names.list.len()];
    let mut total = Change::default();
    let mut each = |entry: &Entry, which: fn(&mut Change) -> &mut Sum| {
        which(&mut total).add(entry.bytes);
        if let Some(change) = changes.get_mut(entry.name as usize) {
            which(change).add(entry.bytes);
        }
    };
    before.0.iter().for_each(|entry| each(entry, |change| &mut change.before));
    after.0.iter().for_each(|entry| each(entry, |change| &mut change.after));
    let (mut old, mut new) = (before.0.iter().peekable(), after.0.iter().peekable());
    loop {
        match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(a), Some(b)) if a.addr == b.addr => {
                let same = a.bytes == b.bytes && a.name == b.name;
                each(b, if same { |change| &mut change.unchanged } else { |change| &mut change.reused });
                old.next();
                new.next();
            }
            (Some(a), b) if b.is_none_or(|b| a.addr < b.addr) => {
                each(a, |change| &mut change.freed);
                old.next();
            }
            (_, Some(b)) => {
                each(b, |change| &mut change.new);
                new.next();
            }
            (Some(_), None) => break,
        }
    }
    let changed = |change: &Change| change.before != change.after || change.unchanged != change.after;
    let mut rows: Vec<(Name, Change)> =
        names.list.iter().cloned().zip(changes).filter(|(_, change)| changed(change)).collect();
    let growth = |change: &Change| i128::from(change.after.bytes) - i128::from(change.before.bytes);
    rows.sort_by(|(a, x), (b, y)| growth(y).cmp(&growth(x)).then_with(|| a.cmp(b)));
    Difference { total, rows }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reuse_is_not_unchanged() {
        let mut names = Names::default();
        for kind in ["int", "str"] {
            let name = ("python", kind.to_owned(), String::new());
            names.ids.insert(name.clone(), names.list.len() as u32);
            names.list.push(name);
        }
        let list = |entries: &[(u64, u64, u32)]| {
            Blocks(entries.iter().map(|&(addr, bytes, name)| Entry { addr, bytes, name }).collect())
        };
        let before = list(&[(16, 32, 0), (48, 32, 0), (80, 32, 0), (112, 64, 1)]);
        let after = list(&[(16, 32, 0), (48, 32, 1), (112, 48, 1), (200, 16, 1)]);
        let found = compare(&names, &before, &after);
        let sum = |count, bytes| Sum { count, bytes };
        assert_eq!(found.total.unchanged, sum(1, 32));
        assert_eq!(found.total.reused, sum(2, 80));
        assert_eq!(found.total.freed, sum(1, 32));
        assert_eq!(found.total.new, sum(1, 16));
        assert_eq!(found.rows[0].0.1, "str");
        assert_eq!(found.rows[0].1.before, sum(1, 64));
        assert_eq!(found.rows[0].1.after, sum(3, 96));
        assert_eq!(found.rows.len(), 2);
        assert!(compare(&names, &before, &before).rows.is_empty());
        assert_eq!(fresh(&before, &after), [48, 112, 200]);
        assert!(fresh(&after, &after).is_empty());
    }
}
