//! The report as one page, in the look of all reports of the house.

use super::figures::{Figures, ViewerRow};
use super::report::{Report, number};
use maud::html;
use trocar_link::report::page;
use trocar_link::report::plot::{Axes, Colour, PARTS_MAX, Plot, PlotError, Series, heat_map, lines};
use trocar_link::report::{clean, utc};

/// The page.
///
/// # Errors
/// Where a plot cannot be drawn.
pub(super) fn page(report: &Report) -> Result<String, PlotError> {
    let title = if report.title.is_empty() { "Load test" } else { &report.title };
    let (answer, class) = match (report.met, report.thresholds.is_empty()) {
        (_, true) => ("measured, without thresholds", "unknown"),
        (true, false) => ("all thresholds met", "fit"),
        (false, false) => ("thresholds not met", "not_fit"),
    };
    let body = html! {
        h1 { (clean(title)) }
        section class={ "verdict " (class) } {
            p.answer { (answer) }
            p.reason { "Limit: " (report.limit.who) ". " (clean(&report.limit.why)) "." }
            p.best { (utc(report.began.0 as f64 / 1e6)) ", " (format!("{:.1} s", report.seconds)) @if report.interrupted { ", ended early" } }
        }
        @if !report.thresholds.is_empty() {
            h2 { "Thresholds" }
            div.scroll { table {
                thead { tr { th { "threshold" } th { "answer" } th.n { "measured" } } }
                tbody { @for t in &report.thresholds { tr {
                    td { code { (t.threshold.to_string()) } }
                    td { span class={ "pill " (if t.met { "fit" } else { "not_fit" }) } { (if t.met { "met" } else { "not met" }) } }
                    td.n { (t.measured.map_or_else(|| "unknown".to_owned(), number)) }
                } } }
            } }
        }
        h2 { "Plots" }
        div.plots { @for (plot, note) in plots(report)? { (page::figure(&plot, note)) } }
        h2 { "Figures" }
        dl { @for name in Figures::NAMES {
            dt { code { (name) } }
            dd { (report.figures.get(name).map_or_else(|| "unknown".to_owned(), number)) }
        } }
        @if !report.faults.is_empty() {
            h2 { "Faults" }
            div.scroll { table {
                thead { tr { th { "fault" } th { "feed" } th.n { "frame" } th.n { "packet" } th.n { "viewers" } } }
                tbody { @for f in report.faults.iter().take(PARTS_MAX) { tr {
                    td { (f.what.fault.word()) } td { (clean(&f.what.feed)) } td.n { (f.what.frame) }
                    td.n { (f.what.packet.map_or_else(|| "all".to_owned(), |p| p.to_string())) } td.n { (f.viewers) }
                } } }
            } }
        }
    };
    Ok(page::document(title, &body))
}

fn plots(report: &Report) -> Result<Vec<(Plot, &'static str)>, PlotError> {
    let series = |of: fn(&super::figures::Sample) -> Option<f64>| -> Vec<(f64, f64)> {
        report.samples.iter().filter_map(|s| Some((s.at, of(s)?))).collect()
    };
    let (p50, p99) = (series(|s| s.age_p50_ms), series(|s| s.age_p99_ms));
    let ages = [line("p50", Colour::Up, &p50), line("p99", Colour::Down, &p99)];
    let over_time = Axes { title: "Age of frames", x: "seconds", y: "ms", ..Axes::default() };
    let mut out =
        vec![(lines(&over_time, &ages)?, "Capture to the frame's last packet, over all viewers, each second.")];
    let total = report.ages.len().max(1) as f64;
    let mut sum = 0;
    let cdf: Vec<(f64, f64)> = report
        .ages
        .pairs()
        .into_iter()
        .map(|(us, n)| {
            sum += n;
            (us as f64 / 1e3, sum as f64 * 100.0 / total)
        })
        .collect();
    let axes = Axes {
        title: "Age of frames, distribution",
        x: "ms",
        y: "per cent of frames",
        x_max: report.ages.ms(0.999),
        ..Axes::default()
    };
    out.push((lines(&axes, &[line("frames younger than", Colour::Up, &cdf)])?, "Drawn up to the last thousandth."));
    let (viewers, rate) = (series(|s| Some(s.viewers as f64)), series(|s| Some(s.mbit_per_s)));
    let axes = Axes { title: "Viewers and what they receive", x: "seconds", y: "viewers, Mbit/s", ..Axes::default() };
    let both = [line("viewers", Colour::Other, &viewers), line("Mbit/s", Colour::Up, &rate)];
    out.push((lines(&axes, &both)?, "Over all viewers."));
    let lost = series(|s| Some(s.frames_lost as f64));
    let axes = Axes { title: "Frames lost", x: "seconds", y: "frames", ..Axes::default() };
    out.push((lines(&axes, &[line("lost in this second", Colour::Bad, &lost)])?, "Over all viewers."));
    let (own, relay) = (series(|s| Some(s.generator_cpu)), series(|s| s.relay_cpu));
    let axes = Axes { title: "CPU", x: "seconds", y: "per cent of one core", ..Axes::default() };
    let both = [line("generator", Colour::Other, &own), line("relay", Colour::Up, &relay)];
    out.push((lines(&axes, &both)?, "Whoever is full limits what is measured."));
    let rows: Vec<(String, Vec<Option<f64>>)> = spread(&report.viewers);
    let column_s = report.viewers.iter().map(|v| v.seconds.len()).max().unwrap_or(1).div_ceil(PARTS_MAX).max(1);
    let axes = Axes { title: "Largest age by viewer", x: "seconds", y: "ms", ..Axes::default() };
    out.push((
        heat_map(&axes, &rows, column_s as f64)?,
        "The stronger, the older; empty where no frame came or nobody was there.",
    ));
    Ok(out)
}

const fn line<'a>(name: &'a str, colour: Colour, points: &'a [(f64, f64)]) -> Series<'a> {
    Series { name, colour, points, dots: false }
}

/// As many viewers as can be shown, evenly chosen, and as many spans of time.
fn spread(viewers: &[ViewerRow]) -> Vec<(String, Vec<Option<f64>>)> {
    let step = viewers.len().div_ceil(PARTS_MAX).max(1);
    let column = viewers.iter().map(|v| v.seconds.len()).max().unwrap_or(1).div_ceil(PARTS_MAX).max(1);
    let cells = |v: &ViewerRow| {
        let of = |c: &[i32]| c.iter().filter(|a| **a >= 0).max().map(|a| f64::from(*a).max(0.5));
        v.seconds.chunks(column).map(of).collect()
    };
    viewers.iter().step_by(step).map(|v| (format!("{} {}", v.viewer, v.feed), cells(v))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_viewers_and_seconds_as_many_are_shown_as_fit() {
        let row =
            |viewer| ViewerRow { viewer, feed: "f".to_owned(), seconds: vec![-2, -1, 7, 9], ..ViewerRow::default() };
        let few = spread(&[row(0)]);
        assert_eq!(few, [("0 f".to_owned(), vec![None, None, Some(7.0), Some(9.0)])]);
        let many: Vec<ViewerRow> = (0..1_000).map(|v| ViewerRow { seconds: vec![3; 3_000], ..row(v) }).collect();
        let shown = spread(&many);
        assert!(shown.len() <= PARTS_MAX && shown.iter().all(|r| r.1.len() <= PARTS_MAX && r.1.len() > 100));
    }
}
