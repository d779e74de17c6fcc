//! Signaling's own figures, in OpenMetrics text.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Labels of a request. Routes are templates and methods a fixed set, so that no client can make new series.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) route: String,
    pub(crate) method: &'static str,
    pub(crate) status: u16,
}

/// Label of a refusal: the problem's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ProblemLabels {
    pub(crate) problem: &'static str,
}

/// Label of something that was not served: a connection, a socket, a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabels {
    pub(crate) reason: &'static str,
}

/// All counters and gauges. Cheap to bump from anywhere.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) requests: Family<RequestLabels, Counter>,
    pub(crate) problems: Family<ProblemLabels, Counter>,
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Family<ReasonLabels, Counter>,
    pub(crate) joins: Counter,
    pub(crate) break_glass_joins: Counter,
    pub(crate) break_glass: Gauge,
    pub(crate) break_glass_unreviewed: Gauge,
    pub(crate) break_glass_oldest_s: Gauge,
    pub(crate) sockets: Gauge,
    pub(crate) sockets_closed: Family<ReasonLabels, Counter>,
    pub(crate) captures_sent: Counter,
    pub(crate) captures_dropped: Counter,
    pub(crate) control_dropped: Counter,
    pub(crate) control_probes_dropped: Counter,
    pub(crate) sessions: Gauge,
    pub(crate) participants: Gauge,
    pub(crate) feeds: Gauge,
    pub(crate) legs: Gauge,
    pub(crate) publications: Gauge,
    pub(crate) records_dropped: Counter,
    pub(crate) denials_not_recorded: Counter,
    pub(crate) gate_audit_alarms: Counter,
    pub(crate) export_waiting: Gauge,
    pub(crate) export_oldest_s: Gauge,
    pub(crate) export_failing: Gauge,
    pub(crate) export_confirmed: Counter,
    pub(crate) export_failures: Family<ReasonLabels, Counter>,
    pub(crate) clock_known: Gauge,
    pub(crate) clock_offset_us: Gauge,
    pub(crate) traces_sent: Counter,
    pub(crate) traces_dropped: Family<ReasonLabels, Counter>,
    pub(crate) webhooks_sent: Counter,
    pub(crate) webhooks_dropped: Family<ReasonLabels, Counter>,
    pub(crate) certificates_unusable: Gauge,
}

impl Figures {
    /// All of it as text, without the closing `# EOF`.
    pub(crate) fn render(&self) -> String {
        let mut registry = Registry::with_prefix("trocar_signaling");
        registry.register("http_requests", "Requests answered", self.requests.clone());
        registry.register("problems", "Requests refused, by problem", self.problems.clone());
        registry.register("connections", "Connections open now", self.connections.clone());
        registry.register("connections_refused", "Connections not served", self.connections_refused.clone());
        registry.register("joins", "Invitations redeemed", self.joins.clone());
        self.register_break_glass(&mut registry);
        registry.register("event_sockets", "Event sockets open now", self.sockets.clone());
        registry.register("event_sockets_closed", "Event sockets closed by the server", self.sockets_closed.clone());
        registry.register("capture_events", "Capture events queued to viewers", self.captures_sent.clone());
        registry.register("capture_events_dropped", "Capture events dropped", self.captures_dropped.clone());
        registry.register(
            "control_events_dropped",
            "STATUS of a gate not queued to a client that reads slowly",
            self.control_dropped.clone(),
        );
        registry.register(
            "control_probes_dropped",
            "Clients' probes not passed on: too fast, or no gate",
            self.control_probes_dropped.clone(),
        );
        registry.register("sessions", "Sessions open now", self.sessions.clone());
        registry.register("participants", "Participants seen by others now", self.participants.clone());
        registry.register("feeds", "Feeds now", self.feeds.clone());
        registry.register("legs", "Legs now", self.legs.clone());
        registry.register("publications", "WHIP publications now", self.publications.clone());
        registry.register("traces", "Traces that the collector took", self.traces_sent.clone());
        registry.register("traces_dropped", "Traces dropped", self.traces_dropped.clone());
        registry.register("webhooks", "Webhook messages that were taken", self.webhooks_sent.clone());
        registry.register("webhooks_dropped", "Webhook messages dropped", self.webhooks_dropped.clone());
        registry.register(
            "audit_records_dropped",
            "Audit records that were not written, as the chain says too",
            self.records_dropped.clone(),
        );
        registry.register(
            "denials_not_recorded",
            "Denials counted and not recorded, too many at once",
            self.denials_not_recorded.clone(),
        );
        self.register_export(&mut registry);
        registry.register("clock_known", "Whether chrony says how right the clock is", self.clock_known.clone());
        registry.register(
            "clock_offset_microseconds",
            "How far the clock is off, as chrony says",
            self.clock_offset_us.clone(),
        );
        registry.register(
            "certificates_unusable",
            "1 while new files of certificates or keys cannot be used and the former are in force",
            self.certificates_unusable.clone(),
        );
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &registry) {
            tracing::error!(%error, "figures could not be rendered");
        }
        without_eof(&text).to_owned()
    }
}

impl Figures {
    /// Who came in without a login, in an emergency.
    fn register_break_glass(&self, registry: &mut Registry) {
        registry.register(
            "break_glass_joins",
            "Invitations redeemed by break-glass, without the login that was asked for",
            self.break_glass_joins.clone(),
        );
        registry.register("break_glass_participants", "Participants who came in so", self.break_glass.clone());
        registry.register(
            "break_glass_unreviewed",
            "Break-glass joins that nobody has reviewed",
            self.break_glass_unreviewed.clone(),
        );
        registry.register("break_glass_oldest_seconds", "Age of the oldest of them", self.break_glass_oldest_s.clone());
    }

    /// What is said of the audit repository, and of gates' chains.
    fn register_export(&self, registry: &mut Registry) {
        registry.register(
            "gate_audit_alarms",
            "Gates' audit chains that were not taken: forked, cut or changed",
            self.gate_audit_alarms.clone(),
        );
        registry.register(
            "audit_export_waiting",
            "Audit records that the repository is not known to have",
            self.export_waiting.clone(),
        );
        registry.register(
            "audit_export_oldest_seconds",
            "Age of the oldest of them when it was looked at last",
            self.export_oldest_s.clone(),
        );
        registry.register(
            "audit_export_failing",
            "Whether the last batch did not get to the repository",
            self.export_failing.clone(),
        );
        registry.register(
            "audit_export_confirmed",
            "Audit records that the repository can be believed to have",
            self.export_confirmed.clone(),
        );
        registry.register(
            "audit_export_failures",
            "Batches that did not get there, by reason",
            self.export_failures.clone(),
        );
    }
}

/// OpenMetrics text without the line that ends it, so that another text can follow.
pub(crate) fn without_eof(text: &str) -> &str {
    text.trim_end().strip_suffix("# EOF").unwrap_or(text)
}
