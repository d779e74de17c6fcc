//! Plots as SVG, from plain series. Colours are those of a light page; a style sheet turns them for a dark one, by the value of
//! the attribute ([`Colour`]), so that a plot that is taken out of its page still looks right.

use plotters::chart::MeshStyle;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use std::ops::Range;

/// Points of a series that are drawn. More are thinned evenly.
pub const POINTS_MAX: usize = 2_000;
/// Series of a plot, groups of bars, rows and columns of a heat map: what a person can still read, and what a file from
/// elsewhere may make us draw.
pub const PARTS_MAX: usize = 200;
/// Rows of a heat map whose names are written.
const NAMES_MAX: usize = 25;
/// Larger values are not drawn: axes have no labels for them.
const VALUE_MAX: f64 = 1e12;

const SIZE: (u32, u32) = (540, 290);
const FONT: &str = "system-ui, sans-serif";

/// What a colour means. The style sheet names the same values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Direction up, or after.
    Up,
    /// Direction down.
    Down,
    /// Something to compare with: before, or the ideal.
    Other,
    /// Loss, a limit.
    Bad,
}

impl Colour {
    const fn rgb(self) -> RGBColor {
        match self {
            Self::Up => RGBColor(0x0B, 0x62, 0xB8),
            Self::Down => RGBColor(0xB8, 0x56, 0x0B),
            Self::Other => RGBColor(0x76, 0x82, 0x8E),
            Self::Bad => RGBColor(0xB3, 0x26, 0x1E),
        }
    }

    /// The class of its key in the style sheet.
    #[must_use]
    pub const fn class(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Other => "other",
            Self::Bad => "bad",
        }
    }
}

const INK: RGBColor = RGBColor(0x4A, 0x55, 0x60);
const GRID: RGBColor = RGBColor(0xDD, 0xE3, 0xE8);

/// Why there is no plot.
#[derive(Debug, thiserror::Error)]
#[error("plot {title:?}: {why}")]
pub struct PlotError {
    title: String,
    why: String,
}

/// A drawn plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// One `<svg>` element, well-formed, without scripts and links.
    pub svg: String,
    /// What the colours mean.
    pub legend: Vec<(Colour, String)>,
}

/// Title and axes.
#[derive(Debug, Clone, Default)]
pub struct Axes<'a> {
    /// What the plot shows; read out in place of the picture.
    pub title: &'a str,
    /// The horizontal axis, with its unit.
    pub x: &'a str,
    /// The vertical axis, with its unit.
    pub y: &'a str,
    /// Where the horizontal axis ends, where that is not the largest value.
    pub x_max: Option<f64>,
    /// Where the vertical axis ends, where that is not the largest value.
    pub y_max: Option<f64>,
    /// Thresholds across the horizontal axis.
    pub x_limits: Vec<f64>,
    /// Thresholds across the vertical axis.
    pub y_limits: Vec<f64>,
}

/// One line, or the same points as dots.
#[derive(Debug, Clone)]
pub struct Series<'a> {
    /// For the legend.
    pub name: &'a str,
    /// Its colour.
    pub colour: Colour,
    /// Points, `(x, y)`; what is no number is left out.
    pub points: &'a [(f64, f64)],
    /// Dots instead of a line: things that happened.
    pub dots: bool,
}

