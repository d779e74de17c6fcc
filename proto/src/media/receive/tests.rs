use super::*;
use crate::media::feed::tests::Publisher;

fn complete(r: &mut FrameReceiver) -> Vec<u32> {
    std::iter::from_fn(|| r.poll_event())
        .filter_map(|e| match e {
            FrameEvent::Complete(f) => Some(f.frame_id),
            FrameEvent::Lost { .. } | FrameEvent::Skipped { .. } => None,
        })
        .collect()
}

/// Packets come faster here than their capture times say.
const WITHOUT_TIMES: ExtensionIds = ExtensionIds { abs_capture_time: 0, ..ExtensionIds::OURS };

#[test]
fn with_a_budget_a_torn_frame_is_waited_for_so_long_and_no_longer_whatever_comes_meanwhile() {
    let (mut r, mut p) = (FrameReceiver::new(WITHOUT_TIMES, 90_000), Publisher { ssrc: 1, seq: 65_530, frame: 0 });
    r.set_budget(80_000);
    let frames: Vec<_> = (0..12).map(|i| p.frame(3, i == 0)).collect();
    let mut came = Vec::new();
    for (i, frame) in frames.iter().enumerate() {
        let at = Micros(i as u64 * 5_000);
        for (n, b) in frame.iter().enumerate() {
            // Of the second frame one packet is missing, of the fourth everything.
            if !((i == 1 && n == 1) || i == 3) {
                r.handle_packet(at, b);
            }
        }
        came.extend(std::iter::from_fn(|| r.poll_event()));
    }
    assert_eq!(came.len(), 1, "the first one");
    assert_eq!(r.next_wakeup(), Some(Micros(85_000)));
    // The fourth frame is repaired, the second one is not.
    frames[3].iter().for_each(|b| r.handle_packet(Micros(70_000), b));
    r.handle_timeout(Micros(84_999));
    assert_eq!(r.poll_event(), None);
    r.handle_timeout(Micros(85_000));
    let after: Vec<_> = std::iter::from_fn(|| r.poll_event()).collect();
    assert_eq!(after[0], FrameEvent::Lost { frame_id: 1, packets: 2 });
    assert_eq!(after.iter().filter(|e| matches!(e, FrameEvent::Complete(_))).count(), 10);
    assert_eq!((r.counters().frames_lost, r.counters().frames_skipped), (1, 0));
    // What comes now is too late.
    r.handle_packet(Micros(90_000), &frames[1][1]);
    assert_eq!(r.poll_event(), None);
}

#[test]
fn with_a_budget_leaving_says_nothing_of_what_may_still_be_repaired() {
    let (mut r, mut p) = (FrameReceiver::new(WITHOUT_TIMES, 90_000), Publisher { ssrc: 1, seq: 5, frame: 0 });
    r.set_budget(80_000);
    for i in 0..5_u64 {
        for (n, b) in p.frame(3, i == 0).iter().enumerate() {
            if !((i == 1 || i == 3) && n == 1) {
                r.handle_packet(Micros(i * 50_000), b);
            }
        }
    }
    r.leave();
    let lost = std::iter::from_fn(|| r.poll_event()).filter(|e| matches!(e, FrameEvent::Lost { .. })).count();
    assert_eq!(
        (lost, r.counters().frames, r.counters().frames_skipped),
        (1, 2, 0),
        "the second one; the fourth may come"
    );
}

#[test]
fn with_a_budget_a_frame_that_begins_to_come_late_holds_others_up_no_longer_than_one_that_began_in_time() {
    let (mut r, mut p) = (FrameReceiver::new(ExtensionIds::OURS, 90_000), Publisher { ssrc: 1, seq: 5, frame: 0 });
    r.set_budget(80_000);
    // This publisher captures one frame a second.
    let frames: Vec<_> = (0..4).map(|i| p.frame(3, i == 0)).collect();
    for b in frames[0].iter().chain(&frames[1]) {
        let id = read_marks(&Header::parse(b).unwrap(), b, ExtensionIds::OURS).frame.unwrap().frame_id;
        r.handle_packet(Micros(10_000 + 1_000_000 * u64::from(id)), b);
    }
    assert_eq!(complete(&mut r), vec![0, 1]);
    // Of the third one packet comes, 60 ms after its time.
    r.handle_packet(Micros(2_070_000), &frames[2][2]);
    assert_eq!(r.next_wakeup(), Some(Micros(2_090_000 + 60_000 / 64)), "the way may have become longer");
    // A clock that was set back is learnt at once: nothing is given up for that.
    r.handle_timeout(Micros(2_091_000));
    assert_eq!(r.counters().frames_lost, 1);
    r.handle_packet(Micros(7_000_000), &frames[3][0]);
    assert_eq!(r.next_wakeup(), Some(Micros(7_080_000)));
}

