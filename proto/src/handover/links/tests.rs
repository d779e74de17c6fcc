use super::*;
use crate::handover::types::Epoch;

struct Line {
    meter: Meter,
    cfg: Config,
    now: u64,
    n: u64,
}

impl Line {
    fn new() -> Self {
        Self { meter: Meter::new(Oid(1)), cfg: Config::default(), now: 0, n: 0 }
    }

    /// HBs every 20 ms for so many milliseconds.
    fn run(&mut self, ms: u64, loop_ms: u64, jitter_ms: u64, lose_every: u64) -> Colours {
        for step in 0..ms / 20 {
            self.now += 20_000;
            self.n += 1;
            if lose_every > 0 && self.n.is_multiple_of(lose_every) {
                continue;
            }
            let sample = Sample {
                oid: Oid(1),
                binding: Binding::Epoch(Epoch(1)),
                counter: Counter(self.n),
                beat: u32::try_from(self.n).ok(),
                loop_age: loop_ms * 1_000,
                frame_age: Some(100_000),
            };
            let late = if step.is_multiple_of(2) { jitter_ms * 1_000 } else { 0 };
            self.meter.note(Micros(self.now + late), &sample, &self.cfg);
        }
        self.colours().0
    }

    fn colours(&mut self) -> (Colours, Figures) {
        self.meter.colours(Micros(self.now), &self.cfg)
    }
}

#[test]
fn a_link_is_unmeasured_until_its_window_is_full() {
    // HO-K-002
    let mut line = Line::new();
    assert_eq!(line.run(4_900, 50, 0, 0), Colours::default());
    assert_eq!(line.run(200, 50, 0, 0), Colours::GREEN);
}

#[test]
fn loop_age_is_green_to_100_ms_amber_to_150_and_red_above() {
    // HO-K-001, HO-K-003
    for (ms, colour) in [(97, Colour::Green), (101, Colour::Amber), (147, Colour::Amber), (151, Colour::Red)] {
        assert_eq!(Line::new().run(6_000, ms, 0, 0).loop_age, colour, "{ms} ms");
    }
}

#[test]
fn jitter_above_10_ms_is_amber_and_never_red() {
    // HO-K-004
    for (ms, colour) in [(0, Colour::Green), (9, Colour::Green), (12, Colour::Amber), (19, Colour::Amber)] {
        assert_eq!(Line::new().run(6_000, 50, ms, 0).jitter, colour, "{ms} ms");
    }
}

#[test]
fn loss_is_green_to_a_thousandth_amber_to_a_hundredth_and_red_above() {
    // HO-K-005
    for (every, colour) in [(0, Colour::Green), (200, Colour::Amber), (50, Colour::Red)] {
        assert_eq!(Line::new().run(6_000, 50, 0, every).loss, colour, "one of {every}");
    }
}

#[test]
fn a_gate_becomes_worse_at_once_and_better_only_after_five_seconds() {
    // HO-K-006, HO-X-014
    let mut line = Line::new();
    assert_eq!(line.run(6_000, 50, 0, 0).loop_age, Colour::Green);
    assert_eq!(line.run(1_000, 120, 0, 0).loop_age, Colour::Amber);
    let mut changes = 0;
    let mut last = Colour::Amber;
    for _ in 0..120 {
        let colour = line.run(100, 50, 0, 0).loop_age;
        changes += usize::from(colour != last);
        last = colour;
    }
    assert_eq!((last, changes), (Colour::Green, 1));
}

#[test]
fn latency_that_creeps_up_passes_amber_before_red_and_does_not_flap() {
    // HO-X-014
    let mut line = Line::new();
    let mut seen = vec![line.run(6_000, 50, 0, 0).loop_age];
    for ms in 50..200 {
        let colour = line.run(400, ms, 0, 0).loop_age;
        if seen.last() != Some(&colour) {
            seen.push(colour);
        }
    }
    assert_eq!(seen, [Colour::Green, Colour::Amber, Colour::Red]);
}

#[test]
fn samples_of_another_offer_and_a_silent_line_prove_nothing() {
    // HO-K-002, HO-K-008
    let mut line = Line::new();
    line.run(6_000, 50, 0, 0);
    line.now += 6_000_000;
    assert_eq!(line.colours().0.loop_age, Colour::Unmeasured);
    let mut other = Meter::new(Oid(2));
    let sample = Sample {
        oid: Oid(1),
        binding: Binding::Offer(Oid(1)),
        counter: Counter(1),
        beat: Some(0),
        loop_age: 1,
        frame_age: None,
    };
    other.note(Micros(0), &sample, &line.cfg);
    assert_eq!(other, Meter::new(Oid(2)));
}

#[test]
fn the_windows_do_not_grow_with_traffic() {
    // HO-K-007
    let mut line = Line::new();
    line.run(60_000, 50, 3, 7);
    assert!(line.meter.pieces.len() <= 11);
    assert_eq!(line.colours().1.loop_p95, 52_000, "the upper edge of its step");
}
