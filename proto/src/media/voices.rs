//! Who speaks, and whose voice is heard where more people are in a session than a listener has m-lines for.

use crate::units::Micros;

/// Sources whose level is kept. Loss policy: one more is not taken until another is removed.
pub const MAX_SOURCES: usize = 64;
/// Voices that one listener is given at most.
pub const MAX_SLOTS: usize = 12;
/// A source speaks when it has been this loud, in dB above −127 dBov …
const LOUD: u32 = 127 - 50;
/// … for this long, in microseconds …
const ON_AFTER_US: u64 = 100_000;
/// … and has stopped when it has not been for this long.
const OFF_AFTER_US: u64 = 600_000;
/// Time constant of the smoothed level, in microseconds.
const SMOOTHING_US: u64 = 60_000;
/// The list of speakers is given at most this often, in microseconds: five times a second.
const SPACING_US: u64 = 200_000;
/// Another source must be this much louder to be named first, in 1/256 dB.
const LOUDER: u32 = 6 * 256;

/// How loud the sound of one packet is (RFC 6464 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioLevel {
    /// The sender thinks that it is speech.
    pub voice: bool,
    /// Level below the loudest that can be, in dB: 0 is loudest, 127 is silence.
    pub dbov_neg: u8,
}

impl AudioLevel {
    /// From the bytes of the element; the two-byte form may have more of them.
    #[must_use]
    pub fn from_bytes(b: &[u8]) -> Option<Self> {
        b.first().map(|b| Self { voice: b & 0x80 != 0, dbov_neg: b & 0x7f })
    }
}

#[derive(Debug, Clone, Copy)]
struct Source {
    key: usize,
    heard: Micros,
    /// In 1/256 dB above −127 dBov.
    level: u32,
    /// Loud since then, without a pause.
    loud_since: Option<Micros>,
    last_loud: Option<Micros>,
    speaking: bool,
}

/// Knows how loud each source of a session is and which of them speak.
#[derive(Debug, Default)]
pub struct Speakers {
    sources: Vec<Source>,
    told: Vec<usize>,
    told_at: Option<Micros>,
    /// One who was told is gone.
    lost_one: bool,
}

impl Speakers {
    /// Takes the level of a packet, in dB below the loudest (RFC 6464), of the source that the caller knows by that key.
    pub fn handle_level(&mut self, now: Micros, source: usize, level_dbov_neg: u8) {
        let Some(s) = self.source(now, source) else { return };
        let target = (127 - u32::from(level_dbov_neg.min(127))) * 256;
        let passed = now.since(s.heard);
        // After a pause the old level says nothing.
        if passed > ON_AFTER_US {
            s.level = 0;
            s.loud_since = None;
        }
        let share = |step: u32| {
            let passed = passed.clamp(1_000, ON_AFTER_US);
            u32::try_from(u64::from(step) * passed / (passed + SMOOTHING_US)).unwrap_or(step)
        };
        s.level = if target > s.level { s.level + share(target - s.level) } else { s.level - share(s.level - target) };
        s.heard = now;
        if s.level < LOUD * 256 {
            s.loud_since = None;
            return;
        }
        s.last_loud = Some(now);
        let since = *s.loud_since.get_or_insert(now);
        s.speaking |= now.since(since) >= ON_AFTER_US;
    }

    /// A packet came of a source that does not say how loud it is. It is known from now on, but never as a speaker.
    pub fn handle_silent_source(&mut self, now: Micros, source: usize) {
        if let Some(s) = self.source(now, source) {
            s.heard = now;
        }
    }

    /// The source is gone.
    pub fn remove(&mut self, source: usize) {
        self.sources.retain(|s| s.key != source);
        // The caller may give the key to another source.
        let before = self.told.len();
        self.told.retain(|k| *k != source);
        self.lost_one |= self.told.len() < before;
    }

    fn source(&mut self, now: Micros, key: usize) -> Option<&mut Source> {
        let at = match self.sources.iter().position(|s| s.key == key) {
            Some(at) => at,
            None if self.sources.len() >= MAX_SOURCES => return None,
            None => {
                let new = Source { key, heard: now, level: 0, loud_since: None, last_loud: None, speaking: false };
                self.sources.push(new);
                self.sources.len() - 1
            }
        };
        self.sources.get_mut(at)
    }

