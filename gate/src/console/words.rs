//! The words of every console: short, the same on all of them, and harmless whatever came by the network.

use crate::core::Who;
use trocar_proto::handover::gate::{Act, Alarms, Causes};
use trocar_proto::handover::types::Colour;

/// Text of others without anything that moves a cursor, hides or turns writing round.
pub(super) fn clean(text: &str) -> String {
    let bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|c| if bad(c) { '\u{fffd}' } else { c }).collect()
}

/// Longest name on a screen, in characters: what is held stands behind it and has to fit.
const LONGEST_NAME: usize = 24;

/// The certificate's own name: what the gate's trust list vouches for and a person can read. A token's subject is a random number.
pub(super) fn name(who: &Who) -> String {
    let name = clean(who.certificate.rsplit('/').next().unwrap_or(&who.certificate));
    if name.chars().count() <= LONGEST_NAME {
        return name;
    }
    let begin: String = name.chars().take(LONGEST_NAME - 2).collect();
    format!("{begin}..")
}

/// The hospital network of a certificate `trocar://REALM/ROLE/NAME`.
pub(super) fn realm(who: &Who) -> String {
    clean(who.certificate.rsplit('/').nth(2).unwrap_or_default())
}

/// A running clock, in its two largest units.
pub(super) fn lasting(us: u64) -> String {
    let s = us / 1_000_000;
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3_600, s % 3_600 / 60),
    }
}

/// Microseconds as milliseconds, upwards to the tenth so that no figure looks better than it is; nothing measured is a dash.
pub(super) fn ms(us: u32) -> String {
    let tenths = us.div_ceil(100);
    if us == u32::MAX { "-".to_owned() } else { format!("{}.{} ms", tenths / 10, tenths % 10) }
}

/// A threshold in parts per million, exactly and as short as it can be.
pub(super) fn threshold(ppm: u64) -> String {
    let digits = format!("{}.{:04}", ppm / 10_000, ppm % 10_000);
    format!("{} %", digits.trim_end_matches('0').trim_end_matches('.'))
}

/// Parts per million as per cent, upwards to the thousandth.
pub(super) fn percent(ppm: u32) -> String {
    let thousandths = ppm.div_ceil(10);
    if ppm == u32::MAX { "-".to_owned() } else { format!("{}.{:03} %", thousandths / 1_000, thousandths % 1_000) }
}

/// A duration of the configuration, exactly.
pub(super) fn exactly(us: u64) -> String {
    match us {
        0 => "0".to_owned(),
        us if us.is_multiple_of(1_000_000) => format!("{} s", us / 1_000_000),
        us if us.is_multiple_of(1_000) => format!("{} ms", us / 1_000),
        us => format!("{us} µs"),
    }
}

/// The colour said in a word, with a sign that needs no colour.
pub(super) const fn colour(colour: Colour) -> (&'static str, &'static str) {
    match colour {
        Colour::Unmeasured => ("measuring", "..."),
        Colour::Green => ("GREEN", "ok"),
        Colour::Amber => ("AMBER", "!"),
        Colour::Red => ("RED", "X"),
    }
}

/// Why motion is stopped. Whoever waits for a re-clutch does so behind every other cause.
pub(super) fn causes(causes: Causes) -> Vec<&'static str> {
    let others = Causes(causes.0 & !Causes::WAITING.0);
    if others == Causes::default() { causes.words().collect() } else { others.words().collect() }
}

