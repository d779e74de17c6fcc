//! Numbers, joining, switching and shedding of a leg.

use super::*;
use crate::media::feed::tests::{CONFIG, Publisher};
use crate::media::feed::{JOIN_FROM_CACHE_US, JOIN_UNANSWERED_US};

const OWN: Numbering = Numbering::Own { ssrc: Ssrc(77), payload_type: 102, first_seq: 0x7ffe };

fn feed_with(p: &mut Publisher, at: u64, packets: u32, key: bool, f: &mut Feed, lose: &[usize]) {
    for (i, b) in p.frame(packets, key).iter().enumerate() {
        if !lose.contains(&i) {
            f.handle_packet(Micros(at), b).unwrap();
        }
    }
}

fn drain(leg: &mut Leg, feed: &Feed) -> (Vec<(u64, HeaderFields, SeqNo)>, Next) {
    let mut out = Vec::new();
    loop {
        match leg.poll(feed, true) {
            Next::Send { index, header, seq } => out.push((index, header, seq)),
            end => return (out, end),
        }
    }
}

#[test]
fn a_joiner_gets_nothing_before_a_key_frame_and_everything_after() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 10, frame: 0 };
    feed_with(&mut p, 0, 3, false, &mut f, &[]);
    let mut leg = Leg::new(OWN, &f, Micros(0));
    assert_eq!(drain(&mut leg, &f), (vec![], Next::NeedKeyFrame));
    feed_with(&mut p, 1, 2, false, &mut f, &[]);
    assert_eq!(drain(&mut leg, &f).1, Next::NeedKeyFrame);
    feed_with(&mut p, 2, 3, true, &mut f, &[]);
    let (sent, end) = drain(&mut leg, &f);
    assert_eq!((sent.len(), end), (3, Next::Idle));
    assert_eq!(sent[0].1.seq, 0x7ffe);
    assert_eq!((sent[0].1.ssrc, sent[0].1.payload_type), (Ssrc(77), 102));
    assert!(sent[2].1.marker);
}

#[test]
fn loss_on_the_way_in_stays_a_gap_and_the_late_packet_gets_its_own_number() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 65_533, frame: 0 };
    let packets = p.frame(6, true);
    for i in [0, 1, 3, 4, 5] {
        f.handle_packet(Micros(0), &packets[i]).unwrap();
    }
    let mut leg = Leg::new(OWN, &f, Micros(0));
    let (sent, _) = drain(&mut leg, &f);
    let numbers: Vec<_> = sent.iter().map(|s| s.2.0 - 0x7ffe).collect();
    assert_eq!(numbers, vec![0, 1, 3, 4, 5]);
    f.handle_packet(Micros(9), &packets[2]).unwrap();
    assert_eq!(drain(&mut leg, &f).0[0].2.0 - 0x7ffe, 2);
}

#[test]
fn what_comes_late_of_frames_before_the_join_is_not_sent() {
    for numbering in [OWN, Numbering::Verbatim] {
        let mut f = Feed::new(CONFIG);
        let mut p = Publisher { ssrc: 1, seq: 100, frame: 0 };
        // Of two paths one loses packets, and the other one brings them later.
        let [before, key] = [p.frame(4, false), p.frame(4, true)];
        for packet in before.iter().take(2).chain(key.iter().take(2)) {
            f.handle_packet(Micros(0), packet).unwrap();
        }
        let mut leg = Leg::new(numbering, &f, Micros(0));
        assert_eq!(drain(&mut leg, &f).0.len(), 2, "{numbering:?}: the key frame's");
        f.handle_packet(Micros(50_000), &before[2]).unwrap();
        assert_eq!(drain(&mut leg, &f).0, vec![], "{numbering:?}");
        // The control: the key frame's own are sent, however late.
        f.handle_packet(Micros(50_000), &key[2]).unwrap();
        f.handle_packet(Micros(50_000), &before[3]).unwrap();
        f.handle_packet(Micros(50_000), &key[3]).unwrap();
        let (late, _) = drain(&mut leg, &f);
        assert_eq!(late.iter().map(|s| f.ring().get(s.0).unwrap().0.seq.low16()).collect::<Vec<_>>(), [106, 107]);
    }
}

#[test]
fn a_nack_finds_the_packet_that_was_sent_under_that_number_and_no_other() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 100, frame: 0 };
    feed_with(&mut p, 0, 5, true, &mut f, &[]);
    let mut leg = Leg::new(OWN, &f, Micros(0));
    let (sent, _) = drain(&mut leg, &f);
    for s in &sent {
        assert_eq!(leg.handle_nack(&f, s.1.seq), Some(*s));
    }
    assert_eq!(leg.handle_nack(&f, 0x7ffe_u16.wrapping_sub(1)), None);
    assert_eq!(leg.handle_nack(&f, 0x7ffe + 5), None, "not sent yet");
    assert_eq!((leg.counters().repeated, leg.counters().gone), (5, 2));
}

