//! `make bench`, short: its figures make sense, it notices what goes wrong, and instructions per packet stay in their budget.

use std::time::Duration;
use trocar_media_tests::bench::cell::{Cell, Ingress, Leg, Outcome, Relay, Times, run};
use trocar_media_tests::bench::road::{Budget, Way, instructions_per_packet};
use trocar_media_tests::bench::schedule::{Pattern, Schedule};
use trocar_media_tests::bench::words::Reading;
use trocar_media_tests::process::binary;

const TIMES: Times = Times { warm_up: Duration::from_millis(500), measure: Duration::from_secs(3) };
const VIEWERS: usize = 4;
const BITS: u64 = 20_000_000;

fn measure(relay: Relay, reading: Reading) -> Outcome {
    measure_fed(Ingress::Roq, relay, reading)
}

fn measure_fed(ingress: Ingress, relay: Relay, reading: Reading) -> Outcome {
    let schedule = Schedule { bits: BITS, pattern: Pattern::Bursts };
    run(Cell { relay, viewers: VIEWERS, schedule, ingress, leg: Leg::Webrtc, reading }, TIMES).unwrap()
}

fn assert_sane(o: &Outcome) {
    // What comes out is a header without extensions and a tag: a hair less than what goes in.
    let wanted = VIEWERS as f64 * BITS as f64 / 1e9;
    assert!((0.9 * wanted..1.05 * wanted).contains(&o.gbit_out), "{o:?}");
    assert!((200.0..50_000.0).contains(&o.ns_per_packet), "{o:?}");
    let m = o.measured;
    assert!(m.samples > 100 && 0 < m.p50_us && m.p50_us <= m.p99_us && m.p99_us <= m.p999_us, "{o:?}");
    assert_eq!(o.finished.protection, "AES-256-GCM");
}

#[test]
fn a_cell_of_ours_and_one_of_the_floor_lose_nothing_and_compare() {
    let ours = measure(Relay::Trocar, Reading::Plain);
    let by_srtp = measure_fed(Ingress::Srtp, Relay::Trocar, Reading::Plain);
    let floor = measure(Relay::Sealed, Reading::Plain);
    for o in [&ours, &by_srtp, &floor] {
        assert_sane(o);
        assert_eq!((o.finished.lost, o.finished.refused, o.made.refused), (0, 0, 0), "{o:?}");
        assert!(o.finished.expected > 3 * VIEWERS as u64 * BITS / 8 / 1_100 * 9 / 10, "{o:?}");
    }
    let ratio = ours.ns_per_packet / floor.ns_per_packet;
    assert!((0.5..4.0).contains(&ratio), "{ratio}: {ours:?} {floor:?}");
}

#[test]
fn the_common_way_is_measured_with_the_same_packets() {
    let o = measure(Relay::Str0m, Reading::Gro);
    assert_sane(&o);
    assert_eq!((o.finished.lost, o.finished.refused), (0, 0), "{o:?}");
}

#[test]
fn a_relay_that_drops_packets_is_shown_with_its_losses() {
    let o = measure(Relay::Leaking(50), Reading::Plain);
    let share = o.finished.lost as f64 / o.finished.expected as f64;
    assert!((0.018..0.022).contains(&share), "{o:?}");
}

#[test]
fn instructions_per_packet_stay_within_their_budget_and_a_needless_copy_does_not() {
    let (program, budget) = (binary("trocar-bench-road").unwrap(), Budget::read().unwrap());
    let counted = |way| instructions_per_packet(&program, way).unwrap();
    let mut wrong = Vec::new();
    for (way, _) in Way::ALL.iter().filter(|(_, w)| *w != Way::WithCopy) {
        wrong.extend(budget.check(way, counted(way)).err().map(|e| e.to_string()));
    }
    assert!(
        wrong.is_empty(),
        "{wrong:#?}\nWhere it is right: trocar-bench-road count, into media-tests/bench/budget.toml"
    );
    let error = budget.check("leg", counted("with_copy")).unwrap_err();
    assert!(error.to_string().contains("off the budget"), "{error}");
}
