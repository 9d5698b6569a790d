//! The ledger: what the process is charged for, every byte in exactly one row.
//!
//! The address space is cut into pieces: the spans of the allocators, ranges the interpreter mapped for
//! itself, and what remains of each mapping. Pieces do not overlap and cover every mapping, and each
//! charged byte is counted in the piece it lies in, so the rows add up to the total by construction.

use crate::census::Census;
use crate::kinds::{Domain, KindId, Kinds, Sure};
use rayon::prelude::*;
use std::ops::Range;
use wmr_alloc::{Blocks, State};
use wmr_memory::{Backing, Charge, Mapping, PageState, Run, Target};

/// Sums of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    pub count: u64,
    /// Bytes of the allocator's blocks, or of the address range.
    pub bytes: u64,
    /// What of them the process is charged for.
    pub charge: Charge,
}

impl std::ops::AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.charge += other.charge;
    }
}

/// A row of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerRow {
    pub domain: Domain,
    /// Charged bytes.
    pub bytes: u64,
    /// Of those, in RAM.
    pub resident: u64,
    /// Of those, on pages that other processes map too.
    pub shared: u64,
}

/// What the process is charged for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// What `total` is: "rss+swap" for a process, "stored" for a core.
    pub basis: &'static str,
    pub total: u64,
    pub rss: u64,
    pub swap: u64,
    /// Of the total, on pages that other processes map too.
    pub shared: u64,
    /// Domains in their fixed order, those without bytes left out.
    pub rows: Vec<LedgerRow>,
    /// Bytes of blocks in use that were never touched, or whose pages were given back: beside the total.
    pub untouched: u64,
}

impl Ledger {
    /// Charged bytes that have a name.
    pub fn named(&self) -> u64 {
        self.total - self.unknown()
    }

    /// Named bytes of the heap part alone.
    pub fn named_heap(&self) -> u64 {
        self.rows.iter().filter(|r| r.domain.is_heap() && r.domain != Domain::Unknown).map(|r| r.bytes).sum()
    }

    pub fn unknown(&self) -> u64 {
        self.rows.iter().filter(|r| r.domain == Domain::Unknown).map(|r| r.bytes).sum()
    }

    /// Named share of the heap part alone, in percent; 100 for no heap at all.
    pub fn heap_named_percent(&self) -> f64 {
        let named = self.named_heap();
        let heap = named + self.unknown();
        if heap == 0 { 100.0 } else { 100.0 * named as f64 / heap as f64 }
    }
}

/// A range that is neither an allocator's nor a mapping's remainder: known by who mapped it.
pub struct KnownRange {
    pub range: Range<u64>,
    pub domain: Domain,
    pub kind: String,
    pub detail: String,
    pub sure: Sure,
}

/// Adds up all kinds. Returns the ledger and, by [`KindId`] and type, the amounts.
pub struct Tally {
    pub ledger: Ledger,
    /// By [`KindId`].
    pub kinds: Vec<Amount>,
    /// By [`TypeId`](wmr_cpython::types::TypeId): the objects alone, without what they own.
    pub types: Vec<Amount>,
}

#[derive(Clone)]
struct Sums {
    kinds: Vec<Amount>,
    types: Vec<Amount>,
}

impl Sums {
    fn add(mut self, other: Sums) -> Sums {
        self.kinds.iter_mut().zip(other.kinds).for_each(|(a, b)| *a += b);
        self.types.iter_mut().zip(other.types).for_each(|(a, b)| *a += b);
        self
    }
}

/// What memory in a state is called that nobody uses.
pub fn state_name(state: State) -> (Domain, &'static str) {
    match state {
        State::PoolHeader => (Domain::Pymalloc, "pool header"),
        State::FreeBlock => (Domain::Pymalloc, "free block"),
        State::FreePool => (Domain::Pymalloc, "free pool"),
        State::Uncarved => (Domain::Pymalloc, "never carved"),
        State::AlignmentLoss => (Domain::Pymalloc, "alignment loss"),
        State::FreeChunk => (Domain::Malloc, "free chunk"),
        State::Tcache => (Domain::Malloc, "tcache"),
        State::Fastbin => (Domain::Malloc, "fastbin"),
        State::Top => (Domain::Malloc, "top"),
        State::ArenaHeader | State::Fencepost => (Domain::Malloc, "arena header"),
        State::Bad => (Domain::Unknown, "damaged"),
        State::Foreign | State::Used(_) => (Domain::Unknown, FOREIGN),
    }
}

/// The kinds that allocators' own memory falls into.
struct StateKinds(Vec<(State, KindId)>);

impl StateKinds {
    fn new(kinds: &mut Kinds) -> StateKinds {
        let named = State::UNUSED.map(|state| {
            let (domain, name) = state_name(state);
            (state, kinds.intern(domain, name, "", Sure::Exact))
        });
        StateKinds(named.to_vec())
    }

