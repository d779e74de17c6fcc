//! The task that calls one receiver.

use super::Message;
use crate::config::{ConfigError, Webhook};
use crate::figures::{Figures, ReasonLabels};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::redirect::Policy;
use rustls_platform_verifier::BuilderVerifierExt as _;
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
    key: hmac::Key,
    messages: mpsc::Receiver<Message>,
    pauses: [Duration; 4],
}

impl Courier {
    pub(super) fn new(webhook: &Webhook, messages: mpsc::Receiver<Message>) -> Result<Self, ConfigError> {
        let http = client().ok_or(ConfigError {
            field: "webhook.url",
            expected: "a system with a list of certificate authorities that can be read",
        })?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &webhook.secret);
        Ok(Self { http, url: webhook.url.clone(), key, messages, pauses: RETRY_AFTER })
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
                tracing::warn!(url = self.url, id = message.id, "a webhook message was dropped after its last attempt");
            }
        }
    }

    /// Calls until the receiver takes the message; false where it never did.
    async fn deliver(&self, message: &Message) -> bool {
        for pause in self.pauses.into_iter().map(Some).chain([None]) {
            match self.call(message).await {
                Ok(()) => return true,
                Err(reason) => tracing::info!(url = self.url, id = message.id, reason, "a webhook call failed"),
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

/// `webhook-signature`: `v1,` and the base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`.
fn sign(key: &hmac::Key, id: &str, timestamp_s: u64, body: &str) -> String {
    let tag = hmac::sign(key, format!("{id}.{timestamp_s}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(tag.as_ref()))
}

/// A client that trusts the authorities of the system, follows no redirect and uses no proxy.
fn client() -> Option<reqwest::Client> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .with_platform_verifier()
        .ok()?
        .with_no_client_auth();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls).redirect(Policy::none()).no_proxy();
    builder.timeout(CALL_TIMEOUT).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