/// Alarms, the worst first: what it is, and what it means for the hand.
const ALARMS: [(Alarms, &str, &str); 15] = [
    (Alarms::SECOND_GATE, "SECOND GATE", "it has or wants the device: stop it, or use the override"),
    (Alarms::DEVICE, "DEVICE", "it latched, is silent or lost its selection: look at the device"),
    (Alarms::LINK, "EXPERT LOST", "no valid sign of the expert, or far too slow: TAKE"),
    (Alarms::FRAME, "EXPERT'S PICTURE", "it was too old: TAKE"),
    (Alarms::STOPPED, "STOPPED TOO LONG", "motion was stopped for too long: TAKE"),
    (Alarms::REVOKED, "CERTIFICATE REVOKED", "the expert's certificate is no longer valid: TAKE"),
    (Alarms::ESTOP, "STOP FROM THE NETWORK", "somebody pressed ESTOP: see the news"),
    (Alarms::CONSOLE, "CONSOLE WAS LOST", "no console of this gate was alive: TAKE"),
    (Alarms::OVERRIDE, "HARDWARE OVERRIDE", "the device is given to local by its own switch"),
    (Alarms::STORE, "REMOTE REFUSED", "epochs cannot be relied on; no grant in this session"),
    (Alarms::MEANS, "REMOTE NOT POSSIBLE", "a certificate, key or port of this gate cannot be used: no grant"),
    (Alarms::DISK, "DISK", "the audit chain could not be written: no grant"),
    (Alarms::CONSENT, "NO CONSENT", "consent for remote operation is not active: no grant"),
    (Alarms::PATH, "UNPROTECTED", "one of two paths is gone; the other's loss ends REMOTE"),
    (Alarms::LOST, "OVERLOAD", "outputs of the gate were lost"),
];

/// Those of the alarms that are set.
pub(super) fn alarms(alarms: Alarms) -> Vec<(&'static str, &'static str)> {
    ALARMS.into_iter().filter(|(bit, ..)| alarms.has(*bit)).map(|(_, title, meaning)| (title, meaning)).collect()
}

/// The act as it stands on keys and buttons.
pub(super) const fn act(act: &Act) -> &'static str {
    match act {
        Act::Offer { .. } => "OFFER",
        Act::Withdraw => "WITHDRAW",
        Act::Confirm => "CONFIRM",
        Act::ConfirmAmber => "CONFIRM AMBER",
        Act::Take => "TAKE",
        Act::Estop => "ESTOP",
        Act::Reset => "RESET",
        Act::Close => "CLOSE",
        Act::Mute(_) => "MUTE",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_moves_nothing_on_the_screen() {
        assert_eq!(clean("a\u{1b}[2Jb\u{202e}c\r\n"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}\u{fffd}");
        assert_eq!(clean("伊藤 O'Neil"), "伊藤 O'Neil");
    }

    #[test]
    fn figures_have_units_and_what_is_not_measured_is_a_dash() {
        assert_eq!((ms(34_260), ms(100_001), ms(u32::MAX)), ("34.3 ms".into(), "100.1 ms".into(), "-".into()));
        assert_eq!(
            (percent(10_000), percent(1_001), percent(u32::MAX)),
            ("1.000 %".into(), "0.101 %".into(), "-".into())
        );
        assert_eq!(
            (exactly(500_000), exactly(30_000_000), exactly(33_334)),
            ("500 ms".into(), "30 s".into(), "33334 µs".into())
        );
        assert_eq!((lasting(59_999_999), lasting(61_000_000)), ("59 s".into(), "1 min 01 s".into()));
        assert_eq!(lasting(7_260_000_000), "2 h 01 min");
        assert_eq!(
            (threshold(1_000), threshold(10_000), threshold(100_001)),
            ("0.1 %".into(), "1 %".into(), "10.0001 %".into())
        );
    }

    #[test]
    fn each_alarm_and_each_cause_has_words_of_its_own() {
        for bit in 0..14 {
            assert_eq!(alarms(Alarms(1 << bit)).len(), 1, "alarm bit {bit}");
        }
        for bit in 0..6 {
            assert_eq!(causes(Causes(1 << bit)).len(), 1, "cause bit {bit}");
        }
        assert_eq!(causes(Causes(Causes::WAITING.0 | Causes::PRESENCE.0)), ["presence released"]);
        assert!(causes(Causes(0)).is_empty() && alarms(Alarms(0)).is_empty());
    }
}
