//! What the two ends say to each other beside probes: questions and answers in JSON, each in one packet. A question is asked again
//! until its answer comes; asking twice does the same as asking once.

use super::flow::{Known, Way};
use super::pair::Pair;
use super::schedule::FlowSpec;
use serde::{Deserialize, Serialize};

/// Characters of a report in one answer: with what JSON adds, a packet that no line refuses.
pub const PART_CHARS: usize = 700;

/// What a client says with its cookie.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// The cookie, in hexadecimal.
    pub cookie: String,
    /// Name and version of the program.
    pub program: String,
    /// A session that this one is the second path of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<Beside>,
}

/// Names a session, and proves that it is one's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beside {
    /// The session.
    pub session: u64,
    /// A MAC of the cookie under its key, in hexadecimal.
    pub proof: String,
}

/// What the responder says to that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// The number that the client drew.
    pub nonce: u64,
    /// What the session's key is made of, beside the key that both were given and the two numbers.
    pub salt: String,
    /// Name and version of the program.
    pub program: String,
    /// Highest rate of a flow, Mbit/s of UDP payload.
    pub mbit_s_max: f64,
    /// The session ends after so many seconds.
    pub seconds_max: f64,
    /// A second port, for whoever wants to know how a NAT maps.
    pub second_port: Option<u16>,
    /// Where QUIC is answered, for whoever wants to know whether it gets through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic: Option<QuicDoor>,
}

/// Where QUIC is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuicDoor {
    /// The port.
    pub port: u16,
    /// The certificate, DER in hexadecimal.
    pub certificate: String,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Why, for a person.
    pub why: String,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// A flow begins. Down: send it.
    Start {
        /// Its number.
        phase: u16,
        /// Which way.
        way: Way,
        /// What.
        flow: FlowSpec,
    },
    /// It has ended, or is to end.
    End {
        /// Its number.
        phase: u16,
    },
    /// What came of it?
    Report {
        /// Its number.
        phase: u16,
        /// What is needed for an answer.
        known: Known,
        /// Which part of the answer, from 0.
        part: u16,
    },
    /// How does what came compare with what came of the flow of the same number in another session of ours?
    Compare {
        /// Its number in both.
        phase: u16,
        /// The other session.
        other: u64,
        /// How many packets each sent.
        sent: u32,
    },
    /// What came of it is not wanted any more.
    Forget {
        /// Its number.
        phase: u16,
    },
    /// We have another address; here is the cookie that was sent there.
    Move {
        /// The number that the cookie is for.
        nonce: u64,
        /// The cookie, in hexadecimal.
        cookie: String,
    },
    /// That was all.
    Bye,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// As you say.
    Done,
    /// To [`Ask::End`].
    Ended {
        /// Packets that we sent of it.
        sent: u32,
        /// Packets that came of it so far.
        came: u32,
        /// How long none has come, in microseconds.
        quiet_us: i64,
    },
    /// To [`Ask::Report`]: a part of a [`super::flow::Received`] as JSON.
    Part {
        /// Which.
        part: u16,
        /// Of how many.
        parts: u16,
        /// The characters.
        text: String,
    },
    /// To [`Ask::Compare`].
    Compared {
        /// What came of both.
        pair: Pair,
    },
    /// It is not done.
    No {
        /// Why, for a person.
        why: String,
    },
}