#[test]
fn a_full_leg_loses_whole_frames_to_the_next_key_frame_and_its_numbers_close_up() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 100, frame: 0 };
    feed_with(&mut p, 0, 2, true, &mut f, &[]);
    let mut leg = Leg::new(OWN, &f, Micros(0));
    let (first, _) = drain(&mut leg, &f);
    feed_with(&mut p, 1, 4, false, &mut f, &[]);
    assert_eq!(leg.poll(&f, false), Next::NeedKeyFrame);
    feed_with(&mut p, 2, 4, false, &mut f, &[]);
    assert_eq!(drain(&mut leg, &f).0, vec![]);
    feed_with(&mut p, 3, 2, true, &mut f, &[]);
    let (again, _) = drain(&mut leg, &f);
    assert_eq!(again[0].2.0, first[1].2.0 + 1, "the viewer sees no gap");
    assert!(leg.counters().shed > 0);
    assert_eq!(leg.handle_nack(&f, again[0].1.seq), Some(again[0]));
    assert_eq!(leg.handle_nack(&f, first[0].1.seq), Some(first[0]), "numbers of the older piece still lead back");
}

#[test]
fn a_publisher_that_starts_anew_goes_on_in_sequence_and_time() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 100, frame: 5 };
    feed_with(&mut p, 0, 2, true, &mut f, &[]);
    let mut leg = Leg::new(OWN, &f, Micros(0));
    let (first, _) = drain(&mut leg, &f);
    let mut q = Publisher { ssrc: 2, seq: 9_000, frame: 1_000_000 };
    // The first packet of a new source is taken with its second.
    let taken: Vec<_> = q.frame(2, true).iter().map(|b| f.handle_packet(Micros(1_000_000), b).is_ok()).collect();
    assert_eq!(taken, vec![false, true]);
    let (second, _) = drain(&mut leg, &f);
    assert_eq!(second[0].2.0, first[1].2.0 + 1);
    assert_eq!(second[0].1.timestamp.wrapping_sub(first[1].1.timestamp), 90_000, "one second at 90 kHz");
}

#[test]
fn another_feed_goes_on_in_sequence_and_time_and_the_first_one_is_gone_for_repair() {
    let (mut f, mut g) = (Feed::new(CONFIG), Feed::new(CONFIG));
    let (mut p, mut q) =
        (Publisher { ssrc: 1, seq: 100, frame: 5 }, Publisher { ssrc: 2, seq: 40_000, frame: 1_000_000 });
    feed_with(&mut p, 0, 2, true, &mut f, &[]);
    feed_with(&mut q, 0, 2, true, &mut g, &[]);
    let mut leg = Leg::new(OWN, &f, Micros(0));
    let (first, _) = drain(&mut leg, &f);
    leg.switch(&g, Micros(1_000_000));
    assert_eq!(drain(&mut leg, &g).1, Next::NeedKeyFrame, "what came long before is not sent late");
    feed_with(&mut q, 1_000_000, 2, true, &mut g, &[]);
    let (second, _) = drain(&mut leg, &g);
    assert_eq!(second[0].2.0, first[1].2.0 + 1);
    assert_eq!(second[0].1.timestamp.wrapping_sub(first[1].1.timestamp), 90_000, "one second at 90 kHz");
    assert_eq!(leg.handle_nack(&g, second[0].1.seq), Some(second[0]));
    assert_eq!(leg.handle_nack(&g, first[0].1.seq), None);
    leg.switch(&f, Micros(2_000_000));
    feed_with(&mut p, 2_000_000, 2, true, &mut f, &[]);
    let (third, _) = drain(&mut leg, &f);
    assert_eq!(third[0].2.0, second[1].2.0 + 1);
    assert_eq!(leg.handle_nack(&f, first[0].1.seq), None, "its number is of an older time of that feed");
}

