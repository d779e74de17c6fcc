//! What repair costs and brings, by feed and leg.

use crate::metrics::{self as m, Metric, Value};
use crate::worker::state::{FeedEntry, LegEntry};

fn value(metric: &'static Metric, value: u64) -> Value {
    Value { metric, value: value as f64 }
}

/// Of the line that a feed comes in by.
pub(in crate::worker) fn of_feed(f: &FeedEntry) -> Vec<Value> {
    let Some(c) = f.repair.as_ref().map(|r| r.counters()) else { return Vec::new() };
    vec![
        value(&m::FEED_NACKED, c.nack.asked),
        value(&m::FEED_REPAIRED, c.nack.recovered),
        value(&m::FEED_GIVEN_UP, c.nack.given_up),
        value(&m::FEED_LATE, c.late),
        value(&m::FEED_FEC, c.fec.repairs),
        value(&m::FEED_FEC_USED, c.fec.used),
        value(&m::FEED_FEC_USELESS, c.fec.useless),
        value(&m::FEED_FEC_RESTORED, c.fec.restored),
    ]
}

/// Of a native leg.
pub(in crate::worker) fn of_leg(l: &LegEntry) -> Vec<Value> {
    let Some(repair) = &l.repair else { return Vec::new() };
    let c = repair.counters();
    let refused = c.repeats.too_soon + c.repeats.too_late + c.repeats.over_budget;
    vec![
        value(&m::LEG_REPEATED_BYTES, c.repeats.bytes),
        value(&m::LEG_NOT_REPEATED, refused),
        value(&m::LEG_FEC, c.fec.repairs),
        value(&m::LEG_FEC_BYTES, c.fec.repair_bytes),
        value(&m::LEG_FEC_PERCENT, u64::from(repair.plan().fec_percent)),
    ]
}
