//! The line towards a realm's viewers, where it is known how much it takes: who gets a place on it, and who has to go for whom.
//! Asked when a leg is opened, never for a packet.

use crate::worker::RealmListener;
use serde::Deserialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trocar_proto::media::rate::{Demand, admit};
use trocar_proto::session::admission::AdmitError;
use trocar_proto::session::feed::Purpose;
use trocar_proto::session::ids::{LegId, RealmId};
use trocar_proto::units::Bitrate;

/// A rate in a configuration file: a number and `k`, `M` or `G` (powers of ten, bits per second), such as `"150M"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct UplinkRate(pub Bitrate);

impl TryFrom<String> for UplinkRate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no rate: a number with k, M or G is right, such as \"150M\"");
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
        let scale = match unit {
            "k" => 1e3,
            "M" => 1e6,
            "G" => 1e9,
            _ => return Err(wrong()),
        };
        let rate = number.parse::<f64>().map_err(|_| wrong())? * scale;
        if !(1e5..=1e12).contains(&rate) {
            return Err(format!("{text:?}: 100k to 1000G is right"));
        }
        Ok(Self(Bitrate(rate as u64)))
    }
}

/// One realm's line. All workers share it.
#[derive(Debug)]
pub(crate) struct Uplink {
    realm: RealmId,
    capacity: Bitrate,
    /// The oldest first; as many as the relay has legs, at most.
    places: Mutex<Vec<Place>>,
}

#[derive(Debug)]
struct Place {
    leg: LegId,
    worker: usize,
    demand: Demand,
    /// It has to go; its place is another's already.
    shed: bool,
}

impl Uplink {
    /// The line of a listener, where one is configured.
    pub(crate) fn of(listener: &RealmListener) -> Option<Arc<Self>> {
        let capacity = listener.uplink?;
        Some(Arc::new(Self { realm: listener.realm.clone(), capacity, places: Mutex::default() }))
    }

    /// Gives a leg a place, by purpose and priority. Legs of lower purposes may have to go for it: their workers learn it from
    /// [`Self::keep`]. A voice always has a place, and nobody goes for it.
    ///
    /// # Errors
    /// [`AdmitError::Full`] with the figures and what would be right.
    pub(crate) fn admit(&self, worker: usize, leg: &LegId, demand: Demand) -> Result<(), AdmitError> {
        let mut places = self.places();
        if demand.purpose == Purpose::Voice {
            // Too little for a picture to go for it, and never refused: it counts for whoever comes next.
            places.push(Place { leg: leg.clone(), worker, demand, shed: false });
            return Ok(());
        }
        let others = places.iter().enumerate().filter(|(_, p)| !p.shed);
        let there: Vec<(usize, Demand)> = others.map(|(i, p)| (i, p.demand)).collect();
        for place in self.room_for(&there, demand)? {
            places.get_mut(place).into_iter().for_each(|p| p.shed = true);
        }
        places.push(Place { leg: leg.clone(), worker, demand, shed: false });
        Ok(())
    }

    /// Makes a leg's place larger, with what [`Self::admit`] would ask of one that has none. A place that is large enough, or
    /// is no more, stays as it is: [`Self::settle`] makes it smaller.
    ///
    /// # Errors
    /// [`AdmitError::Full`] as there; the leg keeps what it has.
    pub(crate) fn raise(&self, leg: &LegId, demand: Demand) -> Result<(), AdmitError> {
        let mut places = self.places();
        let own = places.iter().position(|p| p.leg == *leg && !p.shed);
        let Some(own) = own.filter(|i| places.get(*i).is_some_and(|p| p.demand.wanted < demand.wanted)) else {
            return Ok(());
        };
        let others = places.iter().enumerate().filter(|(i, p)| *i != own && !p.shed);
        let there: Vec<(usize, Demand)> = others.map(|(i, p)| (i, p.demand)).collect();
        let out = self.room_for(&there, demand)?;
        for place in out {
            places.get_mut(place).into_iter().for_each(|p| p.shed = true);
        }
        places.get_mut(own).into_iter().for_each(|p| p.demand = demand);
        Ok(())
    }

    /// What a leg has from now on: it takes no more any longer.
    pub(crate) fn settle(&self, leg: &LegId, demand: Demand) {
        let mut places = self.places();
        places.iter_mut().filter(|p| p.leg == *leg && !p.shed).for_each(|p| p.demand = demand);
    }

    /// Forgets the legs of a worker that it no longer has, and tells it which ones have to go.
    pub(crate) fn keep(&self, worker: usize, has: impl Fn(&LegId) -> bool) -> Vec<LegId> {
        let mut places = self.places();
        places.retain(|p| p.worker != worker || has(&p.leg));
        places.iter().filter(|p| p.worker == worker && p.shed).map(|p| p.leg.clone()).collect()
    }