    fn of(&self, state: State) -> KindId {
        self.0.iter().find(|(s, _)| *s == state).map_or(Kinds::UNKNOWN, |(_, kind)| *kind)
    }
}

/// Of the brk heap, but nothing malloc cut from it.
const FOREIGN: &str = "inside the heap, not malloc's";

enum What {
    Span(usize),
    Kind(KindId),
}

struct Piece {
    range: Range<u64>,
    what: What,
}

/// Adds everything up.
pub fn tally<'a>(
    target: &Target,
    blocks: &Blocks,
    census: &mut Census,
    known: impl Iterator<Item = &'a KnownRange>,
) -> Tally {
    let states = StateKinds::new(&mut census.kinds);
    let pieces = pieces(target, blocks, &mut census.kinds, known);
    let runs: Vec<Run> = target.mappings.iter().flat_map(|m| m.residency.runs.iter().copied()).collect();
    let census = &*census;
    let empty = || Sums {
        kinds: vec![Amount::default(); census.kinds.len()],
        types: vec![Amount::default(); census.types.len()],
    };
    let sums = pieces
        .par_iter()
        .fold(empty, |mut sums, piece| {
            let mut charger = Charger::new(&runs, piece.range.clone());
            match piece.what {
                What::Kind(kind) => {
                    let amount = &mut sums.kinds[kind as usize];
                    amount.count += 1;
                    amount.bytes += piece.range.end - piece.range.start;
                    amount.charge += charger.charge(piece.range.clone());
                }
                What::Span(span) => {
                    let ids = blocks.ids(span);
                    blocks.for_each_range(span, |range, state| {
                        let charge = charger.charge(range.clone());
                        let bytes = range.end - range.start;
                        let (amount, count) = match state {
                            State::Used(id) => {
                                let mark = census.mark(id);
                                let amount = match mark.as_object() {
                                    Some(ty) => &mut sums.types[ty as usize],
                                    None => {
                                        &mut sums.kinds[mark.as_kind().unwrap_or(Kinds::UNKNOWN) as usize]
                                    }
                                };
                                // A block around what nests in it comes in several ranges.
                                (amount, u64::from(ids.contains(&id)))
                            }
                            other => (&mut sums.kinds[states.of(other) as usize], 1),
                        };
                        *amount += Amount { count, bytes, charge };
                    });
                }
            }
            sums
        })
        .reduce(empty, Sums::add);
    let ledger = ledger(target, &runs, &census.kinds, &sums);
    Tally { ledger, kinds: sums.kinds, types: sums.types }
}

fn ledger(target: &Target, runs: &[Run], kinds: &Kinds, sums: &Sums) -> Ledger {
    let mut by_domain = [Charge::default(); Domain::ALL.len()];
    let mut heap_bytes = 0;
    let all = sums.kinds.iter().enumerate().map(|(id, a)| (kinds.get(id as KindId).domain, a));
    for (domain, amount) in all.chain(sums.types.iter().map(|a| (Domain::Python, a))) {
        by_domain[domain as usize] += amount.charge;
        if matches!(domain, Domain::Python | Domain::CPython | Domain::Native | Domain::Unknown) {
            heap_bytes += amount.bytes - amount.charge.total();
        }
    }
    let mut whole = Charge::default();
    for run in runs {
        whole += Charge::of(run.state, run.end - run.start);
    }
    let rows = Domain::ALL
        .into_iter()
        .map(|domain| {
            let charge = by_domain[domain as usize];
            LedgerRow { domain, bytes: charge.total(), resident: charge.resident, shared: charge.shared() }
        })
        .filter(|row| row.bytes > 0)
        .collect();
    Ledger {
        basis: if target.knows_residency() { "rss+swap" } else { "stored" },
        total: whole.total(),
        rss: whole.resident,
        swap: whole.swapped,
        shared: whole.shared(),
        rows,
        untouched: heap_bytes,
    }
}

