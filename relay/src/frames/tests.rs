use super::*;
use crate::quic::{Identity, client_config, server_config};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::UdpSocket;
use trocar_proto::media::roq::StreamReader;
use trocar_proto::units::FlowId;
use trocar_testpki::{Authority, Leaf};

const BUDGET: Duration = Duration::from_millis(100);

fn identity() -> Identity {
    let ca = Authority::new();
    let own = ca.issue(&Leaf::host("localhost"));
    Identity { key: own.key(), chain: vec![own.der], trust: vec![ca.der()] }
}

/// A connection through a line that can be cut.
pub(crate) struct Pair {
    pub(crate) sender: Connection,
    pub(crate) receiver: Connection,
    open: Arc<AtomicBool>,
    _endpoints: [quinn::Endpoint; 2],
}

const LOOPBACK: &str = "127.0.0.1:0";

async fn forward(front: UdpSocket, to: SocketAddr, open: Arc<AtomicBool>) {
    let back = UdpSocket::bind(LOOPBACK).await.unwrap();
    let (mut client, mut a, mut b) = (None, [0; 2_048], [0; 2_048]);
    loop {
        let (out, bytes, whither) = tokio::select! {
            Ok((n, from)) = front.recv_from(&mut a) => {
                client = Some(from);
                (&back, &a[..n], to)
            }
            Ok((n, _)) = back.recv_from(&mut b) => (&front, &b[..n], client.unwrap()),
        };
        if open.load(Ordering::SeqCst) {
            out.send_to(bytes, whither).await.unwrap();
        }
    }
}

pub(crate) async fn pair() -> Pair {
    pair_taking(None).await
}

/// The same, whose receiver takes datagrams of so many bytes at most.
pub(crate) async fn pair_taking(datagram: Option<usize>) -> Pair {
    let id = identity();
    let at = LOOPBACK.parse().unwrap();
    let mut config = server_config(id.duplicate()).unwrap();
    if datagram.is_some() {
        let mut transport = crate::quic::transport_config();
        transport.datagram_receive_buffer_size(datagram);
        config.transport_config(Arc::new(transport));
    }
    let server = quinn::Endpoint::server(config, at).unwrap();
    let mut client = quinn::Endpoint::client(at).unwrap();
    client.set_default_client_config(client_config(id).unwrap());
    let (front, open) = (UdpSocket::bind(LOOPBACK).await.unwrap(), Arc::new(AtomicBool::new(true)));
    let middle = front.local_addr().unwrap();
    tokio::spawn(forward(front, server.local_addr().unwrap(), Arc::clone(&open)));
    let (sender, receiver) =
        tokio::join!(async { client.connect(middle, "localhost").unwrap().await.unwrap() }, async {
            server.accept().await.unwrap().await.unwrap()
        });
    Pair { sender, receiver, open, _endpoints: [client, server] }
}

fn prefix() -> FlowPrefix {
    FlowPrefix::new(FlowId(70)).unwrap()
}

/// The packets of the next stream; an error is the code that it was reset with.
async fn read(from: &Connection) -> Result<Vec<Vec<u8>>, u64> {
    let mut stream = from.accept_uni().await.unwrap();
    let (mut reader, mut packets) = (StreamReader::default(), Vec::new());
    loop {
        match stream.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => reader.handle_bytes(&chunk.bytes),
            Ok(None) => return Ok(packets),
            Err(quinn::ReadError::Reset(code)) => return Err(code.into_inner()),
            Err(e) => panic!("{e}"),
        }
        while let Some((flow, packet)) = reader.poll_packet().unwrap() {
            assert_eq!(flow, FlowId(70));
            packets.push(packet.to_vec());
        }
    }
}

fn send(s: &mut FrameStreams, name: u64, deadline: Instant, key: bool) -> bool {
    let packet = vec![u8::try_from(name).unwrap(); 900];
    let all = (0..5).all(|_| s.send_packet(name, &packet, deadline, key));
    s.finish();
    all
}

