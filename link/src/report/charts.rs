//! Which plots a report has.

use super::Report;
use super::plot::{Axes, Colour, Plot, PlotError, Series, bars, lines};
use super::words::{self, Caption};
use crate::classes::{Check, Limit, Measure, Way, busiest, direction};
use crate::result::{Flow, LinkResult, Quantiles, Step};

/// A plot and the sentence below it.
pub(super) type Captioned = (Plot, &'static str);

/// Upper ends of the classes of burst lengths.
const BURSTS: [u32; 8] = [1, 2, 4, 8, 16, 32, 64, u32::MAX];
/// The curve is drawn up to this share: the last thousandth would push all of it to the left.
const CDF_END: f64 = 0.999;

type Drawn = Result<Vec<Captioned>, PlotError>;

/// Every plot for which there are figures.
pub(super) fn of_report(report: &Report) -> Drawn {
    let result = &report.result;
    let mut plots = Vec::new();
    let flows: Vec<(Way, &Flow)> =
        Way::BOTH.into_iter().filter_map(|w| Some((w, busiest(direction(result, w)?)?.0))).collect();
    let of = |take: fn(&Flow) -> Option<&Quantiles>| -> Vec<(Colour, &str, &Quantiles)> {
        flows.iter().filter_map(|(w, f)| Some((colour(*w), w.name(), take(f)?))).collect()
    };
    let wanted = |measure| limits_of(&report.verdict.checks, measure);
    plots.extend(cdf(&words::DELAY_CDF, &of(|f| f.delay_us.as_ref()), wanted(Measure::Delay))?);
    plots.extend(cdf(&words::JITTER_CDF, &of(|f| f.jitter_us.as_ref()), wanted(Measure::Jitter))?);
    for (way, flow) in &flows {
        plots.extend(over_time(*way, flow)?);
    }
    plots.extend(ramp(result, wanted(Measure::Queue))?);
    plots.extend(bursts(&flows)?);
    plots.extend(paths(result)?);
    Ok(plots)
}

/// The same curves before and after.
pub(super) fn of_comparison(before: &Report, after: &Report) -> Drawn {
    let mut plots = Vec::new();
    for way in Way::BOTH {
        let take = |r: &'_ Report| -> Option<Quantiles> { busiest(direction(&r.result, way)?)?.0.delay_us.clone() };
        let (a, b) = (take(before), take(after));
        let curves: Vec<(Colour, &str, &Quantiles)> =
            [(Colour::Other, words::BEFORE, &a), (Colour::Up, words::AFTER, &b)]
                .into_iter()
                .filter_map(|(c, n, q)| Some((c, n, q.as_ref()?)))
                .collect();
        for (mut plot, note) in cdf(&words::DELAY_CDF, &curves, Vec::new())? {
            plot.title = format!("{} ({})", plot.title, way.name());
            plots.push((plot, note));
        }
    }
    Ok(plots)
}

const fn colour(way: Way) -> Colour {
    match way {
        Way::Up => Colour::Up,
        Way::Down => Colour::Down,
    }
}

fn limits_of(checks: &[Check], measure: Measure) -> Vec<f64> {
    let mut all: Vec<f64> = checks
        .iter()
        .filter(|c| Limit::of_key(&c.limit).is_some_and(|l| l.measure == measure))
        .map(|c| c.wanted)
        .collect();
    all.dedup();
    all
}

fn axes(caption: &Caption) -> Axes<'static> {
    Axes { title: caption.title, x: caption.x, y: caption.y, ..Axes::default() }
}

fn cdf(caption: &Caption, curves: &[(Colour, &str, &Quantiles)], limits: Vec<f64>) -> Drawn {
    let points: Vec<Vec<(f64, f64)>> = curves
        .iter()
        .map(|(_, _, q)| q.cdf.iter().filter(|p| p.1 <= CDF_END).map(|p| (p.0 / 1_000.0, p.1 * 100.0)).collect())
        .collect();
    let end = points.iter().flatten().map(|p| p.0).fold(0.0_f64, f64::max);
    if end <= 0.0 {
        return Ok(Vec::new());
    }
    let series: Vec<Series<'_>> = curves
        .iter()
        .zip(&points)
        .map(|((colour, name, _), points)| Series { name, colour: *colour, points, dots: false })
        .collect();
    // A limit far to the right would press the curve to the left edge; the table names it.
    let x_limits = limits.into_iter().filter(|l| *l <= end * 3.0).collect();
    let plot = lines(&Axes { x_limits, y_max: Some(100.0), ..axes(caption) }, &series)?;
    Ok(vec![(plot, caption.note)])
}