#[test]
fn a_number_is_never_given_twice_even_when_a_late_packet_crosses_a_resume() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 100, frame: 0 };
    feed_with(&mut p, 0, 4, true, &mut f, &[]);
    let mut leg = Leg::new(OWN, &f, Micros(0));
    let (first, _) = drain(&mut leg, &f);
    let lost = p.frame(3, false);
    f.handle_packet(Micros(1), &lost[0]).unwrap();
    assert_eq!(leg.poll(&f, false), Next::NeedKeyFrame);
    feed_with(&mut p, 2, 2, true, &mut f, &[]);
    let (second, _) = drain(&mut leg, &f);
    f.handle_packet(Micros(3), &lost[2]).unwrap();
    let (late, _) = drain(&mut leg, &f);
    assert_eq!(late, vec![]);
    let mut numbers: Vec<_> = first.iter().chain(&second).map(|s| s.2).collect();
    let n = numbers.len();
    numbers.dedup();
    assert_eq!(numbers.len(), n);
}

#[test]
fn a_leg_that_is_started_again_goes_on_in_its_numbers_and_a_verbatim_one_repeats_them() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 100, frame: 0 };
    feed_with(&mut p, 0, 3, true, &mut f, &[]);
    let (mut own, mut verbatim) = (Leg::new(OWN, &f, Micros(0)), Leg::new(Numbering::Verbatim, &f, Micros(0)));
    let before = drain(&mut own, &f).0;
    let as_it_came = drain(&mut verbatim, &f).0;
    own.start(&f, Micros(10_000));
    verbatim.start(&f, Micros(10_000));
    let again = drain(&mut own, &f).0;
    let index = |sent: &[(u64, HeaderFields, SeqNo)]| sent.iter().map(|s| s.0).collect::<Vec<_>>();
    assert_eq!(index(&again), index(&before), "from the join point");
    assert_eq!(again[0].2.0, before[2].2.0 + 1, "no number twice");
    assert_eq!(own.handle_nack(&f, before[0].1.seq), None);
    assert_eq!(own.handle_nack(&f, again[0].1.seq), Some(again[0]));
    assert_eq!(drain(&mut verbatim, &f).0, as_it_came, "the control: another connection gets the same numbers");
}

#[test]
fn a_number_that_was_not_sent_yet_leads_to_no_packet_that_was_left_out() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 100, frame: 0 };
    feed_with(&mut p, 0, 2, true, &mut f, &[]);
    let mut leg = Leg::new(OWN, &f, Micros(0));
    let sent = drain(&mut leg, &f).0;
    feed_with(&mut p, 1, 1, false, &mut f, &[]);
    assert_eq!(leg.poll(&f, false), Next::NeedKeyFrame, "left out for want of room");
    let next = sent[1].1.seq.wrapping_add(1);
    assert_eq!(leg.handle_nack(&f, next), None, "the number is for what comes next");
    feed_with(&mut p, 2, 2, true, &mut f, &[]);
    let later = drain(&mut leg, &f).0;
    assert_eq!(later[0].1.seq, next);
    assert_eq!(leg.handle_nack(&f, next), Some(later[0]), "the control: now it was sent");
}

#[test]
fn a_key_frame_whose_packets_were_reordered_is_sent_whole() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 100, frame: 0 };
    feed_with(&mut p, 0, 2, false, &mut f, &[]);
    let mut leg = Leg::new(OWN, &f, Micros(0));
    drain(&mut leg, &f);
    let key = p.frame(4, true);
    for i in [2, 1, 0, 3] {
        f.handle_packet(Micros(1), &key[i]).unwrap();
    }
    let (sent, _) = drain(&mut leg, &f);
    let numbers: Vec<_> = sent.iter().map(|s| s.2.0 - 0x7ffe).collect();
    assert_eq!(numbers, vec![2, 1, 0, 3]);
}

#[test]
fn after_a_pause_nothing_old_is_sent() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 100, frame: 0 };
    feed_with(&mut p, 0, 2, true, &mut f, &[]);
    let mut leg = Leg::new(OWN, &f, Micros(0));
    let (first, _) = drain(&mut leg, &f);
    feed_with(&mut p, 1, 5, true, &mut f, &[]);
    assert_eq!(leg.oldest_waiting(&f), Some(Micros(1)));
    leg.skip_to_now(&f);
    assert_eq!(leg.counters().shed, 5);
    feed_with(&mut p, 2, 3, false, &mut f, &[]);
    assert_eq!(drain(&mut leg, &f), (vec![], Next::NeedKeyFrame));
    feed_with(&mut p, 3, 2, true, &mut f, &[]);
    let (again, _) = drain(&mut leg, &f);
    assert_eq!(again[0].2.0, first[1].2.0 + 1);
}

#[test]
fn a_leg_that_was_overrun_starts_again_at_a_key_frame() {
    let mut f = Feed::new(super::super::feed::FeedConfig { slots: 256, ..CONFIG });
    let mut p = Publisher { ssrc: 1, seq: 0, frame: 0 };
    feed_with(&mut p, 0, 2, true, &mut f, &[]);
    let mut leg = Leg::new(OWN, &f, Micros(0));
    drain(&mut leg, &f);
    for _ in 0..300 {
        feed_with(&mut p, 1, 1, false, &mut f, &[]);
    }
    let (sent, end) = drain(&mut leg, &f);
    assert_eq!((sent.len(), end), (0, Next::NeedKeyFrame));
}