    /// Who speaks, loudest first, where that has changed: somebody began or stopped, or another one is clearly the
    /// loudest. At most five times a second.
    pub fn poll(&mut self, now: Micros) -> Option<&[usize]> {
        for s in &mut self.sources {
            s.speaking &= s.last_loud.is_some_and(|t| now.since(t) < OFF_AFTER_US);
        }
        if self.told_at.is_some_and(|t| now.since(t) < SPACING_US) {
            return None;
        }
        let speaking = || self.sources.iter().filter(|s| s.speaking);
        let same = speaking().count() == self.told.len() && speaking().all(|s| self.told.contains(&s.key));
        let first = self.told.first().map_or(0, |k| self.level(*k));
        let overtaken = speaking().any(|s| s.level > first.saturating_add(LOUDER));
        if same && !overtaken && !self.lost_one {
            return None;
        }
        let mut list: Vec<_> = speaking().map(|s| (std::cmp::Reverse(s.level), s.key)).collect();
        list.sort_unstable();
        self.told.clear();
        self.told.extend(list.iter().map(|(_, key)| *key));
        self.told_at = Some(now);
        self.lost_one = false;
        Some(&self.told)
    }

    fn get(&self, key: usize) -> Option<&Source> {
        self.sources.iter().find(|s| s.key == key)
    }

    fn level(&self, key: usize) -> u32 {
        self.get(key).map_or(0, |s| s.level)
    }

    /// Whether the source speaks, as of the last [`Self::poll`].
    #[must_use]
    pub fn is_speaking(&self, source: usize) -> bool {
        self.get(source).is_some_and(|s| s.speaking)
    }

    /// When the source was last loud.
    #[must_use]
    pub fn last_loud(&self, source: usize) -> Option<Micros> {
        self.get(source).and_then(|s| s.last_loud)
    }
}

/// What changed on one m-line of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotChange {
    /// Which m-line, from 0.
    pub slot: usize,
    /// Whose voice it carries from now on; none where it is silent.
    pub source: Option<usize>,
}

/// Whose voice is on which m-line of one listener.
#[derive(Debug)]
pub struct Slots(Vec<Option<usize>>);

impl Slots {
    /// `n` empty m-lines; 1 to [`MAX_SLOTS`] of them.
    #[must_use]
    pub fn new(n: usize) -> Self {
        Self(vec![None; n.clamp(1, MAX_SLOTS)])
    }

    /// Puts voices on m-lines and returns what changed. `sources` are those the listener may hear (not its own). Who has an
    /// m-line keeps it while it is among them. Free ones go to who was loud last; where there is none left, one who speaks
    /// takes that of the one who has been silent the longest, and nobody loses it while speaking.
    pub fn assign(&mut self, sources: &[usize], speakers: &Speakers) -> Vec<SlotChange> {
        let before = self.0.clone();
        for slot in &mut self.0 {
            *slot = slot.filter(|s| sources.contains(s));
        }
        let mut waiting: Vec<usize> = Vec::new();
        for s in sources {
            if !self.0.contains(&Some(*s)) && !waiting.contains(s) {
                waiting.push(*s);
            }
        }
        // Stable, so that without levels the caller's order holds.
        waiting.sort_by_key(|s| std::cmp::Reverse(rank(speakers, *s)));
        for source in waiting {
            let free = self.0.iter().position(Option::is_none);
            let place = free.or_else(|| self.give_way(source, speakers));
            if let Some(slot) = place.and_then(|at| self.0.get_mut(at)) {
                *slot = Some(source);
            }
        }
        let pairs = before.iter().zip(&self.0).enumerate();
        pairs.filter(|(_, (was, is))| was != is).map(|(slot, (_, is))| SlotChange { slot, source: *is }).collect()
    }

    /// The m-line of the one who has been silent the longest, for one who speaks.
    fn give_way(&self, source: usize, speakers: &Speakers) -> Option<usize> {
        if !speakers.is_speaking(source) {
            return None;
        }
        let silent = self.0.iter().enumerate().filter_map(|(at, s)| s.map(|s| (at, s)));
        let silent = silent.filter(|(_, s)| !speakers.is_speaking(*s));
        silent.min_by_key(|(_, s)| speakers.last_loud(*s)).map(|(at, _)| at)
    }

