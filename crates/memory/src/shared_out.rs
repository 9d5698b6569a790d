use std::sync::{Mutex, PoisonError};

/// What `f` says of each item, in their order. Whoever of rayon's threads is free takes the next item, with a state
/// that `begin` made once for the thread: rayon's own `map_init` makes one for each part it cuts the items into, and
/// what is had anew each time, a room of a MiB or the types met so far, costs more than one item does.
pub fn shared_out<I, S, R: Send>(
    items: impl IntoIterator<Item = I, IntoIter: Send>,
    begin: impl Fn() -> S + Sync,
    f: impl Fn(&mut S, I) -> R + Sync,
) -> Vec<R> {
    let items = Mutex::new(items.into_iter().enumerate());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let of_thread = |_: rayon::BroadcastContext| {
        let mut state = None;
        let mut found = Vec::new();
        while let Some((i, item)) = next() {
            found.push((i, f(state.get_or_insert_with(&begin), item)));
        }
        found
    };
    let mut all: Vec<_> = rayon::broadcast(of_thread).into_iter().flatten().collect();
    all.sort_unstable_by_key(|(i, _)| *i);
    all.into_iter().map(|(_, found)| found).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    #[test]
    fn answers_are_in_order_and_states_are_few() {
        let states = AtomicUsize::new(0);
        let begin = || states.fetch_add(1, Relaxed);
        let found = shared_out(0..10_000u64, begin, |_, n| n * n);
        assert_eq!(found, (0..10_000).map(|n| n * n).collect::<Vec<_>>());
        assert!((1..=rayon::current_num_threads()).contains(&states.into_inner()));
        assert!(shared_out(0..0u8, || (), |(), n| n).is_empty());
    }
}