#[test]
fn a_joiner_from_the_past_is_catching_up_until_it_is_in_the_present() {
    let (mut f, mut p) = (Feed::new(CONFIG), Publisher { ssrc: 1, seq: 10, frame: 0 });
    feed_with(&mut p, 0, 4, true, &mut f, &[]);
    feed_with(&mut p, 300_000, 4, false, &mut f, &[]);
    let mut leg = Leg::new(OWN, &f, Micros(600_000));
    assert!(leg.is_catching_up());
    for n in 0..8 {
        assert_eq!(leg.next_len(&f).is_some(), n > 0, "before the first one it is not known to have a key frame");
        assert!(leg.is_catching_up());
        assert!(matches!(leg.poll(&f, true), Next::Send { .. }));
    }
    assert_eq!((leg.next_len(&f), leg.poll(&f, true)), (None, Next::Idle));
    assert!(!leg.is_catching_up());
    let late = Leg::new(OWN, &f, Micros(JOIN_FROM_CACHE_US + 1));
    assert!(!late.is_catching_up(), "too old: it waits for the next one");
}

#[test]
fn a_publisher_that_does_not_answer_is_joined_at_an_older_key_frame_and_what_came_is_paced() {
    let (mut f, mut p) = (Feed::new(CONFIG), Publisher { ssrc: 1, seq: 10, frame: 0 });
    feed_with(&mut p, 0, 900, true, &mut f, &[]);
    f.handle_key_frame_request();
    assert!(f.poll_key_frame_request(Micros(1)).is_some());
    assert_eq!(f.join_age_us(Micros(400_000)), JOIN_FROM_CACHE_US, "it may still answer");
    assert_eq!(f.catch_up_rate(Micros(50_000)).0, u64::MAX, "its pace is not known");
    let now = Micros(1_500_000);
    assert!(!Leg::new(OWN, &f, now).is_catching_up(), "900 of 1,024 packets: the ring would not hold it");
    feed_with(&mut p, 1_000_000, 4, true, &mut f, &[]);
    assert_eq!(f.join_age_us(now), JOIN_UNANSWERED_US, "the answer took a second");
    assert!(Leg::new(OWN, &f, now).is_catching_up());
    assert_eq!(f.catch_up_rate(now).0, u64::MAX, "so little goes at once");
    feed_with(&mut p, 1_500_000, 2_400, false, &mut f, &[]);
    let bytes = 2_404 * f.ring().get(f.ring().head() - 1).unwrap().1.len() as u64;
    assert_eq!(f.catch_up_rate(Micros(2_000_000)).0, 2 * bytes * 8, "twice what came in the second since");
    f.handle_key_frame_request();
    assert!(f.poll_key_frame_request(Micros(2_000_000)).is_some());
    feed_with(&mut p, 2_100_000, 4, true, &mut f, &[]);
    assert_eq!(f.join_age_us(Micros(3_000_000)), JOIN_FROM_CACHE_US, "this one was answered");
}

#[test]
fn frames_that_no_other_needs_are_left_out_whole_and_the_others_go_on() {
    let (mut f, mut p) = (Feed::new(CONFIG), Publisher { ssrc: 1, seq: 10, frame: 0 });
    feed_with(&mut p, 0, 3, true, &mut f, &[]);
    let mut leg = Leg::new(OWN, &f, Micros(0));
    assert_eq!(drain(&mut leg, &f).0.len(), 3);
    let discardable = |p: &mut Publisher, f: &mut Feed| {
        let mut packets = p.frame(3, false);
        // The marks are the last byte of the first element: header, extension header, id, frame id.
        packets.iter_mut().for_each(|b| b[12 + 4 + 1 + 4] |= 0x10);
        for b in &packets {
            f.handle_packet(Micros(1), b).unwrap();
        }
    };
    // In the middle of such a frame it is sent to its end.
    discardable(&mut p, &mut f);
    assert!(matches!(leg.poll(&f, true), Next::Send { .. }));
    leg.leave_out_discardable(true);
    assert_eq!(drain(&mut leg, &f).0.len(), 2);
    discardable(&mut p, &mut f);
    feed_with(&mut p, 2, 2, false, &mut f, &[]);
    let (sent, end) = drain(&mut leg, &f);
    assert_eq!((sent.len(), end, leg.counters().shed), (2, Next::Idle, 3));
    assert_eq!(sent[0].1.seq, 0x7ffe_u16.wrapping_add(6), "its numbers close up");
    leg.leave_out_discardable(false);
    discardable(&mut p, &mut f);
    assert_eq!(drain(&mut leg, &f).0.len(), 3);
}

