//! The link on a clock that jumps to the next wake-up. What is exact is compared exactly; what chance decides, with the
//! bounds that its distribution gives.

use super::config::{Blackout, DropAt, Line, Loss, Reorder};
use super::trace::Trace;
use super::*;

const LEN: u32 = 1_200;

/// Sends `sizes` one every `step_us`, asking whenever the link wants to be asked; gives the whole ledger, in the order
/// in which fates became known.
fn run_sizes(config: &LinkConfig, seed: u64, step_us: u64, sizes: &[u32]) -> (Vec<Entry>, Tally) {
    let mut link: Link<u64> = Link::new(config, seed).unwrap();
    let mut entries = Vec::new();
    let fetch = |link: &mut Link<u64>, now: Micros, entries: &mut Vec<Entry>| {
        while let Some(d) = link.poll_departure(now) {
            assert_eq!(d.payload, d.entry.seq, "another packet's payload");
            assert!(matches!(d.entry.fate, Fate::Delivered { at, corrupt_bit, .. }
                if at <= now && d.corrupt_bit == corrupt_bit));
            entries.push(d.entry);
        }
        entries.extend(std::iter::from_fn(|| link.poll_drop()).map(|(entry, _)| entry));
    };
    for (i, len) in sizes.iter().enumerate() {
        let now = Micros(i as u64 * step_us);
        while let Some(at) = link.next_wakeup().filter(|at| *at < now) {
            fetch(&mut link, at, &mut entries);
        }
        link.handle_packet(now, *len, i as u64);
        fetch(&mut link, now, &mut entries);
    }
    while let Some(at) = link.next_wakeup() {
        fetch(&mut link, at, &mut entries);
    }
    let (tally, rest) = link.end();
    assert!(rest.is_empty());
    conserved(&entries, &tally, sizes.len() as u64);
    (entries, tally)
}

fn run(config: &LinkConfig, seed: u64, step_us: u64, n: usize) -> (Vec<Entry>, Tally) {
    run_sizes(config, seed, step_us, &vec![LEN; n])
}

/// Each packet has one entry, each copy has one, and the sums agree.
fn conserved(entries: &[Entry], tally: &Tally, offered: u64) {
    let mut numbers: Vec<u64> = entries.iter().filter(|e| !e.copy).map(|e| e.seq).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..offered), "a packet is missing or counted twice");
    let mut copies: Vec<u64> = entries.iter().filter(|e| e.copy).map(|e| e.seq).collect();
    copies.sort_unstable();
    assert!(copies.windows(2).all(|w| w[0] < w[1]), "a copy is counted twice");
    assert_eq!((tally.offered, tally.copies), (offered, copies.len() as u64));
    assert_eq!(tally.settled(), entries.len() as u64);
    assert_eq!(tally.unrecorded, 0);
}

fn arrivals(entries: &[Entry]) -> Vec<(u64, u64)> {
    let at = |e: &Entry| if let Fate::Delivered { at, .. } = e.fate { Some((e.seq, at.0)) } else { None };
    entries.iter().filter_map(at).collect()
}

/// A share of `n` within 4.5 standard errors of `p`, and the bound narrow enough to see a fifth more.
fn share(count: u64, n: u64, p: f64) {
    let bound = 4.5 * (p * (1.0 - p) / n as f64).sqrt();
    let is = count as f64 / n as f64;
    assert!((is - p).abs() < bound, "{is} is not {p} ± {bound}");
    assert!(bound < 0.2 * p, "the bound {bound} sees nothing");
}

/// Everything at once.
fn rough() -> LinkConfig {
    LinkConfig {
        delay: Delay::Pareto { base_ms: 5.0, scale_ms: 2.0, alpha: 1.5, max_ms: 200.0 },
        jitter_reorders: true,
        loss: Some(Loss::Bursts { percent: 2.0, burst_packets: 4.0 }),
        reorder: Some(Reorder { percent: 1.0, gap_packets: 3, hold_ms: 50.0 }),
        duplicate_percent: 1.0,
        corrupt_percent: 1.0,
        line: Some(Line { mbit_s: Some(90.0), queue_ms: Some(20.0), ..Line::default() }),
        blackout: vec![Blackout { start_ms: 300.0, length_ms: 20.0, every_ms: Some(500.0) }],
    }
}

