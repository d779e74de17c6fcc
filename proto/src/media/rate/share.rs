//! Who gets how much of a line that is too small for all.

use crate::session::feed::Purpose;
use crate::units::Bitrate;

/// What one stream wants of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// What it is for: voices go first, then scopes, other pictures, rooms.
    pub purpose: Purpose,
    /// Within one purpose: 0 goes first.
    pub priority: u8,
    /// More is of no use.
    pub wanted: Bitrate,
    /// Less is of no use: it gets nothing then.
    pub floor: Bitrate,
}

/// The place of a purpose: 0 is served first. The surgeon's word goes before the picture, the scope before all others.
#[must_use]
pub const fn rank(purpose: Purpose) -> u8 {
    match purpose {
        Purpose::Voice => 0,
        Purpose::Scope => 1,
        Purpose::Secondary => 2,
        Purpose::Room => 3,
    }
}

/// Shares a line out: strictly by purpose, then by priority; equally (max-min) among those of one place. Where the equal
/// share is below somebody's floor, the last of that place in the list goes without until the others have theirs. One
/// rate for each demand, in the same order; 0: paused.
#[must_use]
pub fn allocate(capacity: Bitrate, demands: &[Demand]) -> Vec<Bitrate> {
    let mut given = vec![Bitrate(0); demands.len()];
    let mut order: Vec<usize> = (0..demands.len()).collect();
    let place = |i: &usize| demands.get(*i).map_or((u8::MAX, u8::MAX), |d| (rank(d.purpose), d.priority));
    order.sort_by_key(place);
    let mut left = capacity.0;
    for class in order.chunk_by(|a, b| place(a) == place(b)) {
        for (i, rate) in share(left, class, demands) {
            left = left.saturating_sub(rate);
            if let Some(g) = given.get_mut(i) {
                *g = Bitrate(rate);
            }
        }
    }
    given
}

/// Why a stream does not fit beside those that have their share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom {
    /// What those have that go before it.
    pub taken: Bitrate,
    /// What is left of the line for it.
    pub left: Bitrate,
}

/// Whether one more stream fits, as a whole or not at all, beside those that are there (the oldest first): strictly by
/// purpose and priority, who is there before who comes. Gives the places of those that have to go for it: all of them
/// of a lower purpose or priority.
///
/// # Errors
/// [`NoRoom`]: what the others leave is less than it wants.
pub fn admit(capacity: Bitrate, there: &[Demand], new: &Demand) -> Result<Vec<usize>, NoRoom> {
    let place = |d: &Demand| (rank(d.purpose), d.priority);
    let before = there.iter().filter(|d| place(d) <= place(new)).fold(0_u64, |sum, d| sum.saturating_add(d.wanted.0));
    let left = capacity.0.saturating_sub(before);
    let Some(mut left) = left.checked_sub(new.wanted.0) else {
        return Err(NoRoom { taken: Bitrate(before), left: Bitrate(left) });
    };
    let mut after: Vec<usize> =
        (0..there.len()).filter(|i| there.get(*i).is_some_and(|d| place(d) > place(new))).collect();
    after.sort_by_key(|i| there.get(*i).map(place));
    after.retain(|i| {
        let wanted = there.get(*i).map_or(0, |d| d.wanted.0);
        let stays = wanted <= left;
        left -= if stays { wanted } else { 0 };
        !stays
    });
    Ok(after)
}

/// Max-min among those of one place. Each turn either ends or leaves one out.
fn share(capacity: u64, class: &[usize], demands: &[Demand]) -> Vec<(usize, u64)> {
    let mut members: Vec<(usize, Demand)> = class.iter().filter_map(|i| Some((*i, *demands.get(*i)?))).collect();
    loop {
        let shares = max_min(capacity, &members);
        let short = |(m, rate): &(&(usize, Demand), &u64)| **rate < m.1.floor.0.min(m.1.wanted.0);
        let Some(out) = members.iter().zip(&shares).rposition(|pair| short(&pair)) else {
            return members.iter().map(|m| m.0).zip(shares).collect();
        };
        members.remove(out);
    }
}