async fn until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(8);
    while !done() {
        assert!(Instant::now() < end, "it does not come");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn each_frame_has_a_stream_and_is_delivered_when_all_of_it_was_acknowledged() {
    let p = pair().await;
    let mut s = FrameStreams::new(p.sender.clone(), prefix());
    let deadline = Instant::now() + Duration::from_secs(60);
    for name in 0..10 {
        assert!(send(&mut s, name, deadline, name == 0));
    }
    assert!(s.send_late_packet(&[99; 40], deadline));
    let mut frames = Vec::new();
    for _ in 0..11 {
        frames.push(read(&p.receiver).await.unwrap());
    }
    frames.sort();
    for (name, packets) in frames[..10].iter().enumerate() {
        assert_eq!(*packets, vec![vec![u8::try_from(name).unwrap(); 900]; 5]);
    }
    assert_eq!(frames[10], vec![vec![99; 40]]);
    until(|| {
        assert!(!s.expire(Instant::now()));
        s.counters().delivered == 11
    })
    .await;
    assert_eq!(s.counters(), FrameCounters { begun: 10, delivered: 11, late: 0, refused: 0 });
}

#[tokio::test]
async fn a_late_frame_is_reset_with_what_needs_it_and_a_key_frame_goes_on() {
    let p = pair().await;
    let mut s = FrameStreams::new(p.sender.clone(), prefix());
    p.open.store(false, Ordering::SeqCst);
    let now = Instant::now();
    for name in 0..5 {
        assert!(send(&mut s, name, now + BUDGET + Duration::from_millis(name), name == 3));
    }
    assert!(!s.expire(now), "in time");
    let grace = p.sender.rtt() / 2;
    // The first one is late; the two after it need it; the key frame behind them does not.
    assert!(!s.expire(now + BUDGET + grace + Duration::from_micros(500)), "it goes on at the key frame under way");
    assert_eq!(s.counters().late, 3);
    p.open.store(true, Ordering::SeqCst);
    let (mut reset, mut whole) = (0, Vec::new());
    for _ in 0..5 {
        match read(&p.receiver).await {
            Ok(packets) => whole.push(packets[0][0]),
            Err(code) => {
                assert_eq!(code, u64::from(error_code::FRAME_CANCELLED));
                reset += 1;
            }
        }
    }
    whole.sort_unstable();
    assert_eq!((reset, whole), (3, vec![3, 4]));
}

#[tokio::test]
async fn without_a_key_frame_under_way_the_next_frame_must_be_one() {
    let p = pair().await;
    let mut s = FrameStreams::new(p.sender.clone(), prefix());
    p.open.store(false, Ordering::SeqCst);
    let now = Instant::now();
    assert!(send(&mut s, 0, now + BUDGET, false));
    assert!(s.send_packet(1, &[1; 900], now + 9 * BUDGET, false));
    assert!(s.expire(now + BUDGET + p.sender.rtt()));
    assert_eq!(s.counters().late, 2);
    assert!(!s.send_packet(1, &[1; 900], now + 9 * BUDGET, false), "the rest of it is left out");
    assert!(!s.expire(now + BUDGET + p.sender.rtt()), "said once");
}

#[tokio::test]
async fn a_late_packet_that_is_given_up_takes_no_frame_with_it() {
    let p = pair().await;
    let mut s = FrameStreams::new(p.sender.clone(), prefix());
    p.open.store(false, Ordering::SeqCst);
    let (now, long) = (Instant::now(), Instant::now() + Duration::from_secs(60));
    for name in 0..3 {
        assert!(send(&mut s, name, long, false));
    }
    assert!(s.send_late_packet(&[99; 40], now + BUDGET));
    assert!(s.send_packet(3, &[3; 900], long, false));
    // The other side may have done without it long since: no frame is reset, and nobody waits for a key frame.
    assert!(!s.expire(now + BUDGET + p.sender.rtt()));
    assert_eq!(s.counters().late, 1);
    assert!(s.send_packet(3, &[3; 900], long, false), "the frame under way goes on");
    s.finish();
    p.open.store(true, Ordering::SeqCst);
    let mut whole = Vec::new();
    let mut reset = 0;
    for _ in 0..5 {
        match read(&p.receiver).await {
            Ok(packets) => whole.push((packets[0][0], packets.len())),
            Err(_) => reset += 1,
        }
    }
    whole.sort_unstable();
    assert_eq!((reset, whole), (1, vec![(0, 5), (1, 5), (2, 5), (3, 2)]));
}

#[tokio::test]
async fn what_quic_does_not_take_at_once_is_given_up_and_nobody_waits() {
    let p = pair().await;
    let mut s = FrameStreams::new(p.sender.clone(), prefix());
    p.open.store(false, Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_secs(60);
    // More than the connection's window, and more frames than there may be.
    let taken = (0..90).filter(|name| send(&mut s, *name, deadline, false)).count();
    assert_eq!((taken, s.counters().refused), (MAX_FRAMES, 90 - MAX_FRAMES as u64));
    assert!(!s.has_room() && !s.send_late_packet(&[1; 40], deadline));
    let mut large = FrameStreams::new(p.sender.clone(), prefix());
    let packet = vec![7; 1_100];
    let written = (0..4_000).take_while(|_| large.send_packet(1, &packet, deadline, true)).count();
    assert!((100..4_000).contains(&written), "{written}");
    assert_eq!(large.counters().refused, 1);
    assert!(!large.send_packet(1, &packet, deadline, true), "nobody can use a torn frame");
}

#[tokio::test]
async fn datagrams_that_wait_are_taken_in_portions_and_none_is_left_out() {
    let p = pair().await;
    for n in 0..200_u8 {
        p.sender.send_datagram(Bytes::copy_from_slice(&[n; 4])).unwrap();
    }
    // What came after them is here: they wait.
    p.sender.open_uni().await.unwrap().finish().unwrap();
    p.receiver.accept_uni().await.unwrap();
    let (mut portions, mut seen) = (Vec::new(), Vec::new());
    while seen.len() < 200 {
        let mut batch = Vec::new();
        read_datagrams(&p.receiver, &mut batch, 64).await.unwrap();
        portions.push(batch.len());
        seen.extend(batch.iter().map(|d| d[0]));
    }
    assert_eq!(portions, [64, 64, 64, 8]);
    assert_eq!(seen, (0..200).collect::<Vec<u8>>());
    p.sender.close(VarInt::from_u32(0), b"");
    assert!(read_datagrams(&p.receiver, &mut Vec::new(), 64).await.is_err());
}