#[test]
fn the_same_seed_gives_the_same_ledger_and_another_seed_another() {
    let (one, tally) = run(&rough(), 1, 100, 20_000);
    assert_eq!(one, run(&rough(), 1, 100, 20_000).0);
    assert_ne!(one, run(&rough(), 2, 100, 20_000).0);
    for (what, n) in [
        ("lost", tally.lost),
        ("queue", tally.queue_dropped),
        ("blackout", tally.blackout),
        ("copies", tally.copies),
        ("reordered", tally.reordered),
        ("corrupted", tally.corrupted),
    ] {
        assert!(n > 50, "{what}: {n}, so this shows little");
    }
}

#[test]
fn asking_late_changes_no_fate_and_no_time() {
    let mut late: Link<()> = Link::new(&rough(), 1).unwrap();
    let mut entries = Vec::new();
    for i in 0..20_000 {
        late.handle_packet(Micros(i * 100), LEN, ());
        entries.extend(std::iter::from_fn(|| late.poll_drop()).map(|(entry, ())| entry));
        if i % 1_000 == 999 {
            entries.extend(std::iter::from_fn(|| late.poll_departure(Micros(i * 100))).map(|d| d.entry));
        }
    }
    entries.extend(std::iter::from_fn(|| late.poll_departure(Micros(u64::MAX))).map(|d| d.entry));
    let (mut prompt, _) = run(&rough(), 1, 100, 20_000);
    for ledger in [&mut entries, &mut prompt] {
        ledger.sort_by_key(|e| (e.seq, e.copy));
    }
    assert_eq!(entries, prompt);
}

#[test]
fn what_chance_decides_does_not_depend_on_time_or_on_other_impairments() {
    let lossy = LinkConfig { loss: Some(Loss::Random { percent: 5.0 }), ..LinkConfig::default() };
    let more = LinkConfig { delay: Delay::Uniform { min_ms: 1.0, max_ms: 9.0 }, corrupt_percent: 3.0, ..lossy.clone() };
    let lost = |config, step_us| {
        let (entries, _) = run(config, 3, step_us, 5_000);
        let mut lost: Vec<u64> = entries.iter().filter(|e| e.fate == Fate::Lost).map(|e| e.seq).collect();
        lost.sort_unstable();
        lost
    };
    let want = lost(&lossy, 100);
    assert!(want.len() > 100);
    assert_eq!(want, lost(&lossy, 7));
    assert_eq!(want, lost(&more, 1_000));
}

#[test]
fn a_link_without_impairments_changes_nothing() {
    let (entries, tally) = run(&LinkConfig::default(), 9, 10, 5_000);
    for (i, e) in entries.iter().enumerate() {
        let at = Micros(i as u64 * 10);
        let fate = Fate::Delivered { at, reordered: false, corrupt_bit: None };
        assert_eq!(*e, Entry { seq: i as u64, copy: false, len: LEN, arrived: at, fate });
    }
    assert_eq!((tally.delivered, tally.delivered_bytes), (5_000, 5_000 * u64::from(LEN)));
}

#[test]
fn jitter_reorders_only_where_it_may() {
    let mut config = LinkConfig { delay: Delay::Uniform { min_ms: 1.0, max_ms: 21.0 }, ..LinkConfig::default() };
    let (entries, tally) = run(&config, 4, 100, 20_000);
    assert_eq!(tally.reordered, 0);
    assert!(arrivals(&entries).windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1));
    config.jitter_reorders = true;
    let (entries, tally) = run(&config, 4, 100, 20_000);
    assert!(tally.reordered > 10_000, "the control: {tally:?}");
    // Each delay is what was drawn: within the range, and even over it.
    let delays: Vec<u64> = arrivals(&entries).iter().map(|(seq, at)| at - seq * 100).collect();
    assert!(delays.iter().all(|us| (1_000..=21_000).contains(us)));
    share(delays.iter().filter(|us| **us < 6_000).count() as u64, 20_000, 0.25);
}

#[test]
fn duplication_and_corruption_have_their_shares_and_bits() {
    let config = LinkConfig { duplicate_percent: 5.0, corrupt_percent: 3.0, ..LinkConfig::default() };
    let (entries, tally) = run(&config, 5, 100, 60_000);
    share(tally.copies, 60_000, 0.05);
    share(tally.corrupted, 60_000 + tally.copies, 0.03);
    let bit = |e: &Entry| if let Fate::Delivered { corrupt_bit, .. } = e.fate { corrupt_bit } else { None };
    let bits: Vec<u32> = entries.iter().filter_map(bit).collect();
    assert!(bits.iter().all(|b| *b < LEN * 8));
    share(bits.iter().filter(|b| **b < LEN * 4).count() as u64, bits.len() as u64, 0.5);
    // A packet without a byte has no bit to turn.
    let all = LinkConfig { corrupt_percent: 100.0, ..LinkConfig::default() };
    assert_eq!(run_sizes(&all, 5, 10, &[0; 50]).1.corrupted, 0);
    assert_eq!(run_sizes(&all, 5, 10, &[1; 50]).1.corrupted, 50);
}

