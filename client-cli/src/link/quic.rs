//! Whether QUIC gets through, by a real connection: the best rung of the ladder. The responder's certificate comes in its acceptance.

use super::ice::Reached;
use super::wire::{Udp, Wire as _};
use anyhow::Context as _;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trocar_link::measure::message::QuicDoor;
use trocar_link::sockets::QUIC_NAME;

/// A handshake that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Questions that make a round trip, how soon one is asked again, and how long each is.
const KNOCKS: usize = 5;
const KNOCK_EVERY: Duration = Duration::from_millis(200);
const KNOCK_FOR: Duration = Duration::from_secs(3);
const INITIAL_BYTES: usize = 1_200;

/// Connects: the round trip that QUIC measured, in microseconds.
///
/// # Errors
/// What stopped it.
pub(super) fn reach(to: SocketAddr, door: &QuicDoor) -> anyhow::Result<f64> {
    let certificate = CertificateDer::from(hex::decode(&door.certificate).context("the certificate cannot be read")?);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let config = quinn::ClientConfig::with_root_certificates(Arc::new(roots))?;
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let endpoint = quinn::Endpoint::client(any)?;
        let connecting = endpoint.connect_with(config, to, QUIC_NAME)?;
        let connection = tokio::time::timeout(TIMEOUT, connecting).await.context("no answer within 5 s")??;
        let rtt = connection.rtt().as_secs_f64() * 1e6;
        connection.close(0_u32.into(), b"that was all");
        endpoint.wait_idle().await;
        Ok(rtt)
    })
}

/// Whether something at that address speaks QUIC, without a certificate: what is asked in a version that nobody has is answered with those
/// that there are (RFC 9000 section 6.1).
///
/// # Errors
/// That nothing does.
pub(super) fn knock(to: SocketAddr) -> anyhow::Result<Reached> {
    let mut wire = Udp::connect(to)?;
    let began = Instant::now();
    let mut trips = Vec::new();
    let mut connect_us = None;
    while trips.len() < KNOCKS && began.elapsed() < KNOCK_FOR {
        let mut id = [0; 8];
        SystemRandom::new().fill(&mut id).ok().context("no random numbers")?;
        let sent = Instant::now();
        wire.send(&initial(id))?;
        while let Some(answer) = wire.receive(sent + KNOCK_EVERY)? {
            // A long header, version 0, and our id as the destination.
            let ours = answer.first().is_some_and(|b| b & 0x80 != 0) && answer.get(1..5) == Some(&[0; 4]);
            if ours && answer.get(5) == Some(&8) && answer.get(6..14) == Some(&id) {
                connect_us.get_or_insert(began.elapsed().as_secs_f64() * 1e6);
                trips.push(sent.elapsed().as_secs_f64() * 1e6);
                break;
            }
        }
    }
    trips.sort_by(f64::total_cmp);
    match (connect_us, trips.get(trips.len() / 2)) {
        (Some(connect_us), Some(rtt_us)) => Ok(Reached { connect_us, rtt_us: *rtt_us }),
        _ => anyhow::bail!("no answer within {} s", KNOCK_FOR.as_secs()),
    }
}

/// A packet of a version that is kept free for this (RFC 9000 section 15), of 1200 bytes.
fn initial(source: [u8; 8]) -> Vec<u8> {
    let mut out = vec![0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8];
    out.extend([7; 8]);
    out.push(8);
    out.extend(source);
    out.resize(INITIAL_BYTES, 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_link::sockets::{open_quic as open, serve_quic as serve};

    #[test]
    fn a_connection_tells_whether_quic_gets_through() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _inside = runtime.enter();
        let (endpoint, door) = open("127.0.0.1:0".parse().unwrap()).unwrap();
        let to = endpoint.local_addr().unwrap();
        runtime.spawn(serve(endpoint));
        let us = std::thread::spawn({
            let door = door.clone();
            move || reach(to, &door).unwrap()
        });
        assert!((1.0..1e6).contains(&us.join().unwrap()));
        let knocked = knock(to).unwrap();
        assert!(knocked.rtt_us > 1.0 && knocked.connect_us >= knocked.rtt_us, "{knocked:?}");
        // Negative control: somebody else's certificate.
        let other = open("127.0.0.1:0".parse().unwrap()).unwrap().1;
        assert!(std::thread::spawn(move || reach(to, &other).is_err()).join().unwrap());
    }
}
