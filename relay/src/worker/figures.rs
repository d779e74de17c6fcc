//! A worker's figures at one moment.

use super::state::{Core, FeedEntry, LegEntry, Way};
use crate::metrics::{self as m, FeedFigures, LegFigures, Metric, Snapshot, Value};
use trocar_proto::session::api::FeedState;
use trocar_proto::session::event::LegState;

fn value(metric: &'static Metric, value: u64) -> Value {
    Value { metric, value: value as f64 }
}

impl Core {
    /// Everything that this worker measures.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let feeds = self.feeds.iter().map(|(_, f)| feed_figures(f)).collect();
        let legs = self.legs.iter().filter_map(|(_, l)| Some(leg_figures(l, self.feeds.get(l.feed?)?))).collect();
        let c = self.counters;
        let workers = vec![LegFigures {
            labels: Vec::new(),
            values: vec![
                value(&m::WORKER_UNKNOWN_SOURCE, c.unknown_source),
                value(&m::WORKER_STUN_REFUSED, c.stun_refused),
                value(&m::WORKER_SRTP_REFUSED, c.srtp_refused),
                value(&m::WORKER_UNKNOWN_FLOW, c.unknown_flow),
                value(&m::WORKER_EVENTS_DROPPED, c.events_dropped),
            ],
        }];
        Snapshot { feeds, legs, workers, control: Vec::new() }
    }
}

fn feed_figures(f: &FeedEntry) -> FeedFigures {
    let c = f.feed.counters();
    FeedFigures {
        labels: vec![("session", f.key.session.to_string()), ("feed", f.key.feed.to_string())],
        values: vec![
            value(&m::FEED_PACKETS, c.packets),
            value(&m::FEED_BYTES, c.bytes),
            value(&m::FEED_FRAMES, c.frames),
            value(&m::FEED_MISSING, c.missing),
            value(&m::FEED_DUPLICATES, c.duplicates),
            value(&m::FEED_REFUSED, c.refused),
            value(&m::FEED_KEY_REQUESTS, c.key_requests),
            value(&m::FEED_LIVE, u64::from(f.state == FeedState::Live)),
        ],
        delay: f.delay,
    }
}

fn leg_figures(l: &LegEntry, f: &FeedEntry) -> LegFigures {
    let (transport, quic_rtt) = match &l.way {
        Way::Webrtc(_) => ("webrtc", None),
        Way::Roq(w) => ("roq", w.connection.as_ref().map(|c| c.rtt().as_secs_f64())),
    };
    let c = l.leg.counters();
    let rtt = quic_rtt.or(l.viewer.round_trip_us.map(|us| us as f64 / 1e6));
    let jitter = f64::from(l.viewer.jitter) / f64::from(f.feed.clock_rate().max(1));
    let mut values = vec![
        value(&m::LEG_PACKETS, l.sent.packets),
        value(&m::LEG_SHED, c.shed),
        value(&m::LEG_DROPPED, l.sent.dropped),
        value(&m::LEG_TOO_LARGE, l.sent.too_large),
        value(&m::LEG_REPEATED, c.repeated),
        value(&m::LEG_GONE, c.gone),
        value(&m::LEG_UNREPAIRED, l.sent.unrepaired),
        value(&m::LEG_CONNECTED, u64::from(l.state == LegState::Connected)),
        Value { metric: &m::LEG_LOST, value: f64::from(l.viewer.cumulative_lost) },
        Value { metric: &m::LEG_JITTER, value: jitter },
    ];
    values.extend(rtt.map(|value| Value { metric: &m::LEG_RTT, value }));
    LegFigures {
        labels: vec![
            ("session", f.key.session.to_string()),
            ("feed", f.key.feed.to_string()),
            ("leg", l.id.to_string()),
            ("transport", transport.to_owned()),
        ],
        values,
    }
}