type Drawn<T> = Result<T, DrawingAreaErrorKind<std::io::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Lines and dots on two linear axes that begin at 0 or below.
///
/// # Errors
/// Where the backend cannot draw; it writes into memory, so that this is a mistake here.
pub fn lines(axes: &Axes<'_>, series: &[Series<'_>]) -> Result<Plot, PlotError> {
    let thinned: Vec<(&Series<'_>, Vec<(f64, f64)>)> =
        series.iter().take(PARTS_MAX).map(|s| (s, thin(s.points))).filter(|(_, p)| !p.is_empty()).collect();
    let all = || thinned.iter().flat_map(|(_, points)| points.iter());
    let x = range(all().map(|p| p.0).chain(axes.x_limits.iter().copied()), axes.x_max);
    let y = range(all().map(|p| p.1).chain(axes.y_limits.iter().copied()), axes.y_max);
    let svg = draw(axes.title, SIZE, |area| {
        let mut chart = frame(area).build_cartesian_2d(x.0..x.1, y.0..y.1)?;
        let mut grid = chart.configure_mesh();
        grid.x_labels(8).y_labels(8).x_label_formatter(&plain).y_label_formatter(&plain);
        mesh(&mut grid, axes).draw()?;
        for limit in axes.x_limits.iter().filter(|v| (x.0..=x.1).contains(*v)) {
            chart.draw_series(DashedLineSeries::new(
                [(*limit, y.0), (*limit, y.1)],
                6,
                4,
                Colour::Bad.rgb().stroke_width(1),
            ))?;
        }
        for limit in axes.y_limits.iter().filter(|v| (y.0..=y.1).contains(*v)) {
            chart.draw_series(DashedLineSeries::new(
                [(x.0, *limit), (x.1, *limit)],
                6,
                4,
                Colour::Bad.rgb().stroke_width(1),
            ))?;
        }
        for (s, points) in &thinned {
            let inside = points.iter().copied().filter(|p| (x.0..=x.1).contains(&p.0) && (y.0..=y.1).contains(&p.1));
            if s.dots {
                chart.draw_series(inside.map(|p| Circle::new(p, 3, s.colour.rgb().filled())))?;
            } else {
                chart.draw_series(LineSeries::new(inside, s.colour.rgb().stroke_width(2)))?;
            }
        }
        Ok(())
    })?;
    let mut legend: Vec<(Colour, String)> = thinned.iter().map(|(s, _)| (s.colour, s.name.to_owned())).collect();
    if !axes.x_limits.is_empty() || !axes.y_limits.is_empty() {
        legend.push((Colour::Bad, super::words::LIMIT.to_owned()));
    }
    legend.dedup();
    Ok(Plot { title: axes.title.to_owned(), svg, legend })
}

/// Bars in groups: one group per label, one bar per series in each.
///
/// # Errors
/// As [`lines`].
pub fn bars(axes: &Axes<'_>, labels: &[String], series: &[(Colour, &str, Vec<f64>)]) -> Result<Plot, PlotError> {
    let labels: Vec<&String> = labels.iter().take(PARTS_MAX).collect();
    let end = labels.len().max(1) as f64 - 0.5;
    let y = range(series.iter().flat_map(|s| s.2.iter().copied()).chain(axes.y_limits.iter().copied()), axes.y_max);
    let names: Vec<(f64, String)> = labels.iter().enumerate().map(|(i, l)| (i as f64, (*l).clone())).collect();
    let width = 0.8 / series.len().max(1) as f64;
    let svg = draw(axes.title, SIZE, |area| {
        let mut chart = frame(area).build_cartesian_2d(Names { names, range: -0.5..end }, y.0..y.1)?;
        let mut grid = chart.configure_mesh();
        grid.disable_x_mesh();
        mesh(&mut grid, axes).draw()?;
        for (i, (colour, _, values)) in series.iter().enumerate() {
            let bar = |(group, value): (usize, &f64)| {
                let left = group as f64 - 0.4 + width * i as f64;
                Rectangle::new([(left, 0.0), (left + width * 0.9, value.min(y.1))], colour.rgb().filled())
            };
            let shown = values.iter().enumerate().take(labels.len()).filter(|(_, v)| v.is_finite() && **v > 0.0);
            chart.draw_series(shown.map(bar))?;
        }
        Ok(())
    })?;
    let legend = series.iter().map(|(colour, name, _)| (*colour, (*name).to_owned())).collect();
    Ok(Plot { title: axes.title.to_owned(), svg, legend })
}

/// A heat map: one row per name, one column per span of time. The stronger, the larger; none is left empty.
///
/// # Errors
/// As [`lines`].
pub fn heat_map(axes: &Axes<'_>, rows: &[(String, Vec<Option<f64>>)], column_s: f64) -> Result<Plot, PlotError> {
    let rows: Vec<&(String, Vec<Option<f64>>)> = rows.iter().take(PARTS_MAX).collect();
    let columns = rows.iter().map(|r| r.1.len()).max().unwrap_or(0).min(PARTS_MAX);
    let top = rows.iter().flat_map(|r| r.1.iter().flatten()).copied().filter(|v| v.is_finite()).fold(0.0_f64, f64::max);
    let (width, height) = (columns.max(1) as f64 * column_s.max(0.001), rows.len().max(1) as f64);
    let step = rows.len().div_ceil(NAMES_MAX).max(1);
    let name = |(i, row): (usize, &&(String, _))| {
        let short: String = super::clean(&row.0).chars().take(16).collect();
        (height - i as f64 - 0.5, short)
    };
    let names: Vec<(f64, String)> = rows.iter().enumerate().step_by(step).map(name).collect();
    let size = (SIZE.0, 90 + 12 * rows.len().max(4) as u32);
    let svg = draw(axes.title, size, |area| {
        let mut builder = frame(area);
        builder.set_label_area_size(LabelAreaPosition::Left, 150);
        let mut chart = builder.build_cartesian_2d(0.0..width, Names { names, range: 0.0..height })?;
        let mut grid = chart.configure_mesh();
        grid.disable_mesh();
        // Upwards there are names; what the colour says stands below.
        mesh(&mut grid, &Axes { y: "", ..axes.clone() }).draw()?;
        for (i, (_, values)) in rows.iter().enumerate() {
            let y = height - i as f64;
            let cells = values.iter().take(columns).enumerate().filter_map(|(c, v)| {
                let share = v.filter(|v| v.is_finite())? / top.max(f64::MIN_POSITIVE);
                let left = c as f64 * width / columns.max(1) as f64;
                let right = left + width / columns.max(1) as f64;
                let colour = Colour::Up.rgb().mix(0.08 + 0.92 * share.clamp(0.0, 1.0));
                Some(Rectangle::new([(left, y - 0.04), (right, y - 0.96)], colour.filled()))
            });
            chart.draw_series(cells)?;
        }
        Ok(())
    })?;
    let legend = vec![(Colour::Up, format!("0 to {} {}", crate::classes::number(top), axes.y))];
    Ok(Plot { title: axes.title.to_owned(), svg, legend })
}

fn draw(title: &str, size: (u32, u32), paint: impl FnOnce(&Area<'_>) -> Drawn<()>) -> Result<String, PlotError> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let done = paint(&area).and_then(|()| area.present());
        done.map_err(|e| PlotError { title: title.to_owned(), why: e.to_string() })?;
    }
    Ok(svg)
}

fn frame<'a, 'b>(area: &'a Area<'b>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut chart = ChartBuilder::on(area);
    chart.margin(6).margin_right(16).x_label_area_size(50).y_label_area_size(72);
    chart
}

/// A tick's label: three digits, and none that says nothing.
fn plain(value: &f64) -> String {
    crate::classes::number(*value)
}

/// An axis that has names in places of ticks.
struct Names {
    names: Vec<(f64, String)>,
    range: Range<f64>,
}

impl Ranged for Names {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, _: H) -> Vec<f64> {
        self.names.iter().map(|n| n.0).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Names {
    fn format(_: &f64) -> String {
        String::new()
    }

    fn format_ext(&self, value: &f64) -> String {
        self.names.iter().find(|n| n.0 == *value).map_or_else(String::new, |n| n.1.clone())
    }
}

/// The look of all axes.
fn mesh<'m, 'a, 'b, 'c, X, Y>(
    style: &'m mut MeshStyle<'a, 'b, X, Y, SVGBackend<'c>>,
    axes: &Axes<'_>,
) -> &'m mut MeshStyle<'a, 'b, X, Y, SVGBackend<'c>>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    style
        .x_desc(super::clean(axes.x))
        .y_desc(super::clean(axes.y))
        .axis_style(GRID)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style((FONT, 18, &INK))
        .axis_desc_style((FONT, 18, &INK))
}

/// From 0, or the smallest, to a little above the largest; never empty.
fn range(values: impl Iterator<Item = f64>, end: Option<f64>) -> (f64, f64) {
    let sound = |v: &f64| v.is_finite() && v.abs() <= VALUE_MAX;
    let (low, high) = values.filter(sound).fold((0.0_f64, 0.0_f64), |(l, h), v| (l.min(v), h.max(v)));
    let high = end.filter(sound).unwrap_or(high + (high - low) * 0.05);
    if high - low > 1e-9 { (low, high) } else { (low, low + 1.0) }
}

fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(POINTS_MAX).max(1);
    let sound = |v: f64| v.is_finite() && v.abs() <= VALUE_MAX;
    points.iter().step_by(step).copied().filter(|p| sound(p.0) && sound(p.1)).collect()
}
