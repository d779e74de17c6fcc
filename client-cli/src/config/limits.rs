//! The one block of bounds: what a node takes of anybody, in numbers. Each has a default, a range and a line in docs/OPERATING.md.

use anyhow::bail;
use serde::Deserialize;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The bounds of all parts together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Of signaling.
    pub(crate) signaling: trocar_signaling::Limits,
    /// Of the media workers; feeds and legs stand in `[relay]`.
    pub(crate) worker: trocar_relay::worker::Limits,
    /// Of the control rendezvous.
    pub(crate) control: trocar_relay::control::Limits,
}

/// A bound that is written as a whole number: a count, bytes, bits per second, or milliseconds.
trait Bound {
    fn get(&self) -> u64;
    fn set(&mut self, value: u64);
}

macro_rules! whole {
    ($($number:ty),*) => {
        $(impl Bound for $number {
            fn get(&self) -> u64 {
                u64::try_from(*self).unwrap_or(u64::MAX)
            }

            fn set(&mut self, value: u64) {
                *self = Self::try_from(value).unwrap_or(Self::MAX);
            }
        })*
    };
}

whole!(u32, u64, usize);

impl Bound for Duration {
    fn get(&self) -> u64 {
        u64::try_from(self.as_millis()).unwrap_or(u64::MAX)
    }

    fn set(&mut self, value: u64) {
        *self = Self::from_millis(value);
    }
}

/// One key, for the table in the documentation.
#[cfg(test)]
pub(crate) struct Key {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its default.
    pub(crate) default: u64,
    /// What may be written.
    pub(crate) range: RangeInclusive<u64>,
    /// What it bounds, and what comes of more.
    pub(crate) meaning: &'static str,
}

macro_rules! limits {
    ($($key:ident = $($part:ident).+, $range:expr, $meaning:literal;)*) => {
        /// `[limits]`.
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct Limits {
            $(#[doc = $meaning] pub(crate) $key: u64,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                let all = Bounds::default();
                Self { $($key: Bound::get(&all.$($part).+),)* }
            }
        }

        impl Limits {
            /// As the parts want them.
            pub(crate) fn bounds(&self) -> Bounds {
                let mut all = Bounds::default();
                $(Bound::set(&mut all.$($part).+, self.$key);)*
                all
            }

            /// Whether each is within its range.
            ///
            /// # Errors
            /// Names the first that is not, and the range.
            pub(crate) fn check(&self) -> anyhow::Result<()> {
                $(let range: RangeInclusive<u64> = $range;
                if !range.contains(&self.$key) {
                    bail!("limits.{} = {}: {} to {} is right", stringify!($key), self.$key, range.start(), range.end());
                })*
                Ok(())
            }

            /// All keys, in the order of the file.
            #[cfg(test)]
            pub(crate) fn keys() -> Vec<Key> {
                let default = Self::default();
                vec![$(Key { name: stringify!($key), default: default.$key, range: $range, meaning: $meaning },)*]
            }
        }
    };
}

