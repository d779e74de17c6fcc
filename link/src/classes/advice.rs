//! What to change when a limit is not kept. Taken from what else was measured; a guess is called one.

use super::figure::{Figure, busiest, direction};
use super::{Limit, Measure, Way};
use crate::result::{Direction, LinkResult, remains};

/// A queue longer than that is one; a line that loses without it is policed or damaged. Microseconds.
const QUEUE_US: f64 = 5_000.0;
/// Loss of a step of the ramp that is more than chance. Percent.
const LOSSY_STEP: f64 = 0.5;

/// Advice for a figure that is beyond its limit, or may be.
pub(super) fn advice(result: &LinkResult, limit: Limit, figure: &Figure, wanted: f64, any: &[String]) -> String {
    let way = limit.way.and_then(|w| direction(result, w));
    let text = match limit.measure {
        Measure::Rungs => format!(
            "None of {} gets through: have UDP let out to the relay's ports, or take a class that can live with TCP.{}",
            any.join(", "),
            remains(&result.ladder).map_or_else(String::new, |r| format!(" {r}."))
        ),
        Measure::Mtu => "A tunnel (VPN, PPPoE, VLAN in VLAN) takes part of each packet: raise the MTU along the way, and let \
                         ICMP \"packet too big\" through."
            .to_owned(),
        Measure::Rate => rate(way, figure, wanted),
        Measure::Delay | Measure::FrameDelay => delay(way, limit.measure, wanted),
        Measure::Rtt => round_trip(result, wanted),
        Measure::RttLoaded | Measure::Queue => "Bufferbloat: a queue on the way is too long. Shape to 95 % of the line's rate with \
                                                FQ-CoDel or CAKE at whichever device feeds the slowest line, or keep other traffic off."
            .to_owned(),
        Measure::Jitter => jitter(way, limit.way),
        Measure::Loss | Measure::FramesDamaged => loss(way),
        Measure::Burst => "Packets are lost in a row: Wi-Fi roaming, radio handover or a policer. Use a cable, have the policer's \
                           burst raised, or take a second path of another provider (`--path` twice)."
            .to_owned(),
        Measure::Reordered => "Packets overtake one another: links are bundled and balanced per packet. Have them balanced per \
                               flow."
            .to_owned(),
        Measure::BothPathsLoss | Measure::PathDependence => "The two paths fail together: they share a line, a radio mast or a \
                                                             router. Take another provider and another entry into the building."
            .to_owned(),
        Measure::PathSkew => "One path is much longer: the copy that comes late saves nothing. Have both routed alike, or raise the \
                              playout delay by the skew."
            .to_owned(),
    };
    if figure.high.is_infinite() || (figure.low <= wanted && wanted <= figure.high && figure.low < figure.high) {
        return format!("Measure longer or with a better clock before relying on it. {text}");
    }
    text
}

/// Advice for a figure that is not there.
pub(super) fn missing(limit: Limit) -> String {
    match limit.measure {
        Measure::Delay | Measure::FrameDelay => {
            "One-way delay needs both clocks: measure against `trocar link serve`.".to_owned()
        }
        Measure::BothPathsLoss | Measure::PathSkew | Measure::PathDependence => {
            "Measure with the second path as well.".to_owned()
        }
        Measure::Queue => {
            "The ramp did not reach the rate that this class needs: raise its top, or the line broke before.".to_owned()
        }
        Measure::Rungs => "Measure against a relay: a peer has no ladder.".to_owned(),
        _ => "Measure it; `why_not` of the result says what was in the way.".to_owned(),
    }
}

fn rate(way: Option<&Direction>, figure: &Figure, wanted: f64) -> String {
    let first_lossy = way.and_then(|d| d.ramp.iter().find(|s| s.loss_percent > LOSSY_STEP));
    let how = match first_lossy {
        Some(s) if s.queue_p95_us < QUEUE_US => {
            "It loses without a queue: a policer. Ask for shaping instead, or for a larger burst, and for"
        }
        Some(_) => "A queue fills before it loses: a slower line or a shaper is on the way. Ask for",
        None => "Look for the slowest hop (duplex, Wi-Fi, a shaper), and ask for",
    };
    format!("{how} {:.0} Mbit/s, or lower the bit rate: this line takes {:.0} Mbit/s.", wanted.ceil(), figure.value)
}

fn delay(way: Option<&Direction>, measure: Measure, wanted: f64) -> String {
    let quantiles = way.and_then(|d| match measure {
        Measure::FrameDelay => d.video.as_ref()?.frame_delay_us.as_ref(),
        _ => busiest(d)?.0.delay_us.as_ref(),
    });
    match quantiles {
        Some(q) if q.min / 1_000.0 > wanted => "Even the fastest packet is too late: this is distance or routing, and nothing at the \
                                                ends changes it. Ask for a shorter route, or take a class with a higher limit."
            .to_owned(),
        Some(q) if q.p50 / 1_000.0 > wanted => "Half of all packets are too late, the fastest is not: a standing queue. Lower the rate, \
                                                or shape before the slowest hop."
            .to_owned(),
        _ if measure == Measure::FrameDelay => {
            "Large frames take long on this line: pace them, refresh intra-wise instead of key frames, or lower the rate.".to_owned()
        }
        _ => "The slowest packets are too late, most are not: queueing behind other traffic, or Wi-Fi. Use a cable, and have the \
              traffic marked AF41 and the mark honoured."
            .to_owned(),
    }
}

fn round_trip(result: &LinkResult, wanted: f64) -> String {
    match result.path.rtt_idle_us.as_ref() {
        Some(q) if q.min / 1_000.0 > wanted => {
            "Even the fastest round trip is too long: distance or routing. Ask for a shorter route, or a relay closer by.".to_owned()
        }
        _ => "The slowest round trips are too long, the fastest is not: queueing or Wi-Fi. Look at jitter and at the queue.".to_owned(),
    }
}

fn jitter(way: Option<&Direction>, name: Option<Way>) -> String {
    let marked = match way.and_then(|d| d.dscp_survives) {
        Some(false) => format!(
            " The DSCP mark is lost on the way {}: have it honoured from end to end.",
            name.map_or("", Way::name)
        ),
        _ => String::new(),
    };
    format!(
        "Delay varies: Wi-Fi, radio, or other traffic in the same queue. Use a cable or a queue of its own.{marked}"
    )
}

fn loss(way: Option<&Direction>) -> String {
    let longest = way.and_then(busiest).and_then(|(f, _)| f.loss_bursts.iter().map(|b| b.0).max()).unwrap_or(0);
    let filled = way.is_some_and(|d| {
        let needs = d.video.as_ref().map_or(0.0, |v| v.mbit_s);
        d.capacity_mbit_s.is_some_and(|c| c < needs)
    });
    if filled {
        return "The video is more than the line takes: lower its rate, or ask for more.".to_owned();
    }
    if longest > 3 {
        return "Loss comes in bursts: Wi-Fi roaming, radio handover or a policer. Use a cable, or a second path of another \
                provider (`--path` twice)."
            .to_owned();
    }
    "Single packets are lost: a bad cable or optic, a duplex mismatch, radio. Look at the error counters of each hop."
        .to_owned()
}
