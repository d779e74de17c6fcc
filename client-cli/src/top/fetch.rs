//! Asking a server for its figures, and keeping what it said last.

use super::history::History;
use super::reading::Reading;
use super::rows::Figures;
use super::text::parse;
use crate::net::api::Api;
use crate::net::tls::{https_client, metrics_url, read_chain};
use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use trocar_proto::session::api::SessionInfo;
use trocar_proto::session::problem::Problem;
use url::Url;

/// An answer that takes longer is none.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest answer that is read, in bytes: thousands of legs fit.
const LONGEST: usize = 16 << 20;
/// How often the session is looked at, where an invitation is given.
const SESSION_EVERY: Duration = Duration::from_secs(5);

/// Where figures are asked for.
#[derive(Clone)]
pub(super) struct Source {
    http: reqwest::Client,
    url: Url,
}

impl Source {
    /// Nothing is asked yet. A URL without a path means `/metrics`.
    pub(super) fn new(url: &Url, ca: Option<&Path>) -> anyhow::Result<Self> {
        if !matches!(url.scheme(), "http" | "https") {
            bail!("--metrics {url}: a URL like http://127.0.0.1:8080/metrics is right");
        }
        let trust = match ca {
            Some(file) => read_chain(file).context("--ca")?,
            None if url.scheme() == "https" => bail!("--ca FILE is needed for an https URL of --metrics"),
            None => Vec::new(),
        };
        let http = https_client(&trust, TIMEOUT)?;
        let url = metrics_url(url);
        Ok(Self { http, url })
    }

    /// What is asked.
    pub(super) const fn url(&self) -> &Url {
        &self.url
    }

    /// One answer, or in a few words why there is none.
    pub(super) async fn read(&self) -> Result<Reading, String> {
        let mut response = self.http.get(self.url.clone()).send().await.map_err(|e| in_words(&e))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|e| in_words(&e))? {
            if body.len() + part.len() > LONGEST {
                return Err(format!("the answer is longer than {} MiB", LONGEST >> 20));
            }
            body.extend_from_slice(&part);
        }
        let at = Instant::now();
        if !status.is_success() {
            let problem = serde_json::from_slice::<Problem>(&body).ok();
            return Err(problem.map_or_else(|| format!("HTTP {status}"), |p| format!("{}: {}", p.title, p.detail)));
        }
        let text = String::from_utf8(body).map_err(|_| "the answer is not text".to_owned())?;
        let samples = parse(&text).map_err(|e| e.to_string())?;
        Reading::new(at, samples).ok_or_else(|| "the answer has no figures of Trocar".to_owned())
    }
}

fn in_words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", TIMEOUT.as_secs());
    }
    // The innermost cause says what happened ("connection refused").
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Known {
    history: History,
    /// Why the last attempt failed, and when the first of the failed ones in a row began.
    pub(super) failing: Option<(Instant, String)>,
    /// The session, where an invitation was given and signaling answers.
    pub(super) session: Option<SessionInfo>,
}

impl Known {
    /// Takes an answer, or why there was none.
    pub(super) fn take(&mut self, asked: Instant, answer: Result<Reading, String>) {
        match answer {
            Ok(reading) => {
                if self.failing.take().is_some() {
                    self.history.clear();
                }
                self.history.add(reading);
            }
            Err(why) => {
                let since = self.failing.take().map_or(asked, |(since, _)| since);
                self.failing = Some((since, why));
            }
        }
    }

    /// What the readings say together.
    pub(super) fn figures(&self) -> Option<Figures> {
        self.history.figures()
    }

    /// Whether rates are over as long a time as they ever will be.
    pub(super) fn is_full(&self) -> bool {
        self.history.is_full()
    }

    /// What is to be said in large words.
    pub(super) fn alarms(&self) -> Vec<String> {
        self.figures().map_or_else(Vec::new, |figures| super::alarm::break_glass(&figures, self.session.as_ref()))
    }

    /// What each feed of the session is, in a few words, by its name.
    pub(super) fn feeds_in_words(&self) -> BTreeMap<String, String> {
        let Some(session) = &self.session else { return BTreeMap::new() };
        let words = session.feeds.iter().map(|f| {
            let d = &f.descriptor;
            let size = if d.width > 0 { format!(" {}x{}@{:.0}", d.width, d.height, d.fps) } else { String::new() };
            let by = session.participants.iter().find(|p| p.participant == f.publisher);
            let by = by.map_or_else(String::new, |p| format!(" {}", p.name));
            (d.feed.to_string(), format!("{}{size}{by}", d.codec))
        });
        words.collect()
    }
}

/// [`Known`], with whoever asks and whoever draws.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Known>>);

impl Shared {
    /// Held for as long as a look takes.
    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks again and again, until dropped. Loss policy: while an answer is waited for, nothing else is asked.
    pub(super) async fn keep_asking(self, source: Source, interval: Duration) {
        let mut tick = tokio::time::interval(interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.ask(&source).await;
        }
    }

    /// Asks once.
    pub(super) async fn ask(&self, source: &Source) {
        let asked = Instant::now();
        let answer = source.read().await;
        self.lock().take(asked, answer);
    }

    /// Looks at the session again and again, until dropped. What cannot be had is forgotten, so that it never looks new.
    pub(super) async fn keep_looking(self, api: Api) {
        loop {
            let session = api.session().await;
            if let Err(error) = &session
                && error.downcast_ref::<crate::net::api::Refused>().is_some_and(|r| r.0.status == 401)
            {
                // Forgotten meanwhile; the next look is as somebody new. Where that fails the one after tries again.
                let _ = api.rejoin().await;
            }
            self.lock().session = session.ok();
            tokio::time::sleep(SESSION_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at: Instant) -> Reading {
        Reading::new(at, parse("trocar_signaling_sessions 1\n").unwrap()).unwrap()
    }

    #[test]
    fn a_failure_keeps_its_first_time_and_the_next_answer_begins_a_new_history() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut k = Known::default();
        k.take(at(0), Ok(reading(at(0))));
        k.take(at(1), Ok(reading(at(1))));
        assert_eq!(k.figures().unwrap().window, Duration::from_secs(1));
        k.take(at(2), Err("connection refused".to_owned()));
        k.take(at(3), Err("no route".to_owned()));
        assert_eq!(k.failing, Some((at(2), "no route".to_owned())));
        assert_eq!(k.figures().unwrap().at, at(1), "the last figures stay, with their age");
        k.take(at(60), Ok(reading(at(60))));
        assert!(k.failing.is_none());
        assert_eq!(k.figures().unwrap().window, Duration::ZERO);
    }
}
