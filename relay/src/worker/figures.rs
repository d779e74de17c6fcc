//! A worker's figures at one moment.

use super::repair::figures as repair;
use super::state::{Core, FeedEntry, LegEntry, Origin, Way};
use crate::metrics::{self as m, FeedFigures, LegFigures, Metric, Value, WorkerSnapshot};
use trocar_control::process::thread_cpu_seconds;
use trocar_proto::media::rate::LineState;
use trocar_proto::session::api::FeedState;
use trocar_proto::session::event::LegState;

fn value(metric: &'static Metric, value: u64) -> Value {
    Value { metric, value: value as f64 }
}

impl Core {
    /// Everything that this worker measures.
    pub(crate) fn snapshot(&self) -> WorkerSnapshot {
        let is_mirror = |f: &&FeedEntry| matches!(f.origin, Origin::Mirror { .. });
        let (mirrors, own): (Vec<_>, Vec<_>) = self.feeds.iter().map(|(_, f)| f).partition(is_mirror);
        let feeds = own.into_iter().map(feed_figures).collect();
        let of_mirror = |f: &FeedEntry| FeedFigures { labels: labels_of(f), values: Vec::new(), delay: f.delay };
        let mirrored = mirrors.into_iter().map(of_mirror).collect();
        let of_leg = |l: &LegEntry| {
            let mut figures = leg_figures(l, self.feeds.get(l.feed?)?);
            figures.values.extend(self.line_figures(l).into_iter().flatten());
            Some(figures)
        };
        let legs = self.legs.iter().filter_map(|(_, l)| of_leg(l)).collect();
        let c = self.counters;
        let me = self.cross.me.to_string();
        let mut workers = vec![LegFigures {
            labels: vec![("worker", me.clone())],
            values: vec![
                value(&m::WORKER_UNKNOWN_SOURCE, c.unknown_source),
                value(&m::WORKER_STUN_REFUSED, c.stun_refused),
                value(&m::WORKER_SRTP_REFUSED, c.srtp_refused),
                value(&m::WORKER_RTCP_DROPPED, c.rtcp_dropped),
                value(&m::WORKER_UNKNOWN_FLOW, c.unknown_flow),
                value(&m::WORKER_EVENTS_DROPPED, c.events_dropped),
                // Who asks is the worker's own thread.
                Value { metric: &m::WORKER_CPU, value: thread_cpu_seconds() },
            ],
        }];
        workers.extend(self.feeds.iter().flat_map(|(_, f)| self.path_figures(f)));
        workers.extend(self.cross.roads().map(|(to, road)| LegFigures {
            labels: vec![("from", me.clone()), ("to", to.to_string())],
            values: vec![
                value(&m::CROSSING_PACKETS, road.counters.packets),
                value(&m::CROSSING_DROPPED, road.counters.dropped),
            ],
        }));
        WorkerSnapshot { feeds, mirrored, legs, workers }
    }

    /// What a viewer's line takes, by its feedback or by QUIC's acknowledgements.
    fn line_figures(&self, leg: &LegEntry) -> Option<[Value; 4]> {
        let (target, queueing_us, state) = match &leg.way {
            Way::Webrtc(w) => {
                let f = self.peers.get(w.peer)?.line.try_borrow().ok()?.figures();
                (f.target, f.queueing_delay_us as f64, f.state)
            }
            Way::Roq(w) => {
                let f = crate::quic::line_figures(w.connection()?)?;
                (f.target, f.queueing_delay.as_micros() as f64, f.state)
            }
        };
        let state = match state {
            LineState::Clear => 0,
            LineState::Filling => 1,
            LineState::Congested => 2,
        };
        Some([
            value(&m::LEG_TARGET, target.0),
            Value { metric: &m::LEG_QUEUEING, value: queueing_us / 1e6 },
            value(&m::LEG_LINE, state),
            value(&m::LEG_FEC, leg.sent.fec),
        ])
    }
}

fn labels_of(f: &FeedEntry) -> Vec<(&'static str, String)> {
    vec![("session", f.key.session.to_string()), ("feed", f.key.feed.to_string())]
}

fn feed_figures(f: &FeedEntry) -> FeedFigures {
    let c = f.feed.counters();
    FeedFigures {
        labels: labels_of(f),
        values: vec![
            value(&m::FEED_PACKETS, c.packets),
            value(&m::FEED_BYTES, c.bytes),
            value(&m::FEED_FRAMES, c.frames),
            value(&m::FEED_MISSING, c.missing),
            value(&m::FEED_DUPLICATES, c.duplicates),
            value(&m::FEED_REFUSED, c.refused),
            value(&m::FEED_POLICED, f.police.dropped()),
            value(&m::FEED_KEY_REQUESTS, c.key_requests),
            value(&m::FEED_LIVE, u64::from(f.state == FeedState::Live)),
        ]
        .into_iter()
        .chain(repair::of_feed(f))
        .collect(),
        delay: f.delay,
    }
}

fn leg_figures(l: &LegEntry, f: &FeedEntry) -> LegFigures {
    let (transport, quic_rtt) = match &l.way {
        Way::Webrtc(_) => ("webrtc", None),
        Way::Roq(w) => ("roq", w.connection().map(|c| c.rtt().as_secs_f64())),
    };
    let c = l.leg.counters();
    let repeats = l.repair.as_ref().map(|r| r.counters().repeats).unwrap_or_default();
    let rtt = quic_rtt.or(l.viewer.round_trip_us.map(|us| us as f64 / 1e6));
    let jitter = f64::from(l.viewer.jitter) / f64::from(f.feed.clock_rate().max(1));
    let native = match &l.way {
        Way::Webrtc(_) => None,
        Way::Roq(w) => Some([value(&m::LEG_LATE_FRAMES, w.frames().late), value(&m::LEG_PATHS, w.paths() as u64)]),
    };
    let mut values = vec![
        value(&m::LEG_PACKETS, l.sent.packets.saturating_sub(l.sent.fec)),
        value(&m::LEG_SHED, c.shed),
        value(&m::LEG_DROPPED, l.sent.dropped),
        value(&m::LEG_TOO_LARGE, l.sent.too_large),
        value(&m::LEG_REPEATED, c.repeated + repeats.repeated),
        value(&m::LEG_GONE, c.gone + repeats.gone),
        value(&m::LEG_UNREPAIRED, l.sent.unrepaired),
        value(&m::LEG_CONNECTED, u64::from(l.state == LegState::Connected)),
        Value { metric: &m::LEG_LOST, value: f64::from(l.viewer.cumulative_lost) },
        Value { metric: &m::LEG_JITTER, value: jitter },
    ];
    values.extend(native.into_iter().flatten());
    values.extend(repair::of_leg(l));
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
