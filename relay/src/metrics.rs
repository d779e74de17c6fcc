//! What the relay measures of itself, and how it is shown to Prometheus.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;
use trocar_control::process::Process;

/// Upper bounds of the delay histogram's buckets, in microseconds.
pub const DELAY_BOUNDS_US: [u64; 12] =
    [50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 1_000_000];

/// How long packets were in the relay: from the read that brought them to the send that took them away. Owned by one
/// worker, so counting is an addition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DelayHistogram {
    /// Packets per bucket; the last is everything above.
    pub buckets: [u64; DELAY_BOUNDS_US.len() + 1],
    /// Sum of all delays in microseconds.
    pub sum_us: u64,
}

impl DelayHistogram {
    /// Adds `packets` of one delay.
    pub fn record(&mut self, delay_us: u64, packets: u64) {
        let place = DELAY_BOUNDS_US.iter().position(|b| delay_us <= *b).unwrap_or(DELAY_BOUNDS_US.len());
        if let Some(b) = self.buckets.get_mut(place) {
            *b += packets;
        }
        self.sum_us = self.sum_us.saturating_add(delay_us.saturating_mul(packets));
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Self) {
        for (mine, others) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += others;
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// All packets.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// One feed's figures.
#[derive(Debug, Clone, Default)]
pub struct FeedFigures {
    /// Session and feed.
    pub labels: Vec<(&'static str, String)>,
    /// Counters by metric name.
    pub values: Vec<Value>,
    /// Delay in the relay.
    pub delay: DelayHistogram,
}

/// One leg's figures.
#[derive(Debug, Clone, Default)]
pub struct LegFigures {
    /// Session, feed, leg, transport.
    pub labels: Vec<(&'static str, String)>,
    /// Counters and gauges by metric name.
    pub values: Vec<Value>,
}

/// One number.
#[derive(Debug, Clone, Copy)]
pub struct Value {
    /// What it is.
    pub metric: &'static Metric,
    /// How much.
    pub value: f64,
}

/// One metric's name, help and kind.
#[derive(Debug)]
pub struct Metric {
    /// Name without prefix and unit suffix of counters.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// It only rises.
    pub counter: bool,
}

macro_rules! metrics {
    ($list:ident: $($id:ident = $name:literal, $counter:literal, $help:literal;)*) => {
        $(#[doc = $help] pub static $id: Metric = Metric { name: $name, help: $help, counter: $counter };)*
        /// Every metric that is a plain number.
        pub static $list: &[&Metric] = &[$(&$id),*];
    };
}

metrics! { METRICS:
    FEED_PACKETS = "trocar_feed_packets", true, "RTP packets taken from the publisher";
    FEED_BYTES = "trocar_feed_bytes", true, "Bytes of RTP packets taken from the publisher";
    FEED_FRAMES = "trocar_feed_frames", true, "Frames whose last packet came";
    FEED_MISSING = "trocar_feed_missing_packets", false, "Sequence numbers that were skipped on the way in and have not come since";
    FEED_DUPLICATES = "trocar_feed_duplicate_packets", true, "Packets that came before and were refused";
    FEED_REFUSED = "trocar_feed_refused_packets", true, "Packets refused: malformed, another payload type, too large";
    FEED_POLICED = "trocar_feed_policed_packets", true, "Packets dropped, in whole frames, because the feed sent more than 1.5 times its grant";
    FEED_KEY_REQUESTS = "trocar_feed_key_frame_requests", true, "Key frames asked for upstream";
    FEED_LIVE = "trocar_feed_live", false, "1 while packets arrive, else 0";
    FEED_NACKED = "trocar_feed_nacked_packets", true, "Packets that a native publisher was asked for again";
    FEED_REPAIRED = "trocar_feed_repaired_packets", true, "Packets that came after they were asked for";
    FEED_GIVEN_UP = "trocar_feed_given_up_packets", true, "Missing packets whose time for repair was over";
    FEED_LATE = "trocar_feed_late_packets", true, "Packets that came after their time and were not forwarded";
    FEED_FEC = "trocar_feed_fec_packets", true, "Repair packets that came from a native publisher";
    FEED_FEC_USED = "trocar_feed_fec_used_packets", true, "Of those, the ones that brought packets back";
    FEED_FEC_USELESS = "trocar_feed_fec_useless_packets", true, "Of those, the ones that were not needed";
    FEED_FEC_RESTORED = "trocar_feed_fec_restored_packets", true, "Packets of the feed that redundancy brought back";
    FEED_PATHS_EXPECTED = "trocar_feed_paths_expected", false, "Paths that are to bring a protected feed";
    FEED_PATHS_ALIVE = "trocar_feed_paths_alive", false, "Paths that bring a protected feed";
    PATH_PACKETS = "trocar_feed_path_packets", true, "RTP packets of a protected feed that came by one path";
    PATH_FIRST = "trocar_feed_path_first_copies", true, "Of those, the ones that had come by no path before";
    PATH_AGAIN = "trocar_feed_path_second_copies", true, "Of those, the ones that had: what protection costs";
    PATH_MISSING = "trocar_feed_path_missing_packets", false, "Sequence numbers that one path skipped and has not brought since, whatever the other one brought";
    PATH_RTT = "trocar_feed_path_round_trip_seconds", false, "Round trip of a path, by QUIC";
    PATH_SILENCE = "trocar_feed_path_silence_seconds", false, "Time since a path brought its last packet";
    LEG_PACKETS = "trocar_leg_packets", true, "Packets that the kernel or QUIC took, without repeats";
    LEG_SHED = "trocar_leg_shed_packets", true, "Packets left out in whole frames because the leg was full or too slow";
    LEG_DROPPED = "trocar_leg_dropped_packets", true, "Packets that socket or connection did not take";
    LEG_LATE_FRAMES = "trocar_leg_late_frames", true, "Frames whose stream was reset because the feed's budget had passed";
    LEG_PATHS = "trocar_leg_paths_alive", false, "QUIC connections that a native leg leaves by";
    LEG_TOO_LARGE = "trocar_leg_too_large_packets", true, "Packets too large for a batch to a browser";
    LEG_REPEATED = "trocar_leg_repeated_packets", true, "Packets sent again on a NACK";
    LEG_GONE = "trocar_leg_repair_misses", true, "NACKed packets that the ring no longer had";
    LEG_UNREPAIRED = "trocar_leg_repair_refusals", true, "NACKed packets that the leg's repair budget did not allow";
    LEG_REPEATED_BYTES = "trocar_leg_repeated_bytes", true, "Bytes that a native leg sent again on a NACK";
    LEG_NOT_REPEATED = "trocar_leg_not_repeated_packets", true, "NACKed packets of a native leg that were not sent again: too soon, too late, or beyond its budget";
    LEG_FEC = "trocar_leg_fec_packets", true, "Repair packets sent to the viewer";
    LEG_FEC_BYTES = "trocar_leg_fec_bytes", true, "Bytes of those, with RTP headers";
    LEG_FEC_PERCENT = "trocar_leg_fec_percent", false, "Redundancy of a native leg now, in per cent of a full block";
    LEG_LOST = "trocar_leg_reported_lost_packets", false, "Packets lost by the viewer's last receiver report";
    LEG_JITTER = "trocar_leg_reported_jitter_seconds", false, "Interarrival jitter by the viewer's last receiver report";
    LEG_RTT = "trocar_leg_round_trip_seconds", false, "Round trip by the viewer's last receiver report or by QUIC";
    LEG_TARGET = "trocar_leg_target_bits_per_second", false, "What the line of a viewer takes, by the rate controller";
    LEG_QUEUEING = "trocar_leg_queueing_delay_seconds", false, "How long the newest packets waited on the way to the viewer, by its feedback";
    LEG_LINE = "trocar_leg_line_state", false, "0 where nothing tells of a queue on the line, 1 where one begins, 2 where the rate was lowered because of it";
    LEG_CONNECTED = "trocar_leg_connected", false, "1 while media can flow, else 0";
    WORKER_UNKNOWN_SOURCE = "trocar_worker_unknown_source_datagrams", true, "Datagrams from addresses that no peer has validated";
    WORKER_STUN_REFUSED = "trocar_worker_refused_stun", true, "STUN messages that were not authentic or for nobody";
    WORKER_SRTP_REFUSED = "trocar_worker_refused_srtp", true, "SRTP and SRTCP packets that did not authenticate or were replayed";
    WORKER_RTCP_DROPPED = "trocar_worker_dropped_rtcp_packets", true, "RTCP packets of a peer or native viewer beyond 4,000 a second";
    WORKER_UNKNOWN_FLOW = "trocar_worker_unknown_flow_datagrams", true, "RoQ datagrams for flows that the certificate is not bound to";
    WORKER_EVENTS_DROPPED = "trocar_worker_dropped_events", true, "Events for signaling that found its queue full";
    WORKER_CPU = "trocar_worker_cpu_seconds", true, "CPU time of a worker's thread, in user mode and in the kernel";
    CROSSING_PACKETS = "trocar_crossing_packets", true, "Packets that went from one worker to another, where viewers of their feed are";
    CROSSING_DROPPED = "trocar_crossing_dropped_packets", true, "Packets that one worker could not give to another because the ring between them was full";
    SOCKET_DROPS = "trocar_socket_kernel_drops", true, "Datagrams that the kernel dropped before the relay read them, most often because the socket's buffer was full";
    SOCKET_BUFFER = "trocar_socket_buffer_bytes", false, "Size of a socket's buffer as the kernel granted it";
    CONTROL_PARTIES = "trocar_control_parties", false, "Control connections of a session, by kind";
    CONTROL_TUNNELS = "trocar_control_tunnels", false, "Tunnels that lead to a gate now, or from it";
    CONTROL_MODE = "trocar_control_mode", false, "1 for the state in which a gate says that its register is, 0 for the others; unknown where its newest answer is older than 500 ms";
    CONTROL_STATUS_AGE = "trocar_control_status_age_seconds", false, "Time since the relay asked the question that a gate answered last";
    CONTROL_DATAGRAMS = "trocar_control_datagrams", true, "Sealed datagrams forwarded, to gates and from them";
    CONTROL_DROPPED = "trocar_control_dropped", true, "Sealed datagrams dropped, by reason";
    CONTROL_REFUSED = "trocar_control_refused", true, "Control connections that were not let in";
    CERTIFICATES_REFUSED = "trocar_certificates_refused", true, "QUIC handshakes with a certificate that was not taken: revoked, run out, for another use, of another authority";
    CERTIFICATES_REVOKED = "trocar_certificates_revoked", true, "QUIC connections that were closed because their certificate was taken back";
    CERTIFICATES_UNUSABLE = "trocar_certificates_unusable", false, "1 while new files of certificates or trust lists cannot be used and the former are in force";
}

/// Everything the relay measures, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Feeds.
    pub feeds: Vec<FeedFigures>,
    /// Legs.
    pub legs: Vec<LegFigures>,
    /// Workers, what crosses between them, and their sockets.
    pub workers: Vec<LegFigures>,
    /// The control rendezvous.
    pub control: Vec<LegFigures>,
    /// The process that the relay is in.
    pub process: Option<Process>,
}

/// One worker's part of a snapshot.
#[derive(Debug, Default)]
pub(crate) struct WorkerSnapshot {
    pub(crate) feeds: Vec<FeedFigures>,
    /// Feeds that live on another worker, with the delay of the packets that left by this one.
    pub(crate) mirrored: Vec<FeedFigures>,
    pub(crate) legs: Vec<LegFigures>,
    pub(crate) workers: Vec<LegFigures>,
}

impl Snapshot {
    /// Puts the parts of all workers together: a feed counts once, with the delay of all its legs.
    pub(crate) fn merge(parts: Vec<WorkerSnapshot>) -> Self {
        let mut all = Self::default();
        let mut mirrored = Vec::new();
        for part in parts {
            all.feeds.extend(part.feeds);
            all.legs.extend(part.legs);
            all.workers.extend(part.workers);
            mirrored.extend(part.mirrored);
        }
        for there in mirrored {
            if let Some(feed) = all.feeds.iter_mut().find(|f| f.labels == there.labels) {
                feed.delay.add(&there.delay);
            }
        }
        all
    }
}

#[derive(Debug)]
struct SnapshotCollector(Snapshot);

struct Labels<'a>(&'a [(&'static str, String)]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>) -> fmt::Result {
        use prometheus_client::encoding::EncodeLabel;
        for (k, v) in self.0 {
            (*k, v.as_str()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

impl Collector for SnapshotCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let s = &self.0;
        for metric in METRICS {
            let kind = if metric.counter { MetricType::Counter } else { MetricType::Gauge };
            let mut rows = s
                .feeds
                .iter()
                .map(|f| (&f.labels, &f.values))
                .chain(s.legs.iter().chain(&s.workers).chain(&s.control).map(|l| (&l.labels, &l.values)))
                .filter_map(|(labels, values)| {
                    let v = values.iter().find(|v| std::ptr::eq(v.metric, *metric))?;
                    Some((labels, v.value))
                })
                .peekable();
            if rows.peek().is_none() {
                continue;
            }
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            for (labels, value) in rows {
                let labels = Labels(labels);
                let mut row = family.encode_family(&labels)?;
                if metric.counter {
                    row.encode_counter::<NoLabelSet, f64, f64>(&value, None)?;
                } else {
                    row.encode_gauge(&value)?;
                }
            }
        }
        if s.feeds.is_empty() {
            return Ok(());
        }
        let help = "Time from the read that brought a packet to the hand-over to the kernel, or to QUIC where the leg is \
                    native; what waits in QUIC before the read or after the hand-over is not in it";
        let mut family =
            encoder.encode_descriptor("trocar_feed_relay_delay_seconds", help, None, MetricType::Histogram)?;
        for f in &s.feeds {
            let labels = Labels(&f.labels);
            let bounds = DELAY_BOUNDS_US.iter().map(|b| *b as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(f.delay.buckets).collect();
            let sum = f.delay.sum_us as f64 / 1e6;
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, f.delay.count(), &buckets, None)?;
        }
        Ok(())
    }
}

impl Snapshot {
    /// As Prometheus text, without the end mark, so that it can stand beside others.
    #[must_use]
    pub fn render(self) -> String {
        let process = self.process.map(|p| p.text());
        let mut registry = Registry::default();
        registry.register_collector(Box::new(SnapshotCollector(self)));
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode_registry(&mut out, &registry);
        out + process.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rendered_with_labels_and_cumulative_buckets() {
        let labels = vec![("session", "s\"1\n".to_owned()), ("feed", "scope".to_owned())];
        let mut delay = DelayHistogram::default();
        delay.record(40, 3);
        delay.record(700, 1);
        let feed = FeedFigures { labels, values: vec![Value { metric: &FEED_PACKETS, value: 4.0 }], delay };
        let text = Snapshot { feeds: vec![feed], ..Snapshot::default() }.render();
        assert!(text.contains("trocar_feed_packets_total{session=\"s\\\"1\\n\",feed=\"scope\"} 4.0"), "{text}");
        assert!(text.contains("{le=\"0.00005\",session=\"s\\\"1\\n\",feed=\"scope\"} 3"), "{text}");
        assert!(text.contains("{le=\"0.001\",session=\"s\\\"1\\n\",feed=\"scope\"} 4"), "{text}");
        assert!(text.contains("{le=\"+Inf\",session=\"s\\\"1\\n\",feed=\"scope\"} 4"), "{text}");
        assert!(text.contains("trocar_feed_relay_delay_seconds_count{session="), "{text}");
        assert!(!text.contains("# EOF"));
    }
}