#[test]
fn with_a_budget_frames_that_the_publisher_left_out_are_passed_over_at_once_and_lost_ones_are_waited_for() {
    let (mut r, mut p) = (FrameReceiver::new(WITHOUT_TIMES, 90_000), Publisher { ssrc: 1, seq: 5, frame: 0 });
    r.set_budget(80_000);
    p.frame(2, true).iter().for_each(|b| r.handle_packet(Micros(0), b));
    p.frame += 3;
    p.frame(2, false).iter().for_each(|b| r.handle_packet(Micros(1_000), b));
    assert_eq!(std::iter::from_fn(|| r.poll_event()).count(), 2, "no number is missing");
    p.frame(2, false);
    p.frame(20, false).iter().for_each(|b| r.handle_packet(Micros(2_000), b));
    assert_eq!(r.poll_event(), None);
    r.handle_timeout(Micros(82_000));
    assert_eq!(r.poll_event(), Some(FrameEvent::Skipped { frames: 1 }), "what needs it cannot be decoded");
    assert!(matches!(r.poll_event(), Some(FrameEvent::Complete(f)) if f.frame_id == 6));
}

#[test]
fn frames_come_out_whole_and_in_order_from_shuffled_packets() {
    let mut r = FrameReceiver::new(ExtensionIds::OURS, 90_000);
    let mut p = Publisher { ssrc: 1, seq: 65_534, frame: 0 };
    let first = p.frame(1, true);
    let mut packets: Vec<_> = (0..4).flat_map(|_| p.frame(3, false)).collect();
    packets.swap(0, 2);
    packets.swap(3, 7);
    for b in first.iter().chain(&packets) {
        r.handle_packet(Micros(0), b);
    }
    assert_eq!(complete(&mut r), vec![0, 1, 2, 3, 4]);
    let c = r.counters();
    assert_eq!((c.frames, c.frames_lost, c.packets_missing, c.frames_skipped), (5, 0, 0, 0));
}

#[test]
fn a_frame_with_a_hole_is_lost_and_later_ones_go_on() {
    let mut r = FrameReceiver::new(ExtensionIds::OURS, 90_000);
    let mut p = Publisher { ssrc: 1, seq: 0, frame: 0 };
    for n in 0..20 {
        for (i, b) in p.frame(3, n == 0).iter().enumerate() {
            if n != 5 || i != 1 {
                r.handle_packet(Micros(n), b);
            }
        }
    }
    let got = complete(&mut r);
    assert_eq!(got.len(), 19);
    assert!(!got.contains(&5));
    assert_eq!((r.counters().frames_lost, r.counters().packets_missing), (1, 1));
    let report = r.poll_report(0, 0).unwrap();
    assert_eq!((report.cumulative_lost, report.fraction_lost), (1, (256 / 60) as u8));
    assert_eq!(r.poll_report(0, 0).unwrap().fraction_lost, 0, "nothing since");
}

#[test]
fn a_key_frame_whose_parameter_sets_are_not_its_first_packet_is_whole_from_its_first_packet() {
    use super::super::ext::{FrameMark, FrameMarks};
    use super::super::rtp::{HeaderFields, write_header};
    let packet = |seq: u16, marks: FrameMarks| {
        let fields = HeaderFields { marker: marks.end, payload_type: 96, seq, timestamp: 9, ssrc: Ssrc(1) };
        let mark = FrameMark { frame_id: 7, marks }.to_bytes();
        let mut b = vec![0; 64];
        let at = write_header(&mut b, fields, &[(ExtensionIds::OURS.frame, &mark)]).unwrap();
        b.truncate(at + 4);
        b
    };
    let delimiter = FrameMarks { start: true, ..FrameMarks::default() };
    let parameters = FrameMarks { start: true, independent: true, ..FrameMarks::default() };
    let last = FrameMarks { end: true, independent: true, ..FrameMarks::default() };
    for order in [[0, 1, 2], [1, 0, 2], [0, 2, 1]] {
        let mut r = FrameReceiver::new(ExtensionIds::OURS, 90_000);
        let packets = [packet(10, delimiter), packet(11, parameters), packet(12, last)];
        order.iter().for_each(|i| r.handle_packet(Micros(0), &packets[*i]));
        let Some(FrameEvent::Complete(f)) = r.poll_event() else { panic!("{order:?}") };
        assert_eq!((f.frame_id, f.payloads.len(), f.independent), (7, 3, true), "{order:?}");
    }
}

#[test]
fn a_duplicate_does_not_make_up_for_a_loss() {
    let mut r = FrameReceiver::new(ExtensionIds::OURS, 90_000);
    let mut p = Publisher { ssrc: 1, seq: 0, frame: 0 };
    let f = p.frame(4, true);
    for i in [0, 1, 1, 3] {
        r.handle_packet(Micros(0), &f[i]);
    }
    assert_eq!((r.counters().packets_missing, r.counters().duplicates), (1, 1));
}

