//! What the gate believes of one expert's datagrams under one binding (HANDOVER.md sections 7, 8 and 11).

use super::beacons::Beacons;
use super::frames::{FrameLog, Shown};
use super::police::Bucket;
use crate::handover::checks::Checks;
use crate::handover::config::Config;
use crate::handover::message::{Heartbeat, Reason};
use crate::handover::types::{Binding, ChannelId, Counter, FrameRef, Nonce};
use crate::units::Micros;
use std::collections::VecDeque;

/// Poses that the adapter may still be judging.
const POSES: usize = 8;

/// How the adapter judges a pose against the device (HO-R-004).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Judgement {
    /// Difference of orientation, in thousandths of a degree.
    pub orientation: u32,
    /// Whether the grip is as closed as the instrument.
    pub grip_matched: bool,
    /// Whether no motion is commanded.
    pub motion_zero: bool,
}

/// The newest valid HB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Beat {
    /// When it came.
    pub(super) at: Micros,
    /// Its loop age when it came.
    pub(super) age: u64,
    pub(super) presence: bool,
    pub(super) pedal: bool,
}

/// One expert, one binding.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Talk {
    /// The channel that carried the ACCEPT, whose keys seal the datagrams.
    pub(super) key: ChannelId,
    pub(super) binding: Binding,
    pub(super) beacons: Beacons,
    newest: Counter,
    /// When something fresh came last.
    heard: Option<Micros>,
    pub(super) beat: Option<Beat>,
    /// Presence was seen released under this binding.
    released: bool,
    pub(super) shown: Option<Shown>,
    poses: VecDeque<(Counter, Micros)>,
    /// When the newest pose that was judged good had come; nothing where the newest judgement was bad.
    aligned: Option<Micros>,
    commands: Bucket,
    beats: Bucket,
}

/// What every datagram of an expert says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    pub(super) channel: ChannelId,
    pub(super) binding: Binding,
    pub(super) counter: Counter,
    pub(super) nonce: Nonce,
    pub(super) echo: Option<FrameRef>,
    pub(super) is_command: bool,
}

impl Talk {
    /// At the ACCEPT: nothing is known yet.
    pub(super) fn new(now: Micros, key: ChannelId, binding: Binding, cfg: &Config) -> Self {
        Self {
            key,
            binding,
            beacons: Beacons::new(now),
            newest: Counter(0),
            heard: None,
            beat: None,
            released: false,
            shown: None,
            poses: VecDeque::new(),
            aligned: None,
            commands: Bucket::new(now, cfg.command_rate),
            beats: Bucket::new(now, cfg.beat_rate),
        }
    }

    /// At the grant: keys and counters begin anew, the lease runs from now (HO-G-014), presence and pose have to be told again.
    /// The nonces and the picture in front of the expert stay what they were.
    pub(super) fn granted(self, now: Micros, binding: Binding, cfg: &Config) -> Self {
        let beat = Some(Beat { at: now, age: 0, presence: false, pedal: false });
        Self {
            beacons: self.beacons.rebound(now),
            heard: Some(now),
            beat,
            shown: self.shown,
            ..Self::new(now, self.key, binding, cfg)
        }
    }

    /// Takes note of a datagram; gives the time at which its nonce was issued.
    ///
    /// # Errors
    /// Why it does not count. What fails behind the counter has used its number up.
    pub(super) fn hear<C: Checks>(
        &mut self,
        now: Micros,
        heard: &Heard,
        cfg: &Config,
        frames: &FrameLog,
    ) -> Result<Micros, Reason> {
        if !C::channel_matches(self.key, heard.channel) {
            return Err(Reason::WrongChannel); // HO-P-004
        }
        binding_matches::<C>(self.binding, heard.binding)?;
        if !C::counter_is_new(self.newest, heard.counter) {
            return Err(Reason::OldCounter); // HO-P-003
        }
        if !C::counter_is_near(self.newest, heard.counter, cfg.window) {
            return Err(Reason::CounterJump); // HO-P-002: not adopted
        }
        self.newest = heard.counter;
        let bucket = if heard.is_command { &mut self.commands } else { &mut self.beats };
        if !bucket.take(now) {
            return Err(Reason::TooFast); // HO-P-001, HO-P-006
        }
        let issued = C::issued_at(&self.beacons, heard.nonce).ok_or(Reason::UnknownNonce)?; // HO-A-003
        if C::age_is_within(now.since(issued), cfg.command_age) {
            self.heard = Some(now);
        }
        self.shown = frames.shown(now, self.shown, heard.echo);
        Ok(issued)
    }

