//! The words for what STATUS says in bits, in one place: every screen, the API and the figures use the same.

use super::gate::{Alarms, Causes};
use super::message::Mode;
use super::types::{Colour, GrantedSet};

impl Mode {
    /// All, in the order of their numbers on the wire.
    pub const ALL: [Self; 8] =
        [Self::Hold, Self::Local, Self::Offered, Self::Ready, Self::Granting, Self::Remote, Self::Estop, Self::Closed];

    /// `hold`, `local`, `offered`, `ready`, `granting`, `remote`, `estop` or `closed`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Local => "local",
            Self::Offered => "offered",
            Self::Ready => "ready",
            Self::Granting => "granting",
            Self::Remote => "remote",
            Self::Estop => "estop",
            Self::Closed => "closed",
        }
    }
}

impl Colour {
    /// `unmeasured`, `green`, `amber` or `red`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unmeasured => "unmeasured",
            Self::Green => "green",
            Self::Amber => "amber",
            Self::Red => "red",
        }
    }
}

impl GrantedSet {
    /// What is in it: some of `camera`, `instruments` and `energy`, in this order.
    pub fn parts(self) -> impl Iterator<Item = &'static str> {
        let all = [(self.camera, "camera"), (self.instruments, "instruments"), (self.energy, "energy")];
        all.into_iter().filter(|(has, _)| *has).map(|(_, name)| name)
    }

    /// `camera + instruments + energy`; `nothing` where nothing is in it.
    #[must_use]
    pub fn words(self) -> String {
        let parts: Vec<_> = self.parts().collect();
        if parts.is_empty() { "nothing".to_owned() } else { parts.join(" + ") }
    }
}

impl Causes {
    /// Each cause in words, in the order of their bits.
    pub const WORDS: [(Self, &'static str); 6] = [
        (Self::WAITING, "waiting for the re-clutch"),
        (Self::GAP, "nothing fresh from the expert"),
        (Self::PRESENCE, "presence released"),
        (Self::CLUTCH, "clutch open"),
        (Self::FRAME, "picture too old"),
        (Self::CAMERA, "camera moved by somebody else"),
    ];

    /// Those that are present, in words. A bit without words is none of this version's and is left out.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Self::WORDS.into_iter().filter(move |(each, _)| self.has(*each)).map(|(_, words)| words)
    }
}

impl Alarms {
    /// Each alarm in words, in the order of their bits.
    pub const WORDS: [(Self, &'static str); 15] = [
        (Self::LINK, "expert lost"),
        (Self::FRAME, "expert's picture too old"),
        (Self::STOPPED, "stop lasted too long"),
        (Self::SECOND_GATE, "second gate at the device"),
        (Self::DEVICE, "device silent or latched"),
        (Self::STORE, "remote refused: store or fence"),
        (Self::CONSENT, "consent not active"),
        (Self::REVOKED, "certificate revoked"),
        (Self::CONSOLE, "local console lost"),
        (Self::ESTOP, "stop pressed on the network"),
        (Self::OVERRIDE, "hardware override in use"),
        (Self::DISK, "audit log not written"),
        (Self::LOST, "gate overloaded"),
        (Self::PATH, "one of two paths lost"),
        (Self::MEANS, "certificate, key or port unusable"),
    ];

    /// Those that are present, in words. A bit without words is none of this version's and is left out.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Self::WORDS.into_iter().filter(move |(each, _)| self.has(*each)).map(|(_, words)| words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_has_words_of_its_own() {
        let causes: std::collections::BTreeSet<&str> = Causes(u8::MAX).words().collect();
        assert_eq!(causes.len(), Causes::WORDS.len());
        let alarms: std::collections::BTreeSet<&str> = Alarms(u16::MAX).words().collect();
        assert_eq!(alarms.len(), Alarms::WORDS.len());
        let bits = Alarms::WORDS.iter().fold(0, |all, (each, _)| all | each.0);
        assert_eq!(u32::from(bits), (1 << Alarms::WORDS.len()) - 1, "no bit is left out");
        assert_eq!(Alarms(0).words().count() + Causes(0).words().count(), 0);
        assert_eq!(
            Alarms(Alarms::LINK.0 | Alarms::LOST.0).words().collect::<Vec<_>>(),
            ["expert lost", "gate overloaded"]
        );
    }

    #[test]
    fn a_set_is_told_part_by_part() {
        assert_eq!(GrantedSet { camera: true, ..GrantedSet::ENERGY }.words(), "camera + instruments + energy");
        assert_eq!(GrantedSet::ENERGY.parts().collect::<Vec<_>>(), ["instruments", "energy"]);
        assert_eq!(GrantedSet::default().words(), "nothing");
    }

    #[test]
    fn modes_are_named_as_in_the_api() {
        assert_eq!(Mode::ALL.map(Mode::name).join(" "), "hold local offered ready granting remote estop closed");
        let mut sorted = Mode::ALL;
        sorted.sort();
        assert_eq!(sorted, Mode::ALL);
    }
}
