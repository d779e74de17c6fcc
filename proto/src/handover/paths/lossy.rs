//! HO-X-020 on a virtual clock: a holder that only sends HBs, over lines that lose.

use super::{Copy, Paths};
use crate::handover::gate::Input;
use crate::handover::message::Mode;
use crate::handover::rig::{CX, Rig, ms};
use crate::units::Micros;

/// A line's time, one way.
const DELAY: u64 = 20_000;
/// The station gives up before that (HO-T-001).
const SILENCE: u64 = 250_000;

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn loses(&mut self, per_mille: u64) -> bool {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % 1_000 < per_mille
    }
}

/// What came of so many minutes: whether motion stopped (the first stop ends the run), whether REMOTE ended, and the share of HBs that came by no path.
fn run(minutes: u64, paths: u32, per_mille: u64, seed: u64) -> (u32, u32, f64) {
    let mut dice = Dice(seed | 1);
    let (mut stops, mut ends, mut sent, mut lost) = (0, 0, 0_u32, 0_u32);
    let mut rig = Rig::at(Mode::Remote);
    let mut book = Paths::default();
    (0..paths).for_each(|path| book.opened(Micros(rig.now), path));
    rig.engage();
    rig.world.heartbeats = false;
    let (mut seen, mut nonce, mut under_way) = (rig.nonces.len(), (rig.nonce(), rig.now), Vec::new());
    let end = rig.now + minutes * 60_000_000;
    while rig.now < end {
        rig.run(ms(10));
        // BEACONs, each by every path; the first copy counts.
        for (beacon, at) in rig.nonces.drain(..).skip(std::mem::take(&mut seen)) {
            if (0..paths).filter(|_| !dice.loses(per_mille)).count() > 0 {
                nonce = (beacon, at + DELAY);
            }
        }
        if (rig.now / ms(10)).is_multiple_of(2) && rig.now.saturating_sub(nonce.1) < SILENCE {
            let mut hb = rig.hb();
            hb.nonce = nonce.0;
            sent += 1;
            let by: Vec<u32> = (0..paths).filter(|_| !dice.loses(per_mille)).collect();
            lost += u32::from(by.is_empty());
            under_way.push((rig.now + DELAY, hb, by));
        }
        while under_way.first().is_some_and(|(due, ..)| *due <= rig.now) {
            let (_, hb, by) = under_way.remove(0);
            for path in by {
                if book.datagram(Micros(rig.now), path, hb.binding, hb.counter) == Copy::First {
                    rig.input(Input::Heartbeat(CX, hb.clone())).unwrap();
                }
            }
        }
        if !rig.gate.motion_runs() {
            stops += 1;
            ends += u32::from(rig.gate.mode() != Mode::Remote);
            break;
        }
    }
    (stops, ends, f64::from(lost) / f64::from(sent))
}

#[test]
fn a_quarter_lost_on_each_of_two_paths_stops_nothing_for_twenty_minutes_so_that_a_tenth_does_not_in_ten_hours() {
    // HO-X-020. Motion stops after 150 ms without an HB: seven in a row, or as long without a BEACON. With a quarter lost on each path
    // one in 16 comes by neither; with a tenth, one in 100. Seven in a row are (6.25)^7 = 370,000 times rarer then. No stop in twenty
    // minutes means fewer than 9 an hour (95 %), and so fewer than 0.0003 in ten hours.
    for seed in [1, 2] {
        let (stops, ends, lost) = run(10, 2, 250, seed * 7_919);
        assert_eq!((stops, ends), (0, 0));
        assert!((0.055..0.07).contains(&lost), "{lost}");
    }
    // The control: the same on one path is felt.
    let felt = (1..=4).map(|seed| run(10, 1, 250, seed * 104_729).0).sum::<u32>();
    assert!(felt > 0, "a line that loses a quarter stops nothing");
}
