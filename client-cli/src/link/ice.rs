//! Connectivity checks of ICE (RFC 8445 section 7.2) towards a relay: whether a way carries them, how soon, and their round trip. The
//! answer carries the relay's proof (MESSAGE-INTEGRITY), so what answers is the relay itself.

use super::wire::Wire;
use anyhow::{Context as _, bail};
use rtc_stun::attributes::{ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USERNAME, AttrType};
use rtc_stun::crypto::providers::AwsLcRsCrypto;
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter as _, TransactionId};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A check that is not answered for so long is sent again.
const TRY_EVERY: Duration = Duration::from_millis(200);
/// A way on which no check was answered for so long is blocked.
const GIVE_UP: Duration = Duration::from_secs(3);
/// Checks that make the round trip; the middle one counts.
const ROUNDS: usize = 9;

/// Where a relay can be reached by ICE, as its answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    user_fragment: String,
    password: String,
    /// By UDP.
    pub(super) udp: Vec<SocketAddr>,
    /// By TCP.
    pub(super) tcp: Vec<SocketAddr>,
}

/// What a way is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reached {
    /// From the first packet to the first answer, in microseconds.
    pub(super) connect_us: f64,
    /// Round trip, in microseconds.
    pub(super) rtt_us: f64,
}

impl Remote {
    /// From an SDP answer: the first section's credentials and the candidates of component 1.
    pub(super) fn read(sdp: &str) -> anyhow::Result<Self> {
        let value = |name: &str| sdp.lines().find_map(|l| l.trim_end().strip_prefix(name)).map(ToOwned::to_owned);
        let mut remote = Self {
            user_fragment: value("a=ice-ufrag:").context("the relay's answer has no ice-ufrag")?,
            password: value("a=ice-pwd:").context("the relay's answer has no ice-pwd")?,
            udp: Vec::new(),
            tcp: Vec::new(),
        };
        for line in sdp.lines().filter_map(|l| l.trim_end().strip_prefix("a=candidate:")) {
            let words: Vec<&str> = line.split(' ').collect();
            let [_, "1", transport, _, ip, port, "typ", "host", rest @ ..] = words.as_slice() else { continue };
            let (Ok(ip), Ok(port)) = (ip.parse(), port.parse()) else { continue };
            let list = match transport.to_ascii_lowercase().as_str() {
                "udp" => &mut remote.udp,
                "tcp" if rest.contains(&"passive") => &mut remote.tcp,
                _ => continue,
            };
            let at = SocketAddr::new(ip, port);
            if !list.contains(&at) {
                list.push(at);
            }
        }
        Ok(remote)
    }

    /// Checks a way until an answer comes, and a few times more for the round trip. `local` is our user fragment, `began` when the way
    /// was begun.
    ///
    /// # Errors
    /// That nothing came, or what broke.
    pub(super) fn reach(&self, wire: &mut dyn Wire, local: &str, began: Instant) -> anyhow::Result<Reached> {
        let give_up = Instant::now() + GIVE_UP;
        let mut trips = Vec::new();
        let mut connect_us = None;
        while trips.len() < ROUNDS {
            let (id, request) = self.request(local)?;
            let sent = Instant::now();
            if sent >= give_up {
                break;
            }
            wire.send(&request)?;
            if self.answered(wire, &id, sent + TRY_EVERY)? {
                connect_us.get_or_insert(began.elapsed().as_secs_f64() * 1e6);
                trips.push(sent.elapsed().as_secs_f64() * 1e6);
            }
        }
        trips.sort_by(f64::total_cmp);
        let (Some(connect_us), Some(rtt_us)) = (connect_us, trips.get(trips.len() / 2).copied()) else {
            bail!("no answer within {} s", GIVE_UP.as_secs());
        };
        Ok(Reached { connect_us, rtt_us })
    }

    fn request(&self, local: &str) -> anyhow::Result<(TransactionId, Vec<u8>)> {
        let mut message = Message::new();
        message.build(&[Box::new(TransactionId::new()), Box::new(BINDING_REQUEST)])?;
        let user = format!("{}:{local}", self.user_fragment);
        let attributes: [(AttrType, &[u8]); 3] = [
            (ATTR_USERNAME, user.as_bytes()),
            // A host candidate's (RFC 8445 section 5.1.2.1); nobody compares it.
            (ATTR_PRIORITY, &0x6eff_ffff_u32.to_be_bytes()),
            (ATTR_ICE_CONTROLLING, &1_u64.to_be_bytes()),
        ];
        for (kind, value) in attributes {
            message.add(kind, value);
        }
        seal(&mut message, self.password.as_bytes())?;
        Ok((message.transaction_id, message.raw))
    }