limits! {
    connections = signaling.connections, 16..=65_536, "HTTPS and HTTP connections at a time; further ones are closed at once";
    connections_per_ip = signaling.connections_per_ip, 1..=65_536, "of these from one IPv4 address or IPv6 /64";
    connections_per_network = signaling.connections_per_network, 1..=65_536, "of these from one IPv4 /24 or IPv6 /48";
    connections_loopback = signaling.connections_loopback, 1..=65_536, "of these from one address of this machine, where a reverse proxy may sit";
    header_timeout_ms = signaling.header_timeout, 100..=60_000, "longest wait for a request head or a TLS handshake; then the connection is closed";
    header_bytes = signaling.header_bytes, 8_192..=65_536, "largest request head; larger ones get 431";
    body_timeout_ms = signaling.body_timeout, 100..=60_000, "longest wait for a request body; then 408";
    body_bytes = signaling.body_bytes, 16_384..=1_048_576, "largest request body; larger ones get 413 before they are buffered";
    write_stall_ms = signaling.write_stall, 500..=60_000, "a client that reads nothing for so long is cut off";
    joins_burst = signaling.joins.burst, 1..=10_000, "redeemed invitations at once from one IPv4 address or IPv6 /64; above it 429";
    joins_per_second = signaling.joins.per_second, 1..=1_000, "and so many a second in the long run";
    requests_burst = signaling.requests.burst, 1..=10_000, "requests of one participant at once; above it 429";
    requests_per_second = signaling.requests.per_second, 1..=1_000, "and so many a second in the long run";
    sockets_per_participant = signaling.sockets_per_participant, 1..=64, "event sockets of one participant";
    socket_messages_burst = signaling.socket_messages.burst, 1..=10_000, "messages at once on an event socket; above it the socket is closed (1008)";
    socket_messages_per_second = signaling.socket_messages.per_second, 1..=1_000, "and so many a second in the long run";
    socket_message_bytes = signaling.socket_message_bytes, 1_024..=1_048_576, "largest WebSocket message and frame; larger ones close the socket (1009)";
    socket_queue = signaling.socket_queue, 8..=65_536, "messages that wait for one event socket; a client that reads slower is closed (1008)";
    socket_stall_ms = signaling.socket_stall, 100..=60_000, "longest write to an event socket";
    hello_timeout_ms = signaling.hello_timeout, 100..=60_000, "how soon a new event socket says hello";
    chat_burst = signaling.chat.burst, 1..=1_000, "chat messages of one participant at once; above it they are refused";
    chat_per_second = signaling.chat.per_second, 1..=100, "and so many a second in the long run";
    grace_ms = signaling.grace, 0..=600_000, "how long feeds and legs outlive the last event socket of their participant";
    sessions = signaling.sessions, 1..=65_536, "open sessions";
    invitations_per_session = signaling.invitations_per_session, 1..=65_536, "good invitations of one session";
    participants_per_session = signaling.participants_per_session, 1..=65_536, "participants of one session";
    feeds_per_session = signaling.feeds_per_session, 1..=4_096, "feeds of one session";
    legs_per_session = signaling.legs_per_session, 1..=65_536, "legs of one session";
    legs_per_participant = signaling.legs_per_participant, 1..=4_096, "legs of one participant";
    bitrate_per_participant = signaling.bitrate_per_participant, 100_000..=10_000_000_000, "bit/s of all feeds by WHIP of one participant together";
    native_bitrate_per_participant = signaling.native_bitrate_per_participant, 100_000..=100_000_000_000, "the same of native feeds";
    admission_timeout_ms = signaling.admission_timeout, 500..=60_000, "longest wait for a relay's answer; then 503";
    shutdown_timeout_ms = signaling.shutdown_timeout, 0..=60_000, "how long a stop waits for connections to end";
    quic_connections = worker.max_connections, 1..=65_536, "QUIC connections of each media worker; further ones are refused";
    quic_handshakes = worker.handshakes, 4..=4_096, "handshakes under way above which a client has to prove its address (Retry), and that there may be beyond the connections";
    quic_handshake_timeout_ms = worker.handshake_timeout, 500..=60_000, "longest QUIC handshake";
    control_connections = control.connections, 4..=65_536, "connections of the control rendezvous";
    control_handshakes = control.handshakes, 4..=1_024, "its handshakes under way above which a client has to prove its address";
    control_connect_ms = control.connect, 100..=60_000, "how soon a party says CONNECT, and a tunnel its first frame";
    control_stall_ms = control.stall, 500..=60_000, "a tunnel whose receiver takes nothing for so long is ended";
    control_datagrams_per_second = control.datagrams_per_second, 1_000..=1_000_000, "datagrams of one party of the rendezvous; more are dropped";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    /// What the documentation has to say.
    fn rows() -> Vec<String> {
        let row = |k: Key| {
            let (from, to) = (k.range.start(), k.range.end());
            format!("| `{}` | {} | {from} to {to} | {} |", k.name, k.default, k.meaning)
        };
        Limits::keys().into_iter().map(row).collect()
    }

    #[test]
    fn the_documentation_has_every_bound_with_its_default_and_the_shipped_file_as_well() {
        let book = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/OPERATING.md")).unwrap();
        let missing = |text: &str| rows().into_iter().filter(|r| !text.contains(r.as_str())).collect::<Vec<_>>();
        assert_eq!(missing(&book), Vec::<String>::new());
        // The control: a book that says something else of one key.
        let first = rows().remove(0);
        assert_eq!(missing(&book.replace(&first, "")), [first]);
        let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/trocar.toml")).unwrap();
        for key in Limits::keys() {
            let line = format!("\n{} = {}", key.name, key.default);
            assert!(shipped.contains(&line), "configs/trocar.toml lacks{line}");
        }
    }

    #[test]
    fn what_is_written_reaches_the_part_that_it_bounds_and_the_defaults_are_theirs() {
        assert_eq!(Limits::default().bounds(), Bounds::default());
        let mut text = String::new();
        for key in Limits::keys() {
            assert!(key.range.contains(&key.default), "{} has a default out of its range", key.name);
            let other = if key.default < *key.range.end() { key.default + 1 } else { key.default - 1 };
            let _ = writeln!(text, "{} = {other}", key.name);
        }
        let limits: Limits = toml::from_str(&text).unwrap();
        limits.check().unwrap();
        let bounds = limits.bounds();
        assert_eq!(bounds.signaling.write_stall, Duration::from_millis(10_001));
        assert_eq!((bounds.worker.handshakes, bounds.control.datagrams_per_second), (65, 10_001));
        assert_eq!(bounds.signaling.joins.per_second, 6);
    }

    #[test]
    fn a_value_out_of_its_range_and_an_unknown_key_are_named() {
        let zero: Limits = toml::from_str("connections = 0").unwrap();
        assert_eq!(zero.check().unwrap_err().to_string(), "limits.connections = 0: 16 to 65536 is right");
        assert!(toml::from_str::<Limits>("conections = 1").unwrap_err().to_string().contains("conections"));
        assert!(toml::from_str::<Limits>("connections = -1").is_err());
    }
}
