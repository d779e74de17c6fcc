//! The words of the handover: epochs, offers, sets, colours. Small values, compared and copied, never interpreted.

use crate::session::role::Grade;

/// The number of a period of authority, and the fence at the device. Only the gate makes them (HO-E-001).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The one after it, or nothing where the numbers are used up (HO-E-009).
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }
}

/// The unguessable name of one offer: 128 random bits, single use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid(pub u128);

impl std::fmt::Debug for Oid {
    /// Only the first 16 bits: whoever reads a log learns no oid.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Oid({:04x}…)", self.0 >> 112)
    }
}

/// What a BEACON carries and HB and CMD echo: 64 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub u64);

/// The number of a sealed datagram under its binding, from 1. 0 is "none yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Counter(pub u64);

/// The random name of one run of a gate, by which the device tells two gates apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(pub u128);

/// An expert: SHA-256 of the certificate that its channel showed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExpertId(pub [u8; 32]);

impl std::fmt::Debug for ExpertId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, ..] = self.0;
        write!(f, "ExpertId({a:02x}{b:02x}…)")
    }
}

/// The expert while in control.
pub type HolderId = ExpertId;

/// One tunnel between somebody and the gate, numbered by whoever accepted it; no number comes twice within one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u32);

/// What a sealed datagram belongs to: part of the context of its key, and said in it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Binding {
    /// Before the grant: READY and GRANTING.
    Offer(Oid),
    /// After it: REMOTE.
    Epoch(Epoch),
}

/// What is granted. Energy without instruments is inconsistent and refused wherever a set comes in (HO-N-001).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GrantedSet {
    /// What moves the camera mechanically. A digital region of interest is no matter of authority.
    pub camera: bool,
    /// What moves instruments.
    pub instruments: bool,
    /// What applies energy through instruments.
    pub energy: bool,
}

impl GrantedSet {
    /// The camera alone.
    pub const CAMERA: Self = Self { camera: true, instruments: false, energy: false };
    /// Instruments alone.
    pub const INSTRUMENTS: Self = Self { camera: false, instruments: true, energy: false };
    /// Instruments with energy.
    pub const ENERGY: Self = Self { camera: false, instruments: true, energy: true };

    /// Bit 0 camera, bit 1 instruments, bit 2 energy.
    #[must_use]
    pub fn bits(self) -> u8 {
        u8::from(self.camera) | u8::from(self.instruments) << 1 | u8::from(self.energy) << 2
    }

    /// From the bits; nothing for unknown bits and inconsistent sets. The empty set is a value (nobody holds anything).
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        let set = Self { camera: bits & 1 != 0, instruments: bits & 2 != 0, energy: bits & 4 != 0 };
        (bits < 8 && (set.instruments || !set.energy)).then_some(set)
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        !(self.camera || self.instruments || self.energy)
    }

    /// The grade that its holder must be allowed to hold.
    #[must_use]
    pub const fn grade(self) -> Grade {
        if self.energy {
            Grade::Energy
        } else if self.instruments {
            Grade::Instruments
        } else if self.camera {
            Grade::Camera
        } else {
            Grade::Observe
        }
    }
}

/// What the device is to obey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selection {
    /// Nobody: position held, energy off.
    Nobody,
    /// Local's own console.
    Local,
    /// What the gate hands on.
    Remote,
}

/// How good a link gate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Colour {
    /// Not measured long enough: blocks CONFIRM, ends nothing.
    #[default]
    Unmeasured,
    /// Good.
    Green,
    /// Needs local's second confirmation.
    Amber,
    /// Refused; ends an offer.
    Red,
}

/// The four link gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Colours {
    /// Loop age, 95th percentile.
    pub loop_age: Colour,
    /// Jitter of heartbeats, 95th percentile.
    pub jitter: Colour,
    /// Loss after repair.
    pub loss: Colour,
    /// Age of the picture in front of the expert.
    pub frame_age: Colour,
}

impl Colours {
    /// All four green: for tests and scripts.
    pub const GREEN: Self =
        Self { loop_age: Colour::Green, jitter: Colour::Green, loss: Colour::Green, frame_age: Colour::Green };

    /// The four, in the order of the fields.
    #[must_use]
    pub const fn all(self) -> [Colour; 4] {
        [self.loop_age, self.jitter, self.loss, self.frame_age]
    }

    /// Red where one is; else unmeasured where one is; else the worst.
    #[must_use]
    pub fn overall(self) -> Colour {
        let all = self.all();
        if all.contains(&Colour::Red) {
            Colour::Red
        } else if all.contains(&Colour::Unmeasured) {
            Colour::Unmeasured
        } else {
            all.into_iter().max().unwrap_or_default()
        }
    }
}

/// Which encoded picture: what the station echoes (HO-F-001).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameRef {
    /// Number of the source in the session.
    pub source: u16,
    /// Number of the rendition of that source.
    pub view: u16,
    /// Frame id, the same in all views of one picture.
    pub frame: u32,
    /// First 128 bits of the SHA-256 of the encoded frame.
    pub digest: u128,
}

/// A dead-man input or a clutch pedal: what the hand or foot does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Clutch {
    /// The expert's controls are free of the instrument.
    #[default]
    Open,
    /// They are coupled to it.
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energy_without_instruments_is_no_set() {
        // HO-C-005, HO-N-001
        let good: Vec<u8> = (0..=255).filter(|b| GrantedSet::from_bits(*b).is_some()).collect();
        assert_eq!(good, [0, 1, 2, 3, 6, 7]);
        for bits in good {
            assert_eq!(GrantedSet::from_bits(bits).unwrap().bits(), bits);
        }
    }

    #[test]
    fn a_set_asks_for_the_grade_of_its_most_dangerous_part() {
        assert_eq!(GrantedSet::CAMERA.grade(), Grade::Camera);
        assert_eq!(GrantedSet { camera: true, ..GrantedSet::INSTRUMENTS }.grade(), Grade::Instruments);
        assert_eq!(GrantedSet::ENERGY.grade(), Grade::Energy);
    }

    #[test]
    fn red_outweighs_unmeasured_and_unmeasured_outweighs_amber() {
        // HO-K-002
        use Colour::{Amber, Green, Red, Unmeasured};
        let of = |a, b| Colours { loop_age: a, jitter: b, ..Colours::GREEN }.overall();
        assert_eq!(of(Red, Unmeasured), Red);
        assert_eq!(of(Unmeasured, Amber), Unmeasured);
        assert_eq!(of(Green, Amber), Amber);
        assert_eq!(Colours::GREEN.overall(), Green);
    }

    #[test]
    fn a_log_never_shows_a_whole_oid() {
        // HO-M-013
        assert_eq!(format!("{:?}", Oid(0xabcd_0000_0000_0000_0000_0000_0000_1234)), "Oid(abcd…)");
    }

    #[test]
    fn epochs_do_not_wrap() {
        // HO-E-009
        assert_eq!(Epoch(7).next(), Some(Epoch(8)));
        assert_eq!(Epoch(u64::MAX).next(), None);
    }
}