fn over_time(way: Way, flow: &Flow) -> Drawn {
    if flow.delay_over_time.is_empty() {
        return Ok(Vec::new());
    }
    let delays: Vec<(f64, f64)> = flow.delay_over_time.iter().map(|(t, us)| (*t, us / 1_000.0)).collect();
    let losses: Vec<(f64, f64)> = flow.loss_over_time.iter().filter(|l| l.1 > 0).map(|l| (l.0, 0.0)).collect();
    let title = format!("{} ({})", words::DELAY_TIME.title, way.name());
    let series = [
        Series { name: "delay", colour: colour(way), points: &delays, dots: false },
        Series { name: "packets lost", colour: Colour::Bad, points: &losses, dots: true },
    ];
    let plot = lines(&Axes { title: &title, ..axes(&words::DELAY_TIME) }, &series)?;
    Ok(vec![(plot, words::DELAY_TIME.note)])
}

/// A named curve of its own.
type Curve = (Colour, &'static str, Vec<(f64, f64)>);

fn ramp(result: &LinkResult, limits: Vec<f64>) -> Drawn {
    let of = |take: fn(&Step) -> f64| -> Vec<Curve> {
        let one = |w: Way| {
            let mut p: Vec<(f64, f64)> =
                direction(result, w)?.ramp.iter().map(|s| (s.offered_mbit_s, take(s))).collect();
            p.sort_by(|a, b| a.0.total_cmp(&b.0));
            (!p.is_empty()).then_some((colour(w), w.name(), p))
        };
        Way::BOTH.into_iter().filter_map(one).collect()
    };
    let (received, queue) = (of(|s| s.received_mbit_s), of(|s| s.queue_p95_us / 1_000.0));
    let Some(top) = received.iter().flat_map(|r| r.2.iter().map(|p| p.0)).reduce(f64::max) else {
        return Ok(Vec::new());
    };
    let mut rate = vec![(Colour::Other, "all of it", vec![(0.0, 0.0), (top, top)])];
    rate.extend(received);
    let drawn = |caption: &Caption, curves: &[Curve], y_limits: Vec<f64>| {
        let series: Vec<Series<'_>> =
            curves.iter().map(|(colour, name, points)| Series { name, colour: *colour, points, dots: false }).collect();
        lines(&Axes { y_limits, ..axes(caption) }, &series)
    };
    Ok(vec![
        (drawn(&words::RATE, &rate, Vec::new())?, words::RATE.note),
        (drawn(&words::QUEUE, &queue, limits)?, words::QUEUE.note),
    ])
}

fn bursts(flows: &[(Way, &Flow)]) -> Drawn {
    if flows.iter().all(|(_, f)| f.loss_bursts.is_empty()) {
        return Ok(Vec::new());
    }
    let begins = || std::iter::once(1).chain(BURSTS.iter().map(|end| end.saturating_add(1)));
    let labels: Vec<String> = begins()
        .zip(BURSTS)
        .map(|(from, to)| match to {
            u32::MAX => format!("{from}+"),
            _ if from == to => from.to_string(),
            _ => format!("{from}–{to}"),
        })
        .collect();
    let counts = |f: &Flow| -> Vec<f64> {
        let within = |(from, to)| f.loss_bursts.iter().filter(|b| (from..=to).contains(&b.0)).map(|b| b.1 as f64).sum();
        begins().zip(BURSTS).map(within).collect()
    };
    let series: Vec<(Colour, &str, Vec<f64>)> = flows.iter().map(|(w, f)| (colour(*w), w.name(), counts(f))).collect();
    Ok(vec![(bars(&axes(&words::BURSTS), &labels, &series)?, words::BURSTS.note)])
}

fn paths(result: &LinkResult) -> Drawn {
    let Some(second) = &result.second_path else { return Ok(Vec::new()) };
    let labels = ["first".to_owned(), "second".to_owned(), "both at once".to_owned()];
    let values = vec![second.loss_percent, second.second_loss_percent, second.both_loss_percent];
    let plot = bars(&axes(&words::PATHS), &labels, &[(Colour::Bad, "lost", values)])?;
    Ok(vec![(plot, words::PATHS.note)])
}