#[test]
fn another_source_begins_anew_and_what_the_last_one_lost_stays_counted() {
    let mut r = FrameReceiver::new(ExtensionIds::OURS, 90_000);
    let mut p = Publisher { ssrc: 1, seq: 0, frame: 7 };
    let f = p.frame(4, true);
    [0, 3].iter().for_each(|i: &usize| r.handle_packet(Micros(0), &f[*i]));
    let mut q = Publisher { ssrc: 2, seq: 900, frame: 0 };
    q.frame(2, true).iter().for_each(|b| r.handle_packet(Micros(1), b));
    assert_eq!(r.poll_event(), Some(FrameEvent::Lost { frame_id: 7, packets: 2 }));
    assert_eq!(complete(&mut r), vec![0]);
    assert_eq!((r.counters().packets_missing, r.counters().frames_lost), (2, 1));
}

#[test]
fn a_frame_under_way_when_the_viewer_stops_is_not_lost_and_one_with_a_hole_is() {
    for (came, lost) in [(&[0, 1, 2][..], 0), (&[0, 2], 1), (&[1, 2], 1)] {
        let mut r = FrameReceiver::new(ExtensionIds::OURS, 90_000);
        let mut p = Publisher { ssrc: 1, seq: 0, frame: 0 };
        p.frame(2, true).iter().for_each(|b| r.handle_packet(Micros(0), b));
        let f = p.frame(4, true);
        came.iter().for_each(|i: &usize| r.handle_packet(Micros(1), &f[*i]));
        r.leave();
        assert_eq!(complete(&mut r), vec![0]);
        assert_eq!(r.counters().frames_lost, lost, "{came:?}");
    }
}

#[test]
fn a_frame_that_vanished_whole_is_counted_as_skipped() {
    let mut r = FrameReceiver::new(ExtensionIds::OURS, 90_000);
    let mut p = Publisher { ssrc: 1, seq: 0, frame: 0 };
    for n in 0..5 {
        let f = p.frame(2, true);
        if n != 2 {
            f.iter().for_each(|b| r.handle_packet(Micros(n), b));
        }
    }
    assert_eq!(complete(&mut r), vec![0, 1], "it may still come");
    r.give_up_pending();
    assert_eq!(complete(&mut r), vec![3, 4]);
    assert_eq!((r.counters().frames_skipped, r.counters().packets_missing), (1, 2));
}

#[test]
fn frames_of_one_packet_that_change_places_are_all_handed_out_in_order() {
    let mut r = FrameReceiver::new(ExtensionIds::OURS, 48_000);
    let mut p = Publisher { ssrc: 1, seq: 0, frame: 0 };
    let mut packets: Vec<_> = (0..40).flat_map(|_| p.frame(1, true)).collect();
    packets.swap(3, 4);
    packets.swap(10, 14);
    packets.iter().for_each(|b| r.handle_packet(Micros(0), b));
    assert_eq!(complete(&mut r), (0..40).collect::<Vec<_>>());
    let c = r.counters();
    assert_eq!((c.frames_skipped, c.duplicates, c.packets_missing), (0, 0, 0));
}

#[test]
fn frame_ids_go_on_over_their_wrap() {
    use crate::media::ext::{FrameMark, FrameMarks};
    use crate::media::rtp::{HeaderFields, write_header};
    let mut r = FrameReceiver::new(ExtensionIds::OURS, 90_000);
    // Frames of one packet: the two around the wrap change places.
    for (seq, id) in [(0, u32::MAX - 1), (2, 0), (1, u32::MAX), (3, 1)] {
        let marks = FrameMarks { start: true, end: true, independent: true, discardable: false };
        let fields = HeaderFields { marker: true, payload_type: 96, seq, timestamp: 0, ssrc: Ssrc(1) };
        let mut b = vec![0; 64];
        let n = write_header(&mut b, fields, &[(1, &FrameMark { frame_id: id, marks }.to_bytes())]).unwrap();
        b.truncate(n);
        r.handle_packet(Micros(0), &b);
    }
    assert_eq!(complete(&mut r), vec![u32::MAX - 1, u32::MAX, 0, 1]);
    assert_eq!((r.counters().frames_skipped, r.counters().duplicates), (0, 0));
}

#[test]
fn a_publisher_that_counts_anew_under_its_old_ssrc_is_followed() {
    let mut r = FrameReceiver::new(ExtensionIds::OURS, 90_000);
    let mut p = Publisher { ssrc: 1, seq: 0, frame: 20_000 };
    p.frame(2, true).iter().for_each(|b| r.handle_packet(Micros(0), b));
    let mut p = Publisher { ssrc: 1, seq: 40_000, frame: 0 };
    p.frame(2, true).iter().for_each(|b| r.handle_packet(Micros(1), b));
    assert_eq!(complete(&mut r), vec![20_000, 0]);
    assert_eq!((r.counters().frames_skipped, r.counters().packets_missing), (0, 0));
}
