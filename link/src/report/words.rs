//! The words of a report, in one place: to be read by somebody in a hurry, and to be translated.

pub(super) const LIMIT: &str = "limit of the class";
pub(super) const TITLE: &str = "Is this line fit for surgery?";
pub(super) const FOR: &str = "for";
pub(super) const BEST: &str = "This line is fit for";
pub(super) const BEST_NONE: &str = "This line is fit for none of the classes.";
pub(super) const WHAT_TO_DO: &str = "What to change";
pub(super) const CHECKS: &str = "Every limit";
pub(super) const CLASSES: &str = "Other classes";
pub(super) const PLOTS: &str = "What was measured";
pub(super) const WAYS: &str = "Ways through the network";
pub(super) const LINE: &str = "The line";
pub(super) const RAMP: &str = "Steps of the ramp";
pub(super) const NOT_MEASURED: &str = "What was not measured, and why";
pub(super) const HOW: &str = "How it was measured";
pub(super) const BUSY: &str = "This machine was busy when the measurement began; it may have measured itself.";
pub(super) const ERROR_BARS: &str = "± is the error bar: the truth lies within it. A limit is kept or broken only with the whole \
                                     error bar; where that reaches over the limit, the measurement cannot tell.";
pub(super) const ONE_WAY: &str = "One-way delay compares two clocks; it is as right as the clocks are known";
pub(super) const BEFORE: &str = "before";
pub(super) const AFTER: &str = "after";
pub(super) const COMPARED: &str = "Before and after";
pub(super) const BETTER: &str = "better";
pub(super) const WORSE: &str = "worse";
pub(super) const SAME: &str = "within the error bars";
pub(super) const ONE_SIDE: &str = "measured once only";

/// A plot's title and the sentence below it.
pub(super) struct Caption {
    pub(super) title: &'static str,
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    pub(super) note: &'static str,
}

pub(super) const DELAY_CDF: Caption = Caption {
    title: "One-way delay",
    x: "one-way delay, ms",
    y: "share of packets at or below, %",
    note: "Steep is good: every packet takes as long as the next. A long way to the right at the top is the tail that a hand feels. \
           The slowest packet in a thousand is beyond the edge.",
};
pub(super) const JITTER_CDF: Caption = Caption {
    title: "Jitter",
    x: "delay above the smallest of the run, ms",
    y: "share of packets at or below, %",
    note: "Needs no common clock: what a playout buffer has to hold back.",
};
pub(super) const DELAY_TIME: Caption = Caption {
    title: "Delay and losses over time",
    x: "time, s",
    y: "one-way delay, ms",
    note: "Dots at the bottom are losses. Losses at peaks of the delay: a queue that ran over. Losses without: radio, cable, policer.",
};
pub(super) const BURSTS: Caption = Caption {
    title: "How losses come",
    x: "packets lost in a row",
    y: "how often",
    note: "Single losses are repaired in time; long bursts are not. A second path helps against those.",
};
pub(super) const RATE: Caption = Caption {
    title: "Rate: what was sent and what came",
    x: "sent, Mbit/s of UDP payload",
    y: "came, Mbit/s",
    note: "Where the line leaves the grey diagonal, it is full.",
};
pub(super) const QUEUE: Caption = Caption {
    title: "Queue under load (bufferbloat)",
    x: "sent, Mbit/s of UDP payload",
    y: "delay that built up, p95, ms",
    note: "A queue that grows long before the line is full delays everything on it: shape before the slowest hop.",
};
pub(super) const PATHS: Caption = Caption {
    title: "Two paths",
    x: "",
    y: "packets lost, %",
    note: "What is lost on both at once is lost; the rest costs nothing.",
};

/// Columns, and whether they hold numbers.
pub(super) const CHECK_COLUMNS: [(&str, bool); 6] =
    [("limit", false), ("answer", false), ("measured", true), ("wanted", true), ("margin", true), ("from", false)];

/// Columns, and whether they hold numbers.
pub(super) const CLASS_COLUMNS: [(&str, bool); 3] = [("class", false), ("answer", false), ("because", false)];

/// Columns, and whether they hold numbers.
pub(super) const RAMP_COLUMNS: [(&str, bool); 5] =
    [("direction", false), ("sent, Mbit/s", true), ("came, Mbit/s", true), ("lost, %", true), ("queue p95, ms", true)];

/// Columns, and whether they hold numbers.
pub(super) const WAY_COLUMNS: [(&str, bool); 6] = [
    ("way", false),
    ("answer", false),
    ("stands after, ms", true),
    ("round trip, ms", true),
    ("delay of a picture", false),
    ("detail", false),
];

/// Columns, and whether they hold numbers.
pub(super) const CHANGE_COLUMNS: [(&str, bool); 4] =
    [("figure", false), ("before", true), ("after", true), ("change", false)];

pub(super) const LINE_MTU: &str = "largest UDP payload";
pub(super) const LINE_FAMILY: &str = "addresses";
pub(super) const LINE_OTHER: &str = "the other family gets through";
pub(super) const LINE_MAPPED: &str = "our address as the other end sees it";
pub(super) const LINE_NAT: &str = "address translation (RFC 4787)";
pub(super) const LINE_NAT_LIVES: &str = "a mapping outlives a pause of";
pub(super) const LINE_DSCP: &str = "DSCP mark arrives";
pub(super) const LINE_ECN: &str = "ECN mark arrives";
pub(super) const LINE_SECOND: &str = "second path";
pub(super) const HOW_COMMAND: &str = "command";
pub(super) const HOW_FROM: &str = "from";
pub(super) const HOW_TO: &str = "to";
pub(super) const HOW_WHEN: &str = "when";
pub(super) const HOW_PROGRAM: &str = "program";
pub(super) const HOW_CLOCKS: &str = "clocks";
pub(super) const HOW_LOAD: &str = "load of this machine";
pub(super) const KEPT: &str = "kept";
pub(super) const BROKEN: &str = "broken";
pub(super) const CANNOT_TELL: &str = "cannot tell";
pub(super) const NO_FIGURE: &str = "not measured";
pub(super) const WORKS: &str = "works";
pub(super) const BLOCKED: &str = "blocked";
pub(super) const NOT_TRIED: &str = "not tried";
pub(super) const NO_VERDICT: &str = "no verdict";
