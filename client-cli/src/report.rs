//! `trocar report`: what a measurement of a line found, shown again, judged anew, compared. See docs/REPORTS.md.

use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use trocar_link::classes::Classes;
use trocar_link::report::{self, Report};
use trocar_link::result::{LinkResult, SCHEMA as RESULT_SCHEMA};

/// Largest report that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Show what `trocar link test --json` measured, or compare two of them.
#[derive(clap::Subcommand)]
pub(crate) enum ReportCommand {
    /// Show a report: for a terminal, or as a page, as JUnit, as two lines for a ticket.
    Show {
        /// The report, as `trocar link test --json` wrote it.
        file: PathBuf,
        /// Judge it for another class than the one that it was measured for.
        #[arg(long, value_name = "CLASS")]
        class: Option<String>,
        /// Judge it by a file of classes in place of the built-in ones.
        #[arg(long, value_name = "FILE")]
        classes: Option<PathBuf>,
        /// It was measured at the expert's end: what goes up in a class comes down there. For --class and --classes.
        #[arg(long)]
        at_expert: bool,
        /// Write one page of HTML.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        /// Write the checks as JUnit XML.
        #[arg(long, value_name = "FILE")]
        junit: Option<PathBuf>,
        /// Print the report as JSON.
        #[arg(long, conflicts_with = "ticket")]
        json: bool,
        /// Print two lines for a ticket.
        #[arg(long)]
        ticket: bool,
    },
    /// Compare two measurements of a line: before and after something was changed.
    Compare {
        /// The report from before.
        before: PathBuf,
        /// The report from after.
        after: PathBuf,
        /// Write one page of HTML.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        /// Print the comparison as JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the classes of surgery and what each needs of a line, with the sources.
    Classes {
        /// A file of classes in place of the built-in ones.
        file: Option<PathBuf>,
    },
}

impl ReportCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Show { file, class, classes, at_expert, html, junit, json, ticket } => {
                let report = judged(&file, class.as_deref(), classes.as_deref(), at_expert)?;
                write(html.as_deref(), || Ok(report::html(&report)?))?;
                write(junit.as_deref(), || Ok(report::junit(&report)))?;
                crate::verbs::print(&match (json, ticket) {
                    (true, _) => report::json(&report)? + "\n",
                    (_, true) => report::ticket(&report),
                    _ => report::text(&report),
                })
            }
            Self::Compare { before, after, html, json } => {
                let (before, after) = (read(&before)?, read(&after)?);
                let comparison = report::compare(&before, &after);
                write(html.as_deref(), || Ok(comparison.html(&before, &after)?))?;
                let text = if json { serde_json::to_string_pretty(&comparison)? + "\n" } else { comparison.text() };
                crate::verbs::print(&text)
            }
            Self::Classes { file } => crate::verbs::print(&listed(&read_classes(file.as_deref())?)),
        }
    }
}

/// A report, judged anew where another class or file of classes is given. A bare result has no verdict yet.
fn judged(file: &Path, class: Option<&str>, classes: Option<&Path>, at_expert: bool) -> anyhow::Result<Report> {
    if class.is_none() && classes.is_none() {
        if at_expert {
            bail!("--at-expert: right together with --class or --classes; the report keeps the verdict that it has");
        }
        return read(file);
    }
    let text = read_text(file)?;
    let found = serde_json::from_str::<LinkResult>(&text).ok().filter(|r| r.schema == RESULT_SCHEMA);
    let (result, was) = match found {
        Some(result) => (result, None),
        None => {
            let report = Report::read(&text).with_context(|| file.display().to_string())?;
            (report.result, Some(report.verdict.class))
        }
    };
    let all = read_classes(classes)?;
    let all = if at_expert { all.turned() } else { all };
    let Some(class) = class.or(was.as_deref()) else {
        bail!("{}: a measurement without a verdict; --class says for what it is to be judged", file.display());
    };
    Ok(Report::new(result, &all, class)?)
}

fn read(file: &Path) -> anyhow::Result<Report> {
    Report::read(&read_text(file)?).with_context(|| file.display().to_string())
}

fn read_classes(file: Option<&Path>) -> anyhow::Result<Classes> {
    let Some(file) = file else { return Ok(Classes::built_in()?) };
    Classes::parse(&read_text(file)?).with_context(|| file.display().to_string())
}

fn read_text(file: &Path) -> anyhow::Result<String> {
    let size = std::fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len();
    if size > FILE_BYTES_MAX {
        bail!("{}: {size} bytes, at most {FILE_BYTES_MAX} are right", file.display());
    }
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn write(file: Option<&Path>, text: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<()> {
    let Some(file) = file else { return Ok(()) };
    std::fs::write(file, text()?).with_context(|| format!("cannot write {}", file.display()))
}

/// Name and title of each class, and its limits.
fn listed(classes: &Classes) -> String {
    let mut out = String::new();
    for class in &classes.classes {
        out.push_str(&format!("{}: {}\n  {}\n", class.name, class.title, class.about));
        for t in &class.limits {
            let value = if t.any.is_empty() { t.value.to_string() } else { t.any.join(" or ") };
            out.push_str(&format!("  {:28} {value}\n      {}\n", t.limit.key(), t.source));
        }
        out.push('\n');
    }
    report_lines(&out)
}

/// What a file of classes says is text: no line of it may steer a terminal.
fn report_lines(text: &str) -> String {
    text.lines().map(|l| report::clean(l) + "\n").collect()
}
