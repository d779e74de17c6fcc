//! OTLP over HTTP in its JSON form (OpenTelemetry Protocol 1.x, "OTLP/HTTP", JSON Protobuf encoding): ids in hexadecimal, times as strings of
//! nanoseconds.

use super::{Step, Trace, TracesConfig};
use crate::figures::{Figures, ReasonLabels};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Longest wait for the collector.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Traces in one request.
const BATCH: usize = 64;
/// `SPAN_KIND_SERVER` and `SPAN_KIND_INTERNAL`.
const SERVER: u8 = 2;
const INTERNAL: u8 = 1;

/// Sends traces to a collector.
pub(crate) struct Exporter {
    http: reqwest::Client,
    url: String,
    service_name: String,
    traces: mpsc::Receiver<Trace>,
}

impl Exporter {
    /// None where the system's list of authorities cannot be read.
    pub(crate) fn new(config: &TracesConfig, traces: mpsc::Receiver<Trace>) -> Option<Self> {
        Some(Self {
            http: crate::outgoing::client(None, TIMEOUT)?,
            url: format!("{}/v1/traces", config.endpoint.trim_end_matches('/')),
            service_name: config.service_name.clone(),
            traces,
        })
    }

    /// Until the server stops. What a collector does not take is not kept.
    pub(crate) async fn run(mut self, figures: Arc<Figures>) {
        let mut batch = Vec::new();
        while self.traces.recv_many(&mut batch, BATCH).await > 0 {
            let count = batch.len() as u64;
            match self.send(&batch).await {
                Ok(()) => drop(figures.traces_sent.inc_by(count)),
                Err(reason) => {
                    figures.traces_dropped.get_or_create(&ReasonLabels { reason: "failed" }).inc_by(count);
                    tracing::info!(reason, "traces were not taken");
                }
            }
            batch.clear();
        }
    }

    async fn send(&self, traces: &[Trace]) -> Result<(), String> {
        let body = request(traces, &self.service_name).ok_or("no random numbers")?;
        let answer = self.http.post(&self.url).json(&body).send().await.map_err(|e| e.without_url().to_string())?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("HTTP {}", answer.status().as_u16())) }
    }
}

/// `ExportTraceServiceRequest`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans {
    resource: Resource,
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Debug, Serialize)]
struct Resource {
    attributes: Vec<KeyValue>,
}

#[derive(Debug, Serialize)]
struct ScopeSpans {
    scope: Scope,
    spans: Vec<Span>,
}

#[derive(Debug, Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Span {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: &'static str,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<KeyValue>,
}

#[derive(Debug, Serialize)]
struct KeyValue {
    key: &'static str,
    value: AnyValue,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AnyValue {
    string_value: String,
}

/// The request for these traces; none where there are no random numbers for their ids.
fn request(traces: &[Trace], service_name: &str) -> Option<Request> {
    let mut spans = Vec::new();
    for trace in traces {
        let (trace_id, root) = (drawn::<16>()?, drawn::<8>()?);
        spans.push(span(&trace_id, root.clone(), None, &trace.whole, &trace.attributes));
        for step in &trace.steps {
            spans.push(span(&trace_id, drawn::<8>()?, Some(root.clone()), step, &[]));
        }
    }
    let scope = Scope { name: "trocar-signaling", version: env!("CARGO_PKG_VERSION") };
    let resource = Resource { attributes: vec![pair("service.name", service_name)] };
    Some(Request { resource_spans: vec![ResourceSpans { resource, scope_spans: vec![ScopeSpans { scope, spans }] }] })
}

fn span(
    trace: &str,
    span_id: String,
    parent_span_id: Option<String>,
    step: &Step,
    attributes: &[(&'static str, String)],
) -> Span {
    let nanos = |us: u64| us.saturating_mul(1_000).to_string();
    Span {
        trace_id: trace.to_owned(),
        span_id,
        kind: if parent_span_id.is_none() { SERVER } else { INTERNAL },
        parent_span_id,
        name: step.name,
        start_time_unix_nano: nanos(step.begin.0),
        end_time_unix_nano: nanos(step.end.0),
        attributes: attributes.iter().map(|(key, value)| pair(key, value)).collect(),
    }
}

fn pair(key: &'static str, value: &str) -> KeyValue {
    KeyValue { key, value: AnyValue { string_value: value.to_owned() } }
}

fn drawn<const N: usize>() -> Option<String> {
    let mut bytes = [0_u8; N];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use trocar_proto::units::WallMicros;

    fn trace() -> Trace {
        let step = |name, begin, end| Step { name, begin: WallMicros(begin), end: WallMicros(end) };
        Trace {
            whole: step("join", 1_000_000, 3_000_000),
            attributes: vec![("trocar.role", "expert".to_owned())],
            steps: vec![step("connect", 1_500_000, 2_000_000)],
        }
    }

    /// Field by field as the protocol's JSON has it.
    #[test]
    fn a_trace_is_written_as_the_protocols_json() {
        let json = serde_json::to_value(request(&[trace()], "or-1").unwrap()).unwrap();
        let at = |pointer: &str| json.pointer(pointer).cloned().unwrap_or(Value::Null);
        assert_eq!(at("/resourceSpans/0/resource/attributes/0/key"), "service.name");
        assert_eq!(at("/resourceSpans/0/resource/attributes/0/value/stringValue"), "or-1");
        let (root, child) = (at("/resourceSpans/0/scopeSpans/0/spans/0"), at("/resourceSpans/0/scopeSpans/0/spans/1"));
        assert_eq!((root["name"].as_str(), child["name"].as_str()), (Some("join"), Some("connect")));
        assert_eq!(root["startTimeUnixNano"], "1000000000");
        assert_eq!(child["endTimeUnixNano"], "2000000000");
        assert_eq!(
            (root["traceId"].as_str().map(str::len), root["spanId"].as_str().map(str::len)),
            (Some(32), Some(16))
        );
        assert_eq!((&child["traceId"], &child["parentSpanId"]), (&root["traceId"], &root["spanId"]));
        assert!(root.get("parentSpanId").is_none() && root["spanId"] != child["spanId"]);
        assert_eq!((root["kind"].as_u64(), child["kind"].as_u64()), (Some(2), Some(1)));
    }

    #[test]
    fn a_collector_is_https_or_on_this_machine() {
        let check = |endpoint: &str| {
            TracesConfig { endpoint: endpoint.to_owned(), service_name: "trocar".to_owned() }.check().is_ok()
        };
        for good in ["http://127.0.0.1:4318", "http://[::1]:4318", "http://localhost:4318/", "https://otel.example"] {
            assert!(check(good), "{good}");
        }
        for bad in ["http://otel.example", "127.0.0.1:4318", "", "ftp://localhost"] {
            assert!(!check(bad), "{bad}");
        }
    }
}
