//! Reference counts explained: what an object says beside what was found.

/// References to one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// What the object says.
    pub said: u64,
    /// One of a static object, which is made with it and never gives it back.
    pub own: u64,
    /// What other objects hold for certain.
    pub found: u64,
    /// Words of C types that nothing declares, and that lead there.
    pub maybe: u64,
    /// Words outside of objects that lead there. Where objects explain all, none is counted.
    pub outside: u64,
}

impl Count {
    /// References that nobody was found for: given out and never taken back, or held where nobody looked.
    pub fn surplus(&self) -> u64 {
        let all = [self.own, self.found, self.maybe, self.outside];
        self.said.saturating_sub(all.into_iter().fold(0, u64::saturating_add))
    }

    /// References of objects that were not counted: the object may be freed while it is referred to.
    pub fn deficit(&self) -> u64 {
        self.found.saturating_sub(self.said)
    }

    /// Whether what was found can be all there is.
    pub fn is_explained(&self) -> bool {
        self.surplus() == 0 && self.deficit() == 0
    }
}