    /// Whether the answer comes that only whoever has the password can give.
    fn answered(&self, wire: &mut dyn Wire, id: &TransactionId, until: Instant) -> anyhow::Result<bool> {
        while let Some(bytes) = wire.receive(until)? {
            let Some(mut message) = read(&bytes) else { continue };
            let good = MessageIntegrity::check(&mut message, self.password.as_bytes(), &AwsLcRsCrypto).is_ok();
            if good && message.typ == BINDING_SUCCESS && message.transaction_id == *id {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Adds MESSAGE-INTEGRITY and FINGERPRINT.
pub(super) fn seal(message: &mut Message, key: &[u8]) -> anyhow::Result<()> {
    MessageIntegrity::new_raw_integrity_with_provider(key, &AwsLcRsCrypto).add_to(message)?;
    FINGERPRINT.add_to(message)?;
    Ok(())
}

/// A STUN message; none where it is none.
pub(super) fn read(bytes: &[u8]) -> Option<Message> {
    let mut message = Message::new();
    message.unmarshal_binary(bytes).is_ok().then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::wire::Udp;
    use std::net::UdpSocket;

    const ANSWER: &str = "v=0\r\na=ice-lite\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:far\r\na=ice-pwd:secret-of-the-relay-24\r\n\
        a=candidate:1 1 udp 2130706431 192.0.2.1 4433 typ host\r\n\
        a=candidate:2 1 tcp 1671430143 192.0.2.1 4433 typ host tcptype passive\r\n\
        a=candidate:2 1 TCP 1671430143 192.0.2.1 9 typ host tcptype active\r\n\
        a=candidate:3 1 udp 1 192.0.2.9 4 typ srflx raddr 0.0.0.0 rport 0\r\n\
        a=candidate:1 1 udp 2130706431 2001:db8::1 4433 typ host\r\na=end-of-candidates\r\n";

    #[test]
    fn candidates_that_can_be_checked_are_read_from_an_answer() {
        let remote = Remote::read(ANSWER).unwrap();
        let at = |all: &[SocketAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(at(&remote.udp), ["192.0.2.1:4433", "[2001:db8::1]:4433"]);
        assert_eq!(at(&remote.tcp), ["192.0.2.1:4433"]);
        assert!(Remote::read("v=0\r\n").unwrap_err().to_string().contains("ice-ufrag"));
    }

    /// A relay's end; the second time with another password.
    #[test]
    fn only_an_answer_with_the_relays_proof_is_one() {
        let remote = Remote::read(ANSWER).unwrap();
        for (password, good) in [("secret-of-the-relay-24", true), ("somebody-else-s-secret-", false)] {
            let relay = UdpSocket::bind("127.0.0.1:0").unwrap();
            let to = relay.local_addr().unwrap();
            relay.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let ends = std::thread::spawn(move || {
                let mut buffer = [0; 2_048];
                let mut seen = Vec::new();
                while let Ok((n, from)) = relay.recv_from(&mut buffer) {
                    let mut asked = read(&buffer[..n]).unwrap();
                    seen.push(MessageIntegrity::check(&mut asked, b"secret-of-the-relay-24", &AwsLcRsCrypto).is_ok());
                    let mut answer = Message::new();
                    answer.build(&[Box::new(asked.transaction_id), Box::new(BINDING_SUCCESS)]).unwrap();
                    seal(&mut answer, password.as_bytes()).unwrap();
                    relay.send_to(&answer.raw, from).unwrap();
                }
                seen
            });
            let mut wire = Udp::connect(to).unwrap();
            let reached = remote.reach(&mut wire, "near", Instant::now());
            assert_eq!(reached.is_ok(), good, "{reached:?}");
            let seen = ends.join().unwrap();
            assert!(seen.len() >= ROUNDS && seen.iter().all(|s| *s), "our own proof is right: {seen:?}");
        }
    }
}