#[test]
fn a_packet_that_is_put_back_comes_after_exactly_so_many_others() {
    let reorder = Reorder { percent: 2.0, gap_packets: 3, hold_ms: 50.0 };
    let config = LinkConfig { reorder: Some(reorder), ..LinkConfig::default() };
    let (entries, tally) = run(&config, 6, 1_000, 40_000);
    share(tally.reordered, 40_000, 0.02);
    let order = arrivals(&entries);
    let mut seen = 0;
    for (place, (seq, at)) in order.iter().enumerate() {
        // Packets that were put back themselves do not count as passing: look at those that stand alone.
        let around = &order[place.saturating_sub(8)..(place + 8).min(order.len())];
        let late = around.iter().filter(|(s, t)| s * 1_000 < *t).count();
        if seq * 1_000 < *at && late == 1 {
            assert_eq!(place as u64, seq + 3, "packet {seq}");
            assert_eq!(*at, (seq + 3) * 1_000);
            seen += 1;
        }
    }
    assert!(seen > 150, "{seen}");
}

#[test]
fn a_packet_that_is_put_back_does_not_wait_for_ever() {
    let reorder = Reorder { percent: 100.0, gap_packets: 5, hold_ms: 30.0 };
    let config = LinkConfig { reorder: Some(reorder), ..LinkConfig::default() };
    let (entries, tally) = run(&config, 6, 1_000, 100);
    assert_eq!(tally.reordered, 0, "where all are put back, none passes another");
    assert!(arrivals(&entries).iter().all(|(seq, at)| *at == seq * 1_000 + 30_000));
}

fn line(line: Line) -> LinkConfig {
    LinkConfig { line: Some(line), ..LinkConfig::default() }
}

#[test]
fn the_rate_is_exact_and_no_rounding_adds_up() {
    // 7 Mbit/s: a packet of 1,200 bytes takes 1371 3/7 µs.
    let config = line(Line { mbit_s: Some(7.0), queue_bytes: Some(100_000_000), ..Line::default() });
    let (entries, _) = run(&config, 0, 0, 70_000);
    for (seq, at) in arrivals(&entries) {
        assert_eq!(at, ((seq + 1) * 9_600).div_ceil(7), "packet {seq}");
    }
    // Below the rate nothing waits; each packet takes its own time, with its overhead.
    let config = line(Line { mbit_s: Some(10.0), overhead_bytes: 50, ..Line::default() });
    let (entries, _) = run_sizes(&config, 0, 1_000, &[LEN, 0, 200, LEN]);
    assert_eq!(arrivals(&entries), [(0, 1_000), (1, 1_040), (2, 2_200), (3, 4_000)]);
}

#[test]
fn the_queue_holds_what_it_has_room_for_and_drops_at_the_right_end() {
    // Room for ten of 1,000 bytes beside the one being sent; 100 come at once.
    for (drop, kept) in [(DropAt::Tail, 1..11), (DropAt::Head, 90..100)] {
        for (queue_bytes, queue_ms) in [(Some(10_999), None), (None, Some(10.0)), (Some(10_000), Some(11.0))] {
            let config = line(Line { mbit_s: Some(8.0), queue_bytes, queue_ms, drop, ..Line::default() });
            let (entries, tally) = run_sizes(&config, 0, 0, &[1_000; 100]);
            let seqs: Vec<u64> = arrivals(&entries).iter().map(|a| a.0).collect();
            let want: Vec<u64> = std::iter::once(0).chain(kept.clone()).collect();
            assert_eq!(seqs, want, "{drop:?} {queue_bytes:?} {queue_ms:?}");
            assert_eq!(tally.queue_dropped, 89);
            let times: Vec<u64> = arrivals(&entries).iter().map(|a| a.1).collect();
            assert!(times.into_iter().eq((1..=11).map(|i| i * 1_000)), "1 ms each, without a gap");
        }
    }
    // A packet that has no room even in an empty queue pushes out what waits and is dropped itself.
    let config = line(Line { mbit_s: Some(8.0), queue_bytes: Some(500), drop: DropAt::Head, ..Line::default() });
    assert_eq!(run_sizes(&config, 0, 0, &[1_000, 400, 501]).1.queue_dropped, 2);
}