/// Cuts the address space. The pieces of each kind are disjoint already; where a known range and a span
/// contradict each other the span, which was walked, stands.
fn pieces<'a>(
    target: &Target,
    blocks: &Blocks,
    kinds: &mut Kinds,
    known: impl Iterator<Item = &'a KnownRange>,
) -> Vec<Piece> {
    let mut fixed: Vec<Piece> = blocks
        .spans()
        .iter()
        .enumerate()
        .map(|(i, s)| Piece { range: s.start..s.end, what: What::Span(i) })
        .collect();
    for known in known {
        let kind = kinds.intern(known.domain, &known.kind, &known.detail, known.sure);
        let clash = blocks.spans().iter().any(|s| s.start < known.range.end && known.range.start < s.end);
        if !clash && known.range.start < known.range.end {
            fixed.push(Piece { range: known.range.clone(), what: What::Kind(kind) });
        }
    }
    fixed.sort_by_key(|p| p.range.start);
    let mut end = 0;
    fixed.retain(|p| {
        let fits = p.range.start >= end;
        if fits {
            end = p.range.end;
        }
        fits
    });
    let mut rest = Vec::new();
    for mapping in &target.mappings {
        let kind = label(target, mapping, kinds);
        let mut at = mapping.start;
        let first = fixed.partition_point(|p| p.range.end <= mapping.start);
        for piece in fixed[first..].iter().take_while(|p| p.range.start < mapping.end) {
            if piece.range.start > at {
                rest.push(Piece { range: at..piece.range.start, what: What::Kind(kind) });
            }
            at = at.max(piece.range.end);
        }
        if at < mapping.end {
            rest.push(Piece { range: at..mapping.end, what: What::Kind(kind) });
        }
    }
    fixed.append(&mut rest);
    fixed
}

/// What a mapping is where no allocator and nobody known has it.
fn label(target: &Target, mapping: &Mapping, kinds: &mut Kinds) -> KindId {
    let name = String::from_utf8_lossy(&mapping.name).into_owned();
    let file = name.rsplit('/').next().unwrap_or_default().to_owned();
    // A segment may begin later within its first page.
    let overlaps = |range: &Range<u64>| range.start < mapping.end && mapping.start < range.end;
    let image = target.images.iter().find(|i| i.segments.iter().any(|s| overlaps(&s.range)));
    let part = match (mapping.perms.exec, mapping.perms.write) {
        (true, _) => "code",
        (false, true) => "data",
        (false, false) => "read-only data",
    };
    let (domain, kind, detail) = match mapping.backing {
        Backing::File if image.is_some() => (Domain::Image, part.to_owned(), file),
        Backing::File => (Domain::File, "mapped file".to_owned(), name),
        Backing::SharedMemory => (Domain::Shm, "shared memory".to_owned(), name),
        Backing::Device => (Domain::File, "device".to_owned(), name),
        Backing::Kernel => (Domain::Image, part.to_owned(), name),
        Backing::Stack => (Domain::Stack, "main stack".to_owned(), String::new()),
        Backing::Brk => (Domain::Unknown, FOREIGN.to_owned(), String::new()),
        Backing::Anonymous => match image {
            Some(image) => {
                let path = String::from_utf8_lossy(&image.path);
                (
                    Domain::Image,
                    "zeroed data".to_owned(),
                    path.rsplit('/').next().unwrap_or_default().to_owned(),
                )
            }
            None if target.threads.iter().any(|t| mapping.contains(t.sp)) => {
                (Domain::Stack, "thread stack".to_owned(), String::new())
            }
            // Of the first thread; the dynamic loader keeps its own beside it.
            None if target.threads.iter().any(|t| mapping.contains(t.tls)) => {
                (Domain::Stack, "thread-local storage".to_owned(), String::new())
            }
            None => (Domain::Unknown, "anonymous mapping".to_owned(), String::new()),
        },
    };
    kinds.intern(domain, &kind, &detail, Sure::Exact)
}

/// Charges of ranges asked for in address order: a cursor over the runs.
pub(crate) struct Charger<'r> {
    runs: &'r [Run],
    /// The whole piece is in RAM, mapped by this process alone or by others too throughout: a state to
    /// charge it by, and nothing to look up.
    uniform: Option<PageState>,
}

impl<'r> Charger<'r> {
    pub fn new(runs: &'r [Run], piece: Range<u64>) -> Self {
        let first = runs.partition_point(|r| r.end <= piece.start);
        let runs = &runs[first..];
        let first = runs.first().map(|r| r.state).unwrap_or_default();
        let mut covered = piece.start;
        for run in runs.iter().take_while(|r| r.start < piece.end) {
            let state = run.state;
            if run.start > covered || state.swapped || !state.charged() || state.exclusive != first.exclusive
            {
                break;
            }
            covered = run.end;
        }
        Charger { runs, uniform: (covered >= piece.end).then_some(first) }
    }

    #[inline]
    pub fn charge(&mut self, range: Range<u64>) -> Charge {
        if let Some(state) = self.uniform {
            return Charge::of(state, range.end - range.start);
        }
        while self.runs.first().is_some_and(|r| r.end <= range.start) {
            self.runs = &self.runs[1..];
        }
        let mut sum = Charge::default();
        for run in self.runs.iter().take_while(|r| r.start < range.end) {
            sum += Charge::of(run.state, run.end.min(range.end) - run.start.max(range.start));
        }
        sum
    }
}
