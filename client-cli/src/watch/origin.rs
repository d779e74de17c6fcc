//! When a picture was captured, on this machine's clock; and the age that follows.

use std::collections::VecDeque;
use trocar_proto::session::api::FeedInfo;
use trocar_proto::session::clock::Offset;
use trocar_proto::units::WallMicros;

/// A point of the capture map is used for frames at most this far from it, in microseconds of RTP time. As in the page.
const TRUST_US: u64 = 3_000_000;
/// Points kept: about ten a second come. The oldest goes first.
const POINTS: usize = 64;

/// A moment on this machine's wall clock, and how well it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Capture.
    pub(crate) at: WallMicros,
    /// The true moment is within this of it, in microseconds.
    pub(crate) uncertainty_us: u64,
}

/// An age and how sure it is, in microseconds. The age may be negative within its uncertainty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ages {
    /// Now minus capture time.
    pub(crate) age_us: i64,
    /// The true age is within this of it.
    pub(crate) uncertainty_us: u64,
}

impl Origin {
    /// A moment on the server's clock, brought to ours.
    pub(crate) fn on_server(at: WallMicros, uncertainty_us: u64, ours: Offset) -> Self {
        Self {
            at: at.offset(ours.offset_us.saturating_neg()),
            uncertainty_us: uncertainty_us.saturating_add(ours.uncertainty_us),
        }
    }

    /// A capture time by the publisher's clock; none while one of the two clocks is unknown, or how well the publisher
    /// knows its own.
    pub(crate) fn by_publisher(capture: WallMicros, feed: &FeedInfo, ours: Offset) -> Option<Self> {
        Some(Self::on_server(capture.offset(feed.clock_offset_us?), feed.clock_uncertainty_us?, ours))
    }

    /// The age at `now` by our clock.
    pub(crate) const fn age(self, now: WallMicros) -> Ages {
        Ages { age_us: now.signed_since(self.at), uncertainty_us: self.uncertainty_us }
    }
}

/// One point: the frame with that RTP timestamp was captured then, on the server's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    /// RTP timestamp.
    pub(crate) rtp: u32,
    /// RTP clock rate in Hz.
    pub(crate) clock_rate: u32,
    /// Capture time; none where nobody knows it.
    pub(crate) capture: Option<WallMicros>,
    /// Of the capture time, in microseconds.
    pub(crate) uncertainty_us: u64,
}

/// The points of one leg.
#[derive(Debug, Default)]
pub(crate) struct CaptureMap(VecDeque<Point>);

impl CaptureMap {
    /// Takes one.
    pub(crate) fn handle_point(&mut self, point: Point) {
        if self.0.len() >= POINTS {
            self.0.pop_front();
        }
        self.0.push_back(point);
    }

    /// Forgets all: another leg begins.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// When the frame with this timestamp was captured, from the nearest point; none where that one knows no capture time
    /// or none is near.
    pub(crate) fn origin(&self, rtp: u32, ours: Offset) -> Option<Origin> {
        let distance = |p: &Point| {
            let ticks = i64::from(rtp.wrapping_sub(p.rtp).cast_signed());
            ticks.saturating_mul(1_000_000).checked_div(i64::from(p.clock_rate))
        };
        // The newer one where two are as near: it was made with what the relay knows now.
        let near = self.0.iter().rev().filter_map(|p| Some((distance(p)?, p)));
        let (us, point) =
            near.min_by_key(|(us, _)| us.unsigned_abs()).filter(|(us, _)| us.unsigned_abs() <= TRUST_US)?;
        Some(Origin::on_server(point.capture?.offset(us), point.uncertainty_us, ours))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(clock_offset_us: Option<i64>, clock_uncertainty_us: Option<u64>) -> FeedInfo {
        serde_json::from_value(serde_json::json!({
            "publisher": "p",
            "state": "live",
            "since": 0,
            "clock_offset_us": clock_offset_us,
            "clock_uncertainty_us": clock_uncertainty_us,
            "descriptor": {
                "feed": "scope", "source": "s", "view": "v", "kind": "video", "purpose": "scope", "codec": "H264",
                "clock_rate": 90_000, "payload_type": 96, "max_bitrate": 1_000_000, "budget_ms": 200,
                "transport": "webrtc",
            },
        }))
        .unwrap()
    }

    #[test]
    fn an_age_has_both_uncertainties_and_is_unknown_while_one_of_them_is() {
        let (capture, now) = (WallMicros(1_000_000), WallMicros(1_050_000));
        let ours = Offset { offset_us: 2_000, uncertainty_us: 300 };
        let age = |feed: &FeedInfo| {
            Origin::by_publisher(capture, feed, ours).map(|o| o.age(now)).map(|a| (a.age_us, a.uncertainty_us))
        };
        assert_eq!(age(&feed(Some(-1_000), Some(200))), Some((53_000, 500)));
        assert_eq!(age(&feed(Some(-1_000), None)), None);
        assert_eq!(age(&feed(None, Some(200))), None);
        assert_eq!(age(&feed(Some(-1_000), Some(u64::MAX))), Some((53_000, u64::MAX)));
    }

    #[test]
    fn between_two_points_the_rtp_clock_counts_and_far_from_them_nothing_is_known() {
        let ours = Offset { offset_us: 1_000, uncertainty_us: 10 };
        let mut map = CaptureMap::default();
        assert_eq!(map.origin(0, ours), None);
        let point = |rtp, capture| Point { rtp, clock_rate: 90_000, capture, uncertainty_us: 5 };
        map.handle_point(point(u32::MAX - 8_999, Some(WallMicros(10_000_000))));
        let at = |map: &CaptureMap, rtp| map.origin(rtp, ours).map(|o| (o.at.0, o.uncertainty_us));
        // 9,000 ticks later, over the wrap: 100 ms.
        assert_eq!(at(&map, 0), Some((10_099_000, 15)));
        assert_eq!(at(&map, 90_000 * 4), None, "four seconds away");
        map.handle_point(point(90_000, None));
        assert_eq!(at(&map, 89_000), None, "the nearest point does not know");
        map.handle_point(Point { clock_rate: 0, ..point(0, Some(WallMicros(1))) });
        assert_eq!(at(&map, u32::MAX - 8_999), Some((9_999_000, 15)), "a point without a clock is no point");
    }
}