    /// Whose voice is on each m-line.
    #[must_use]
    pub fn sources(&self) -> &[Option<usize>] {
        &self.0
    }
}

/// Who speaks goes before who does not, the louder first; then who was loud last.
fn rank(speakers: &Speakers, source: usize) -> (bool, u32, Option<Micros>) {
    let speaking = speakers.is_speaking(source);
    (speaking, if speaking { speakers.level(source) } else { 0 }, speakers.last_loud(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays 20 ms packets of these levels per source from `from` to `to` (ms) and returns what was told, with its time.
    fn play(s: &mut Speakers, from: u64, to: u64, levels: &[(usize, u8)]) -> Vec<(u64, Vec<usize>)> {
        let mut told = vec![];
        for ms in from..to {
            let now = Micros(ms * 1_000);
            if ms % 20 == 0 {
                levels.iter().for_each(|(key, level)| s.handle_level(now, *key, *level));
            }
            told.extend(s.poll(now).map(|l| (ms, l.to_vec())));
        }
        told
    }

    fn speaking(keys: &[usize]) -> Speakers {
        let mut s = Speakers::default();
        let levels: Vec<_> = keys.iter().enumerate().map(|(i, k)| (*k, 20 + i as u8)).collect();
        play(&mut s, 0, 400, &levels);
        s
    }

    #[test]
    fn the_byte_of_the_extension_has_a_flag_and_a_level() {
        assert_eq!(AudioLevel::from_bytes(&[0x80 | 42]), Some(AudioLevel { voice: true, dbov_neg: 42 }));
        assert_eq!(AudioLevel::from_bytes(&[127, 0]), Some(AudioLevel { voice: false, dbov_neg: 127 }));
        assert_eq!(AudioLevel::from_bytes(&[]), None);
    }

    #[test]
    fn a_voice_is_told_soon_after_it_begins_and_a_while_after_it_ends() {
        let mut s = Speakers::default();
        assert_eq!(play(&mut s, 0, 1_000, &[(3, 80)]), vec![]);
        let on = play(&mut s, 1_000, 2_000, &[(3, 25)]);
        assert_eq!((on.len(), &on[0].1), (1, &vec![3]));
        assert!((1_100..1_300).contains(&on[0].0), "{on:?}");
        let off = play(&mut s, 2_000, 4_000, &[(3, 80)]);
        assert_eq!((off.len(), &off[0].1), (1, &vec![]));
        assert!((2_600..2_800).contains(&off[0].0), "{off:?}");
    }

    #[test]
    fn a_click_is_no_voice_and_a_pause_between_words_ends_none() {
        let mut s = Speakers::default();
        play(&mut s, 0, 100, &[(1, 127)]);
        assert_eq!(play(&mut s, 100, 160, &[(1, 0)]), vec![]);
        assert_eq!(play(&mut s, 160, 2_000, &[(1, 127)]), vec![]);
        let mut told = vec![];
        for word in 0..10 {
            told.extend(play(&mut s, 2_000 + word * 700, 2_300 + word * 700, &[(1, 30)]));
            told.extend(play(&mut s, 2_300 + word * 700, 2_700 + word * 700, &[(1, 90)]));
        }
        assert_eq!(told.len(), 1, "{told:?}");
    }

    #[test]
    fn a_source_that_vanishes_stops_speaking() {
        let mut s = speaking(&[5]);
        assert!(s.is_speaking(5));
        assert_eq!(play(&mut s, 400, 2_000, &[]).len(), 1);
        assert!(!s.is_speaking(5));
        let mut s = speaking(&[5, 6]);
        s.remove(5);
        assert_eq!(play(&mut s, 600, 700, &[(6, 20)]), vec![(600, vec![6])]);
    }

    #[test]
    fn the_key_of_a_speaker_who_is_gone_is_told_neither_again_nor_for_who_gets_it_next() {
        let mut s = speaking(&[5, 6]);
        s.remove(5);
        assert_eq!(s.told, vec![6]);
        s.handle_silent_source(Micros(400_000), 5);
        assert_eq!(play(&mut s, 400, 1_000, &[(6, 20)]), vec![(400, vec![6])], "told at once, and only once");
        assert!(!s.is_speaking(5));
        let mut s = speaking(&[5]);
        s.remove(7);
        assert_eq!(play(&mut s, 400, 900, &[(5, 20)]), vec![], "who was never told is no news");
    }

    #[test]
    fn the_loudest_is_first_and_the_order_does_not_flicker() {
        let mut s = Speakers::default();
        assert_eq!(play(&mut s, 0, 1_000, &[(1, 40), (2, 20), (3, 30)]).last().unwrap().1, vec![2, 3, 1]);
        assert_eq!(play(&mut s, 1_000, 3_000, &[(1, 40), (2, 24), (3, 20)]), vec![], "4 dB are not enough");
        let told = play(&mut s, 3_000, 5_000, &[(1, 12), (2, 24), (3, 20)]);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].1[0], 1);
    }

    #[test]
    fn at_most_five_lists_a_second_are_told() {
        let mut s = Speakers::default();
        let mut told = 0;
        for ms in 0..10_000_u64 {
            let now = Micros(ms * 1_000);
            // Sixteen sources that begin and end at odd times.
            for key in 0..16 {
                let loud = (ms / 150 + key as u64 * 7) % 11 < 3;
                s.handle_level(now, key, if loud { 10 } else { 127 });
            }
            told += u32::from(s.poll(now).is_some());
        }
        assert!((20..=50).contains(&told), "{told}");
    }

    #[test]
    fn a_source_without_levels_is_known_and_never_speaks_and_the_number_of_sources_is_bounded() {
        let mut s = Speakers::default();
        for key in 0..200 {
            s.handle_silent_source(Micros(0), key);
        }
        assert_eq!(s.sources.len(), MAX_SOURCES);
        assert_eq!(play(&mut s, 0, 1_000, &[(199, 0)]), vec![]);
        s.remove(0);
        assert_eq!(play(&mut s, 1_000, 2_000, &[(199, 0)]).len(), 1);
    }

    #[test]
    fn all_who_fit_stay_where_they_are() {
        let s = Speakers::default();
        let mut slots = Slots::new(4);
        let at = |slot, source| SlotChange { slot, source };
        assert_eq!(slots.assign(&[7, 8, 7], &s), vec![at(0, Some(7)), at(1, Some(8))]);
        assert_eq!(slots.assign(&[9, 8, 7], &s), vec![at(2, Some(9))]);
        assert_eq!(slots.assign(&[9, 7], &s), vec![at(1, None)]);
        assert_eq!(slots.assign(&[7, 9], &s), vec![]);
        assert_eq!(slots.assign(&[7, 9, 5, 6], &s), vec![at(1, Some(5)), at(3, Some(6))]);
        assert_eq!(slots.sources(), &[Some(7), Some(5), Some(9), Some(6)]);
    }

    #[test]
    fn with_more_voices_than_lines_a_speaker_takes_that_of_the_longest_silent() {
        let mut s = Speakers::default();
        // 1 and 2 spoke, 2 last; 4 speaks now; 3 never did.
        play(&mut s, 0, 400, &[(1, 20)]);
        play(&mut s, 400, 800, &[(2, 20)]);
        let mut slots = Slots::new(2);
        slots.assign(&[1, 2], &s);
        assert_eq!(slots.sources(), &[Some(2), Some(1)]);
        assert_eq!(slots.assign(&[1, 2, 3, 4], &s), vec![], "who does not speak takes nobody's place");
        play(&mut s, 800, 1_600, &[(4, 20)]);
        assert_eq!(slots.assign(&[1, 2, 3, 4], &s), vec![SlotChange { slot: 1, source: Some(4) }]);
        assert_eq!(slots.assign(&[1, 2, 3, 4], &s), vec![], "and the one who lost it does not take another's");
    }

    #[test]
    fn nobody_loses_the_line_while_speaking_and_the_loudest_get_the_free_ones() {
        let s = speaking(&[10, 11, 12, 13]);
        let mut slots = Slots::new(2);
        slots.assign(&[13, 12, 11, 10], &s);
        assert_eq!(slots.sources(), &[Some(10), Some(11)]);
        assert_eq!(slots.assign(&[12, 13, 11, 10], &s), vec![]);
        assert_eq!((Slots::new(0).sources().len(), Slots::new(99).sources().len()), (1, MAX_SLOTS));
    }
}