    /// Those of `there` that have to go.
    fn room_for(&self, there: &[(usize, Demand)], demand: Demand) -> Result<Vec<usize>, AdmitError> {
        let demands: Vec<Demand> = there.iter().map(|(_, d)| *d).collect();
        let out = admit(self.capacity, &demands, &demand).map_err(|no| self.refusal(demand, no.taken, no.left))?;
        Ok(out.into_iter().filter_map(|i| there.get(i)).map(|(place, _)| *place).collect())
    }

    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusal(&self, new: Demand, taken: Bitrate, left: Bitrate) -> AdmitError {
        let mbit = |b: Bitrate| b.0 as f64 / 1e6;
        AdmitError::Full(format!(
            "the uplink of realm {} takes {:.1} Mbit/s, of which legs of the same or a higher purpose have {:.1}; this leg \
             needs {:.1} and {:.1} are left: another leg has to be closed, or its feed published at that rate at most",
            self.realm,
            mbit(self.capacity),
            mbit(taken),
            mbit(new.wanted),
            mbit(left)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(name: &str) -> LegId {
        LegId::new(name).unwrap()
    }

    fn demand(purpose: Purpose, mbit: u64) -> Demand {
        let wanted = Bitrate(mbit * 1_000_000);
        Demand { purpose, priority: 0, wanted, floor: wanted }
    }

    fn uplink(mbit: u64) -> Uplink {
        let realm = RealmId::new("north").unwrap();
        Uplink { realm, capacity: Bitrate(mbit * 1_000_000), places: Mutex::default() }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_figures_and_fits_when_another_has_gone() {
        let u = uplink(150);
        u.admit(0, &leg("a"), demand(Purpose::Scope, 80)).unwrap();
        let refused = u.admit(1, &leg("b"), demand(Purpose::Scope, 80)).unwrap_err();
        let want = "the relay is full: the uplink of realm north takes 150.0 Mbit/s, of which legs of the same or a higher \
                    purpose have 80.0; this leg needs 80.0 and 70.0 are left: another leg has to be closed, or its feed \
                    published at that rate at most";
        assert_eq!(refused.to_string(), want);
        u.admit(1, &leg("c"), demand(Purpose::Scope, 70)).unwrap();
        assert!(u.keep(0, |_| false).is_empty());
        u.admit(1, &leg("b"), demand(Purpose::Scope, 80)).unwrap();
    }

    #[test]
    fn a_scope_takes_the_place_of_a_room_whose_worker_is_told_and_a_voice_always_finds_one() {
        let u = uplink(100);
        u.admit(0, &leg("room"), demand(Purpose::Room, 30)).unwrap();
        u.admit(1, &leg("scope1"), demand(Purpose::Scope, 60)).unwrap();
        u.admit(1, &leg("scope2"), demand(Purpose::Scope, 40)).unwrap();
        assert_eq!(u.keep(0, |_| true), vec![leg("room")]);
        assert!(u.keep(1, |_| true).is_empty());
        assert!(u.admit(0, &leg("room2"), demand(Purpose::Room, 1)).is_err(), "the line is full of scopes");
        u.admit(0, &leg("voice"), demand(Purpose::Voice, 1)).unwrap();
        assert!(u.keep(1, |_| true).is_empty(), "no scope goes for a voice");
        u.keep(1, |l| *l != leg("scope2"));
        assert!(u.admit(1, &leg("scope3"), demand(Purpose::Scope, 40)).is_err(), "but the voice counts");
    }

    #[test]
    fn a_place_grows_where_the_line_has_room_and_shrinks_when_its_leg_takes_less() {
        let u = uplink(100);
        u.admit(0, &leg("a"), demand(Purpose::Scope, 30)).unwrap();
        u.admit(0, &leg("room"), demand(Purpose::Room, 30)).unwrap();
        u.admit(1, &leg("b"), demand(Purpose::Scope, 40)).unwrap();
        let refused = u.raise(&leg("a"), demand(Purpose::Scope, 70)).unwrap_err();
        assert!(refused.to_string().contains("needs 70.0 and 60.0 are left"), "its own place counts for it: {refused}");
        assert!(u.keep(0, |_| true).is_empty(), "nobody goes for what is refused");
        u.raise(&leg("a"), demand(Purpose::Scope, 60)).unwrap();
        assert_eq!(u.keep(0, |_| true), vec![leg("room")]);
        u.keep(0, |l| *l != leg("room"));
        // It takes as much until it says that it does not.
        u.raise(&leg("a"), demand(Purpose::Scope, 10)).unwrap();
        assert!(u.admit(1, &leg("c"), demand(Purpose::Scope, 50)).is_err());
        u.settle(&leg("a"), demand(Purpose::Scope, 10));
        u.admit(1, &leg("c"), demand(Purpose::Scope, 50)).unwrap();
    }

    #[test]
    fn a_rate_has_a_number_and_a_unit() {
        let of = |s: &str| UplinkRate::try_from(s.to_owned());
        assert_eq!(of("150M"), Ok(UplinkRate(Bitrate(150_000_000))));
        assert_eq!(of("1.5G"), Ok(UplinkRate(Bitrate(1_500_000_000))));
        assert_eq!(of("800k"), Ok(UplinkRate(Bitrate(800_000))));
        for wrong in ["", "150", "M", "-1M", "150 M B", "NaNM", "9é"] {
            assert!(of(wrong).unwrap_err().contains("is right"), "{wrong}");
        }
    }
}