#[test]
fn a_verbatim_leg_answers_for_what_it_sent_and_not_for_what_it_left_out() {
    let (mut f, mut p) = (Feed::new(CONFIG), Publisher { ssrc: 1, seq: 98, frame: 0 });
    feed_with(&mut p, 0, 2, false, &mut f, &[]);
    feed_with(&mut p, 0, 2, true, &mut f, &[]);
    let mut leg = Leg::new(Numbering::Verbatim, &f, Micros(0));
    assert_eq!(leg.handle_verbatim_nack(&f, 100), None, "not sent yet");
    assert_eq!(drain(&mut leg, &f).0.len(), 2);
    let answered =
        |leg: &Leg, f: &Feed| (90..120).filter(|s| leg.handle_verbatim_nack(f, *s).is_some()).collect::<Vec<u16>>();
    assert_eq!(answered(&leg, &f), vec![100, 101]);
    feed_with(&mut p, 1, 4, false, &mut f, &[]);
    assert!(matches!(leg.poll(&f, true), Next::Send { .. }));
    assert_eq!(leg.poll(&f, false), Next::NeedKeyFrame, "the frame's other three do not fit");
    assert_eq!(answered(&leg, &f), vec![100, 101, 102]);
    feed_with(&mut p, 2, 2, true, &mut f, &[]);
    assert_eq!(answered(&leg, &f), vec![100, 101, 102]);
    assert_eq!(drain(&mut leg, &f).0.len(), 2);
    assert_eq!(answered(&leg, &f), vec![100, 101, 102, 106, 107]);
    leg.skip_to_now(&f);
    feed_with(&mut p, 3, 2, false, &mut f, &[]);
    assert_eq!(drain(&mut leg, &f).0, vec![]);
    assert_eq!(answered(&leg, &f), vec![100, 101, 102, 106, 107]);
}

#[test]
fn a_frame_that_waited_too_long_is_left_out_whole_and_one_that_is_under_way_goes_on() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 100, frame: 0 };
    feed_with(&mut p, 0, 2, true, &mut f, &[]);
    let mut leg = Leg::new(OWN, &f, Micros(0));
    let (first, _) = drain(&mut leg, &f);
    feed_with(&mut p, 10, 4, false, &mut f, &[]);
    feed_with(&mut p, 20, 4, false, &mut f, &[]);
    leg.leave_out_older(Micros(5));
    assert!(matches!(leg.poll(&f, true), Next::Send { .. }), "it is young enough");
    // Both are too old now; of the first one a packet has gone.
    leg.leave_out_older(Micros(21));
    let (rest, end) = drain(&mut leg, &f);
    assert_eq!((rest.len(), end, leg.counters().shed), (3, Next::NeedKeyFrame, 4));
    assert!(rest[2].1.marker);
    // A key frame that is too old itself is not taken, the next one is, and nothing looks lost.
    feed_with(&mut p, 20, 2, true, &mut f, &[]);
    feed_with(&mut p, 30, 2, true, &mut f, &[]);
    let (again, end) = drain(&mut leg, &f);
    assert_eq!((again.len(), end), (2, Next::Idle));
    assert_eq!(again[0].2.0, first[0].2.0 + 2 + 4);
    // The control: without a limit nothing is left out.
    leg.leave_out_older(Micros(0));
    feed_with(&mut p, 31, 4, false, &mut f, &[]);
    assert_eq!(drain(&mut leg, &f).0.len(), 4);
}

#[test]
fn a_frame_under_way_that_is_given_up_leaves_no_gap() {
    let mut f = Feed::new(CONFIG);
    let mut p = Publisher { ssrc: 1, seq: 100, frame: 0 };
    feed_with(&mut p, 0, 2, true, &mut f, &[]);
    let mut leg = Leg::new(OWN, &f, Micros(0));
    drain(&mut leg, &f);
    leg.give_up_frame();
    feed_with(&mut p, 1, 4, false, &mut f, &[]);
    let Next::Send { seq, .. } = leg.poll(&f, true) else { panic!("between frames there is nothing to give up") };
    leg.give_up_frame();
    feed_with(&mut p, 2, 2, true, &mut f, &[]);
    let (again, _) = drain(&mut leg, &f);
    assert_eq!((again.len(), again[0].2.0), (2, seq.0 + 1));
}
