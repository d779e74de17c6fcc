//! What the processes of the benchmark say to each other, one JSON object a line.

use super::schedule::Schedule;
use serde::{Deserialize, Serialize};
use std::io::BufRead as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};

/// To whichever process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// To a floor: these are the viewers.
    Viewers(Vec<SocketAddr>),
    /// To the str0m relay: a viewer's SDP offer.
    Offer(String),
    /// To the viewers: open so many more.
    Open(usize),
    /// To the viewers: the answer to the oldest offer that has none yet.
    Answer(String),
    /// To the viewers: from here on it counts.
    Begin,
    /// To the viewers: up to here.
    End,
    /// To the generator: send no more.
    Stop,
    /// To the viewers: the generator made that many packets; say what is missing.
    Finish(u64),
}

/// From whichever process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Of a floor and of the str0m relay: packets come in here.
    Ingress(SocketAddr),
    /// Of the str0m relay.
    Answer(String),
    /// Of the viewers: an SDP offer.
    Offer(String),
    /// Of the viewers: where they are.
    Addresses(Vec<SocketAddr>),
    /// Of the generator: packets flow. Of the viewers: all of them get packets.
    Ready,
    /// Of the viewers, after [`Order::End`].
    Measured(Measured),
    /// Of the generator, after [`Order::Stop`].
    Made(Made),
    /// Of the viewers, after [`Order::Finish`].
    Finished(Finished),
}

/// What the viewers got between [`Order::Begin`] and [`Order::End`].
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Measured {
    /// Media packets.
    pub packets: u64,
    /// Their bytes, without UDP and IP.
    pub bytes: u64,
    /// Packets whose times are in the delays.
    pub samples: u64,
    /// Generator to viewer, microseconds: median.
    pub p50_us: u32,
    /// … 99 of 100.
    pub p99_us: u32,
    /// … 999 of 1,000.
    pub p999_us: u32,
}

/// What the generator did.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Made {
    /// Packets made.
    pub packets: u64,
    /// Packets that its socket or its connection did not take.
    pub refused: u64,
    /// From the first packet of a turn (a frame, where it sends bursts) until the last one had left the process, microseconds:
    /// the median of one turn in [`super::generator::LOOK_EVERY`].
    pub turn_us: u32,
}

/// What came of all packets since [`Order::Begin`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Finished {
    /// Packets that viewers should have got.
    pub expected: u64,
    /// Of those, packets that they did not get.
    pub lost: u64,
    /// Packets that came and did not open.
    pub refused: u64,
    /// How packets were protected.
    pub protection: String,
}

/// Which packets the generator sends, and where to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// As plain UDP datagrams.
    Udp(SocketAddr),
    /// Over QUIC, admitted by signaling.
    Roq {
        /// Base of the API.
        base: String,
        /// Secret of an invitation for a publisher.
        invitation: String,
        /// Trust list; the device's certificate stands beside it.
        ca: PathBuf,
    },
    /// As a browser publishes: WHIP, then SRTP.
    Whip {
        /// Base of the API.
        base: String,
        /// Secret of an invitation for a publisher.
        invitation: String,
    },
}

/// How a generator is started: its one argument.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GeneratorSettings {
    /// Where to.
    pub target: Target,
    /// How much and when.
    pub schedule: Schedule,
}

/// What viewers read with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reading {
    /// One datagram a call.
    Plain,
    /// `UDP_GRO`: the kernel hands segments over together, as a network card that coalesces does.
    Gro,
}

/// Who the viewers are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ViewerKind {
    /// WebRTC, with whatever profile the relay prefers, or with AES-CM alone.
    Webrtc {
        /// AES-CM with HMAC-SHA1 is all that the offer has.
        cm: bool,
    },
    /// Bare sockets that get packets of the sealing floor.
    Sealed,
    /// Bare sockets that get packets in the clear.
    Clear,
    /// Native viewers: RTP over QUIC.
    Roq {
        /// Base of the API.
        base: String,
        /// Secret of an invitation for a viewer.
        invitation: String,
        /// Trust list; the device's certificate stands beside it.
        ca: PathBuf,
        /// Each frame comes by a stream of its own, not each packet by a datagram.
        streams: bool,
    },
}

/// How viewers are started: their one argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewerSettings {
    /// Who they are.
    pub kind: ViewerKind,
    /// What they read with.
    pub reading: Reading,
}

/// Orders of standard input, read by a thread of their own. Ends with the stream.
#[must_use]
pub fn orders() -> Receiver<Order> {
    let (sender, receiver) = sync_channel(256);
    std::thread::spawn(move || {
        let lines = std::io::stdin().lock().lines().map_while(Result::ok);
        for order in lines.map_while(|l| serde_json::from_str(&l).ok()) {
            if sender.send(order).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Says a word on standard output.
///
/// # Errors
/// Where nobody reads it any more.
pub fn say(word: &Word) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    Ok(out.flush()?)
}