#[test]
fn an_overloaded_line_carries_its_rate() {
    // 145 of 150 Mbit/s needed: the share that is lost is the share that is missing.
    let config = line(Line { mbit_s: Some(145.0), ..Line::default() });
    let (entries, tally) = run(&config, 0, 64, 200_000);
    let seconds = 200_000.0 * 64e-6;
    let carried = arrivals(&entries).iter().filter(|a| a.1 <= 12_800_000).count() as f64 * 9_600.0 / seconds;
    assert!((carried / 145e6 - 1.0).abs() < 1e-4, "{carried}");
    let queue = 145e6 * 0.1 / 9_600.0;
    let lost = 200_000.0 * (1.0 - 145.0 / 150.0) - queue;
    assert!((tally.queue_dropped as f64 - lost).abs() <= 2.0, "{} is not {lost}", tally.queue_dropped);
}

#[test]
fn a_blackout_takes_exactly_what_comes_in_it() {
    let blackout = vec![
        Blackout { start_ms: 10.0, length_ms: 5.0, every_ms: None },
        Blackout { start_ms: 100.0, length_ms: 1.0, every_ms: Some(20.0) },
    ];
    // The delay shows that what is under way goes on.
    let config = LinkConfig { blackout, delay: Delay::Constant { ms: 7.0 }, ..LinkConfig::default() };
    let (entries, tally) = run(&config, 0, 500, 400);
    for e in &entries {
        let us = e.seq * 500;
        let dark = (10_000..15_000).contains(&us) || us >= 100_000 && (us - 100_000) % 20_000 < 1_000;
        let here = Fate::Delivered { at: Micros(us + 7_000), reordered: false, corrupt_bit: None };
        assert_eq!(e.fate, if dark { Fate::Blackout } else { here }, "{us}");
    }
    assert_eq!(tally.blackout, 10 + 5 * 2);
}

#[test]
fn a_trace_sends_1500_bytes_at_each_of_its_times() {
    let traced = |text: &str| {
        line(Line { trace: Some(Trace::parse(text).unwrap()), queue_bytes: Some(1_000_000), ..Line::default() })
    };
    // Seven packets of 1,000 bytes at 0 share opportunities: 2, 3, 3, 10 ms, and again 10 ms later.
    let (entries, _) = run_sizes(&traced("2\n3\n3\n10\n"), 0, 0, &[1_000; 7]);
    let want = [(0, 2), (1, 3), (2, 3), (3, 3), (4, 10), (5, 10), (6, 12)];
    assert_eq!(arrivals(&entries), want.map(|(seq, ms)| (seq, ms * 1_000)));
    // An opportunity at which nothing waits is gone: one packet every 4 ms, opportunities at 10, 20, 30 ms.
    let (entries, _) = run_sizes(&traced("10\n"), 0, 4_000, &[1_500; 4]);
    assert_eq!(arrivals(&entries), [(0, 10_000), (1, 20_000), (2, 30_000), (3, 40_000)]);
    let (entries, _) = run_sizes(&traced("10\n"), 0, 25_000, &[1_500; 3]);
    assert_eq!(arrivals(&entries), [(0, 10_000), (1, 30_000), (2, 50_000)]);
}

#[test]
fn a_link_bounds_what_it_holds_and_ends_with_every_packet_accounted_for() {
    let config = LinkConfig { delay: Delay::Constant { ms: 10_000.0 }, ..LinkConfig::default() };
    let mut link: Link<()> = Link::new(&config, 0).unwrap();
    let n = INSIDE_MAX as u64 + 100;
    let over = (0..n).filter(|_| matches!(link.handle_packet(Micros(0), 100, ()), Verdict::Dropped { .. })).count();
    assert_eq!((over, link.inside()), (100, INSIDE_MAX));
    let (tally, rest) = link.end();
    assert_eq!((tally.inside, tally.overload, tally.settled()), (INSIDE_MAX as u64, 100, n));
    assert_eq!(rest.len() as u64, n);
    let mut big: Link<()> = Link::new(&config, 0).unwrap();
    assert_eq!(
        (0..5_000).filter(|_| matches!(big.handle_packet(Micros(0), 65_536, ()), Verdict::Taken { .. })).count(),
        4_096
    );
}

#[test]
fn a_clock_that_goes_back_counts_as_standing_still() {
    let mut link: Link<()> = Link::new(&LinkConfig::default(), 0).unwrap();
    link.handle_packet(Micros(500), LEN, ());
    link.handle_packet(Micros(100), LEN, ());
    let times: Vec<Micros> = std::iter::from_fn(|| link.poll_departure(Micros(0))).map(|d| d.entry.arrived).collect();
    assert_eq!(times, [Micros(500), Micros(500)]);
}