/// Equal shares, of which nobody gets more than wanted.
fn max_min(capacity: u64, members: &[(usize, Demand)]) -> Vec<u64> {
    let mut by_wish: Vec<usize> = (0..members.len()).collect();
    let wish = |i: usize| members.get(i).map_or(0, |m| m.1.wanted.0);
    by_wish.sort_by_key(|i| wish(*i));
    let mut shares = vec![0; members.len()];
    let mut left = capacity;
    for (served, i) in by_wish.into_iter().enumerate() {
        let equal = left / (members.len() - served).max(1) as u64;
        let rate = wish(i).min(equal);
        left -= rate;
        if let Some(s) = shares.get_mut(i) {
            *s = rate;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(purpose: Purpose, priority: u8, wanted: u64, floor: u64) -> Demand {
        Demand { purpose, priority, wanted: Bitrate(wanted), floor: Bitrate(floor) }
    }

    fn shares(capacity: u64, demands: &[Demand]) -> Vec<u64> {
        allocate(Bitrate(capacity), demands).into_iter().map(|b| b.0).collect()
    }

    /// Two eyes, an ultrasound, a wall camera, two voices.
    fn theatre() -> Vec<Demand> {
        use Purpose::{Room, Scope, Secondary, Voice};
        vec![
            demand(Room, 0, 8_000, 1_000),
            demand(Scope, 0, 40_000, 5_000),
            demand(Scope, 0, 40_000, 5_000),
            demand(Voice, 0, 64, 64),
            demand(Secondary, 0, 10_000, 2_000),
            demand(Voice, 0, 64, 64),
        ]
    }

    #[test]
    fn with_room_for_all_everybody_gets_what_it_wants_and_no_more() {
        assert_eq!(shares(1_000_000, &theatre()), vec![8_000, 40_000, 40_000, 64, 10_000, 64]);
    }

    #[test]
    fn the_room_is_shed_first_then_other_pictures_then_the_scopes_shrink_alike_and_voices_never() {
        assert_eq!(shares(92_128, &theatre()), vec![2_000, 40_000, 40_000, 64, 10_000, 64]);
        assert_eq!(shares(90_328, &theatre()), vec![0, 40_000, 40_000, 64, 10_000, 64], "200 of 1,000 are no picture");
        assert_eq!(shares(81_000, &theatre()), vec![0, 40_000, 40_000, 64, 0, 64]);
        assert_eq!(shares(60_128, &theatre()), vec![0, 30_000, 30_000, 64, 0, 64]);
        assert_eq!(
            shares(8_128, &theatre()),
            vec![0, 8_000, 0, 64, 0, 64],
            "one eye rather than two that show nothing"
        );
        assert_eq!(shares(128, &theatre()), vec![0, 0, 0, 64, 0, 64]);
        assert_eq!(shares(64, &theatre()), vec![0, 0, 0, 64, 0, 0]);
        assert_eq!(shares(0, &theatre()), vec![0; 6]);
    }

    #[test]
    fn a_higher_priority_goes_first_within_its_purpose_only() {
        use Purpose::{Scope, Voice};
        let d = [demand(Scope, 1, 30, 0), demand(Scope, 0, 30, 0), demand(Voice, 9, 5, 5)];
        assert_eq!(shares(50, &d), vec![15, 30, 5]);
    }

    #[test]
    fn a_stream_that_comes_fits_or_lower_purposes_go_for_it_and_never_its_equals() {
        use Purpose::{Room, Scope, Secondary, Voice};
        let there =
            [demand(Room, 0, 30, 0), demand(Scope, 0, 50, 0), demand(Room, 0, 10, 0), demand(Secondary, 0, 20, 0)];
        let come = |capacity, d| admit(Bitrate(capacity), &there, &d);
        assert_eq!(come(160, demand(Scope, 0, 50, 0)), Ok(vec![]), "there is room");
        assert_eq!(come(155, demand(Scope, 0, 50, 0)), Ok(vec![2]), "the newer room");
        assert_eq!(come(120, demand(Scope, 0, 50, 0)), Ok(vec![0, 2]), "both rooms");
        assert_eq!(come(110, demand(Scope, 0, 50, 0)), Ok(vec![3, 0]), "10 are left for a small room");
        assert_eq!(come(99, demand(Scope, 0, 50, 0)), Err(NoRoom { taken: Bitrate(50), left: Bitrate(49) }));
        assert_eq!(come(110, demand(Room, 0, 10, 0)), Err(NoRoom { taken: Bitrate(110), left: Bitrate(0) }));
        assert_eq!(come(110, demand(Voice, 0, 1, 0)), Ok(vec![2]), "a voice always finds room");
        assert_eq!(come(120, demand(Scope, 1, 50, 0)), Ok(vec![0, 2]), "a lower priority, but a scope");
    }

    #[test]
    fn never_more_than_there_is_and_no_more_than_wanted_whatever_is_asked() {
        let mut rng = crate::link::rng::Rng::new(8);
        for _ in 0..2_000 {
            let purposes = [Purpose::Scope, Purpose::Room, Purpose::Voice, Purpose::Secondary];
            let n = rng.below(9) as usize;
            let demands: Vec<Demand> = (0..n)
                .map(|_| {
                    let wanted = u64::from(rng.below(1_000));
                    demand(purposes[rng.below(4) as usize], rng.below(3) as u8, wanted, u64::from(rng.below(500)))
                })
                .collect();
            let capacity = u64::from(rng.below(3_000));
            let given = shares(capacity, &demands);
            assert!(given.iter().sum::<u64>() <= capacity);
            for (g, d) in given.iter().zip(&demands) {
                assert!(*g <= d.wanted.0);
                assert!(*g == 0 || *g >= d.floor.0.min(d.wanted.0), "{g} is of no use: {d:?}");
            }
        }
    }
}
