//! The task that calls one receiver.

use super::Message;
use crate::config::{ConfigError, Webhook};
use crate::figures::{Figures, ReasonLabels};
use aws_lc_rs::hmac;
use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// How long one call may take, from the connection to the end of the answer's head.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Waits between the attempts; after the last attempt the message is dropped.
const RETRY_AFTER: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(120)];

/// Calls one receiver, message by message.
pub(crate) struct Courier {
    http: reqwest::Client,
    url: String,
    /// What the log calls the receiver: the rest of its address may be a secret.
    host: String,
    key: hmac::Key,
    messages: mpsc::Receiver<Message>,
    pauses: [Duration; 4],
}

impl Courier {
    pub(super) fn new(webhook: &Webhook, messages: mpsc::Receiver<Message>) -> Result<Self, ConfigError> {
        let http = crate::outgoing::client(None, CALL_TIMEOUT).ok_or(ConfigError {
            field: "webhook.url",
            expected: "a system with a list of certificate authorities that can be read",
        })?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &webhook.secret);
        Ok(Self { http, url: webhook.url.clone(), host: host_of(&webhook.url), key, messages, pauses: RETRY_AFTER })
    }

    /// The same courier without a pause between its attempts.
    #[cfg(test)]
    pub(crate) fn hurried(self) -> Self {
        Self { pauses: [Duration::ZERO; 4], ..self }
    }

    /// Until the server stops.
    pub(crate) async fn run(mut self, figures: Arc<Figures>) {
        while let Some(message) = self.messages.recv().await {
            if self.deliver(&message).await {
                figures.webhooks_sent.inc();
            } else {
                figures.webhooks_dropped.get_or_create(&ReasonLabels { reason: "failed" }).inc();
                tracing::warn!(
                    host = self.host,
                    id = message.id,
                    "a webhook message was dropped after its last attempt"
                );
            }
        }
    }

    /// Calls until the receiver takes the message; false where it never did.
    async fn deliver(&self, message: &Message) -> bool {
        for pause in self.pauses.into_iter().map(Some).chain([None]) {
            match self.call(message).await {
                Ok(()) => return true,
                Err(reason) => tracing::info!(host = self.host, id = message.id, reason, "a webhook call failed"),
            }
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
        false
    }

    async fn call(&self, message: &Message) -> Result<(), String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let request = self
            .http
            .post(&self.url)
            .header("content-type", "application/json")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", sign(&self.key, &message.id, now, &message.body))
            .body(message.body.clone());
        // The error's own text would repeat the address, which may hold a secret path.
        let answer = request.send().await.map_err(|e| e.without_url().to_string())?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("HTTP {}", answer.status().as_u16())) }
    }
}

/// Host and port of an address.
fn host_of(url: &str) -> String {
    let uri: Option<Uri> = url.parse().ok();
    uri.and_then(|u| Some(u.authority()?.as_str().rsplit('@').next()?.to_owned())).unwrap_or_default()
}

/// `webhook-signature`: `v1,` and the base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`.
fn sign(key: &hmac::Key, id: &str, timestamp_s: u64, body: &str) -> String {
    let tag = hmac::sign(key, format!("{id}.{timestamp_s}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(tag.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Log(Arc<std::sync::Mutex<String>>);

    impl tracing::Subscriber for Log {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.target().starts_with("trocar_signaling")
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            let mut log = self.0.lock().unwrap();
            event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
                *log += &format!("{field}={value:?} ");
            });
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[tokio::test]
    async fn the_log_names_the_host_of_a_receiver_and_not_its_secret_path() {
        let log = Log::default();
        let _guard = tracing::subscriber::set_default(log.clone());
        let (queue, messages) = mpsc::channel(1);
        // Nobody listens there.
        let url = "http://127.0.0.1:9/services/SECRET?token=SECRET".to_owned();
        let webhook = Webhook { url, secret: vec![1; 32], events: Vec::new() };
        let courier = Courier::new(&webhook, messages).unwrap().hurried();
        queue.send(Message { id: "msg_1".to_owned(), body: "{}".to_owned() }).await.unwrap();
        drop(queue);
        courier.run(Arc::new(Figures::default())).await;
        let logged = log.0.lock().unwrap().clone();
        assert_eq!(logged.matches("host=\"127.0.0.1:9\"").count(), 6, "{logged}");
        assert!(logged.contains("failed") && logged.contains("dropped") && !logged.contains("SECRET"), "{logged}");
    }

    /// The example of the Standard Webhooks specification's reference libraries.
    #[test]
    fn the_signature_is_that_of_the_standard() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let body = "{\"test\": 2432232314}";
        assert_eq!(
            sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }
}