    /// Takes over what a valid HB says.
    pub(super) fn beat(&mut self, now: Micros, issued: Micros, hb: &Heartbeat) {
        self.released |= !hb.presence;
        self.beat = Some(Beat { at: now, age: now.since(issued), presence: hb.presence, pedal: hb.pedal });
        if self.poses.len() >= POSES {
            self.poses.pop_front();
        }
        self.poses.push_back((hb.counter, now));
    }

    /// The adapter judged the pose of that HB; a judgement of a pose that is not waited for counts for nothing.
    pub(super) fn judged(&mut self, counter: Counter, judgement: Judgement, cfg: &Config) {
        let Some(&(_, came)) = self.poses.iter().find(|(each, _)| *each == counter) else { return };
        self.poses.retain(|(each, _)| *each > counter);
        let good = judgement.orientation <= cfg.orientation && judgement.grip_matched && judgement.motion_zero;
        self.aligned = good.then_some(came);
    }

    /// HO-S-001: nothing fresh for so long; nothing at all is silence.
    pub(super) fn silent(&self, now: Micros, cfg: &Config) -> bool {
        self.heard.is_none_or(|at| now.since(at) >= cfg.gap)
    }

    /// HO-R-006: an HB came within `gap`, and was not too old.
    pub(super) fn beat_is_fresh<C: Checks>(&self, now: Micros, cfg: &Config) -> bool {
        self.beat.is_some_and(|b| now.since(b.at) < cfg.gap && C::age_is_within(b.age, cfg.command_age))
    }

    /// HO-A-006.
    pub(super) fn lease_is_over(&self, now: Micros, cfg: &Config) -> bool {
        self.beat.is_none_or(|b| now.since(b.at) >= cfg.lease)
    }

    /// Whether the dead-man input is held.
    pub(super) fn presence(&self) -> bool {
        self.beat.is_some_and(|b| b.presence)
    }

    /// HO-R-005.
    pub(super) fn presence_anew<C: Checks>(&self) -> bool {
        C::presence_is_anew(self.presence(), self.released)
    }

    /// HO-R-004.
    pub(super) fn is_aligned(&self, now: Micros, cfg: &Config) -> bool {
        self.aligned.is_some_and(|at| now.since(at) < cfg.gap)
    }

    /// Age of the picture in front of the expert; nothing where none is proved.
    pub(super) fn frame_age(&self, now: Micros) -> Option<u64> {
        self.shown.map(|s| now.since(s.noted))
    }

    /// HO-F-004: a young picture, and a new one every few frame times.
    pub(super) fn frame_is_fresh<C: Checks>(&self, now: Micros, cfg: &Config) -> bool {
        let missing = cfg.frame_time.saturating_mul(cfg.frames_missing);
        let advances = self.shown.is_some_and(|s| now.since(s.advanced) <= missing);
        C::frame_is_young(self.frame_age(now), cfg.frame_stop) && C::frame_is_young(advances.then_some(0), 0)
    }
}

/// HO-A-008: bound to what is open or held now.
fn binding_matches<C: Checks>(ours: Binding, shown: Binding) -> Result<(), Reason> {
    match (ours, shown) {
        (Binding::Epoch(ours), Binding::Epoch(shown)) if C::epoch_matches(ours, shown) => Ok(()),
        (Binding::Offer(ours), Binding::Offer(shown)) if ours == shown => Ok(()),
        (_, Binding::Epoch(_)) => Err(Reason::WrongEpoch),
        (_, Binding::Offer(_)) => Err(Reason::NoSuchOffer),
    }
}

#[cfg(trocar_model)]
impl Talk {
    pub(super) fn canon(&mut self, cfg: &Config, by: &crate::handover::canon::Ruler) {
        use crate::handover::canon::Canon;
        self.beacons.canon(self.binding, cfg.withdraw_at_once, by);
        by.counter(self.binding, &mut self.newest);
        if let Some(at) = &mut self.heard {
            by.past(at, cfg.gap);
        }
        if let Some(beat) = &mut self.beat {
            by.past(&mut beat.at, cfg.lease);
            beat.age = beat.age.min(cfg.command_age.saturating_add(by.tick));
        }
        self.poses.retain(|(_, came)| by.now.since(*came) < cfg.gap);
        for (counter, came) in &mut self.poses {
            by.counter(self.binding, counter);
            by.past(came, cfg.gap);
        }
        if let Some(at) = &mut self.aligned {
            by.past(at, cfg.gap);
        }
        self.commands.canon(by);
        self.beats.canon(by);
    }

    pub(super) const fn newest(&self) -> Counter {
        self.newest
    }
}
