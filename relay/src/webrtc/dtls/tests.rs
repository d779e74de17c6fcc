use super::wire::Message;
use super::wire::tests::{hello, piece, record};
use super::*;
use std::time::Duration;

fn server() -> Dtls {
    let config = Arc::new(dimpl::Config::builder().use_server_cookie(false).build().unwrap());
    Dtls::new(config, super::super::transport::dtls_certificate().unwrap())
}

fn whole(number: u8, m: &Message) -> Vec<u8> {
    record(number, &piece(m, 0..m.body.len()))
}

fn outputs(dtls: &mut Dtls) -> Vec<Output> {
    std::iter::from_fn(|| dtls.poll()).collect()
}

#[test]
fn the_library_is_chosen_by_the_profiles_of_a_whole_client_hello() {
    let now = Instant::now();
    for (profiles, by_dimpl) in [(&[8, 7, 1][..], true), (&[7], true), (&[1, 2], false)] {
        let m = hello(profiles);
        let mut dtls = server();
        dtls.handle_packet(now, &record(0, &piece(&m, 30..m.body.len())));
        assert!(matches!(dtls.stage, Stage::Hello(_)));
        dtls.handle_packet(now, &record(1, &piece(&m, 0..30)));
        assert_eq!(matches!(dtls.stage, Stage::Dimpl(_)), by_dimpl, "{profiles:?}");
        assert_eq!(matches!(dtls.stage, Stage::Rtc(_)), !by_dimpl, "{profiles:?}");
    }
}

#[test]
fn a_peer_without_a_common_profile_is_told_so_after_the_time_of_a_handshake() {
    let now = Instant::now();
    let mut dtls = server();
    dtls.handle_packet(now, &whole(0, &hello(&[2])));
    dtls.handle_timeout(now + HANDSHAKE_TIMEOUT);
    assert!(outputs(&mut dtls).is_empty(), "it may have been forged");
    dtls.handle_timeout(now + HANDSHAKE_TIMEOUT + Duration::from_millis(1));
    assert!(matches!(outputs(&mut dtls)[..], [Output::Closed(CloseReason::Profile)]));
}

#[test]
fn a_handshake_that_never_ends_is_given_up_after_its_time() {
    let late = HANDSHAKE_TIMEOUT + Duration::from_millis(1);
    let now = Instant::now();
    for profiles in [&[8][..], &[1]] {
        let m = hello(profiles);
        for first in [whole(0, &m), record(0, &piece(&m, 0..30))] {
            let mut dtls = server();
            dtls.handle_packet(now, &first);
            dtls.handle_timeout(now + late);
            let out = outputs(&mut dtls);
            assert!(matches!(out.last(), Some(Output::Closed(CloseReason::Handshake))));
        }
    }
}

#[test]
fn a_flood_of_pieces_is_bounded_and_the_true_client_hello_is_taken_after_it() {
    let now = Instant::now();
    let mut dtls = server();
    let forged = hello(&[8, 7, 1, 2, 3, 4]);
    for n in 0..10_000 {
        dtls.handle_packet(now, &record(u8::try_from(n % 256).unwrap(), &piece(&forged, 0..20)));
    }
    let Stage::Hello(h) = &dtls.stage else { panic!("nothing was whole") };
    assert_eq!(h.held.len(), MAX_HELD);
    dtls.handle_packet(now, &whole(0, &hello(&[1])));
    assert!(matches!(dtls.stage, Stage::Rtc(_)));
}

#[test]
fn a_flood_of_messages_reaches_the_library_a_bounded_number_of_times() {
    let now = Instant::now();
    let mut dtls = server();
    dtls.handle_packet(now, &whole(0, &hello(&[1])));
    let mut answers = outputs(&mut dtls).len();
    for n in 0..10_000_u32 {
        let mut r = whole(0, &hello(&[1]));
        r[7..11].copy_from_slice(&n.to_be_bytes());
        dtls.handle_packet(now, &r);
        answers += outputs(&mut dtls).len();
    }
    assert!((1..=128).contains(&answers), "{answers}");
}

/// A generator of our own, so that a failure can be played again.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).unwrap()
}

#[test]
fn no_mutation_of_what_a_client_sends_stops_the_process() {
    let now = Instant::now();
    let m = hello(&[1]);
    let tail = |kind: u8, number: u16, len: usize| Message { kind, number, body: vec![65; len] };
    let messages = [m.clone(), tail(11, 2, 300), tail(16, 3, 66), tail(15, 4, 260), Message { number: 1, ..m }];
    let mut state = 20_260_101;
    for _ in 0..300 {
        let mut dtls = server();
        dtls.handle_packet(now, &whole(0, &messages[0]));
        for n in 1..60 {
            let mut datagram = whole(n, &messages[next(&mut state) % messages.len()]);
            for _ in 0..next(&mut state) % 6 {
                let at = next(&mut state) % datagram.len();
                datagram[at] = u8::try_from(next(&mut state) % 256).unwrap();
            }
            datagram.truncate(1 + next(&mut state) % (2 * datagram.len()));
            dtls.handle_packet(now + Duration::from_millis(u64::from(n)), &datagram);
        }
        assert!(!outputs(&mut dtls).iter().any(|o| matches!(o, Output::Keys(..))));
    }
}
