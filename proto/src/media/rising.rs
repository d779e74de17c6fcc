//! Numbers that go on rising on a leg where its source changes: frame numbers of the dependency descriptor ([`super::dd`]), picture numbers in
//! payloads ([`super::codec::pictures`]).

/// Where the packets of a leg come from: another value for each feed and each generation of it.
pub type Source = (u32, u32);

/// A number that wraps, or several that go together.
pub(super) trait Number: Copy + Default {
    /// With what is added to the numbers of a source.
    fn plus(self, offset: Self) -> Self;
    /// What is to be added to `first`, so that it comes right after this.
    fn offset_of_next(self, first: Self) -> Self;
    /// Goes up to `to`, where that is ahead.
    fn raise(&mut self, to: Self);
}

impl Number for u16 {
    fn plus(self, offset: Self) -> Self {
        self.wrapping_add(offset)
    }

    fn offset_of_next(self, first: Self) -> Self {
        self.wrapping_add(1).wrapping_sub(first)
    }

    fn raise(&mut self, to: Self) {
        if to.wrapping_sub(*self) < 0x8000 {
            *self = to;
        }
    }
}

/// The first source keeps its numbers; each one after it goes on right behind the highest of the one before.
#[derive(Debug, Clone, Default)]
pub(super) struct Rising<N> {
    /// The source, and what is added to its numbers.
    source: Option<(Source, N)>,
    /// The one before: its packets may be asked for again.
    before: Option<(Source, N)>,
    highest: N,
}

impl<N: Number> Rising<N> {
    /// The number that a packet has on the leg.
    pub(super) fn number(&mut self, source: Source, number: N) -> N {
        let offset = match self.source {
            Some((s, offset)) if s == source => offset,
            None => N::default(),
            Some(_) => self.highest.offset_of_next(number),
        };
        let moved = number.plus(offset);
        if self.source.is_none_or(|(s, _)| s != source) {
            self.before = self.source.replace((source, offset));
            self.highest = moved;
        }
        self.highest.raise(moved);
        moved
    }

    /// The number that a packet had which goes again: it changes nothing. None where its source is older than the one before.
    pub(super) fn number_again(&self, source: Source, number: N) -> Option<N> {
        let (_, offset) = [self.source, self.before].into_iter().flatten().find(|(s, _)| *s == source)?;
        Some(number.plus(offset))
    }
}
