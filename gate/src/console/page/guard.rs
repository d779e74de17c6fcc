//! Who may reach the page at all, and what becomes of the others: nothing, and they are counted.

use super::Page;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Goes with each act. No website can make a browser send it without asking first, and that question is refused.
pub(super) const SECRET_HEADER: &str = "x-trocar-console";

/// Why a request came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Host is not the address (DNS rebinding).
    Host,
    /// Origin is missing, or another website's.
    Origin,
    /// The secret is missing or wrong.
    Secret,
    /// A method that never acts.
    Method,
    /// A website asked whether it may (CORS preflight).
    Preflight,
    /// Not JSON, or no act: a form of another website, for one.
    Form,
    /// Too many connections.
    Full,
}

impl Refused {
    const ALL: [Self; 7] =
        [Self::Host, Self::Origin, Self::Secret, Self::Method, Self::Preflight, Self::Form, Self::Full];

    const fn status(self) -> StatusCode {
        match self {
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::Origin | Self::Preflight => StatusCode::FORBIDDEN,
            Self::Secret => StatusCode::UNAUTHORIZED,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Form => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Full => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Host => "this page is reached by its address only",
            Self::Origin => "not from this page",
            Self::Secret => "open the link that the gate printed at its start",
            Self::Method => "acts are POST",
            Self::Preflight => "no other website may act here",
            Self::Form => "an act as JSON is right",
            Self::Full => "too many connections",
        }
    }
}

/// How many requests were refused, by cause.
#[derive(Debug, Default)]
pub(crate) struct Refusals([AtomicU64; Refused::ALL.len()]);

impl Refusals {
    pub(super) fn count(&self, why: Refused) {
        if let Some(n) = self.0.get(why as usize) {
            let n = n.fetch_add(1, Ordering::Relaxed) + 1;
            // The first of each cause, and then each time the number has doubled: a flood fills no log.
            if n.is_power_of_two() {
                tracing::warn!(?why, n, "the console's page refused a request");
            }
        }
    }

    #[cfg(test)]
    pub(super) fn of(&self, why: Refused) -> u64 {
        self.0.get(why as usize).map_or(0, |n| n.load(Ordering::Relaxed))
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }
}

/// Stands before every route.
pub(super) async fn guard(State(page): State<Arc<Page>>, request: Request, next: Next) -> Response {
    match check(&page, &request) {
        Ok(()) => next.run(request).await,
        Err(why) => refuse(&page, why),
    }
}

pub(super) fn refuse(page: &Page, why: Refused) -> Response {
    page.shared.refusals.count(why);
    (why.status(), why.words()).into_response()
}

fn check(page: &Page, request: &Request) -> Result<(), Refused> {
    let headers = request.headers();
    // An absolute request target would name a host of its own.
    if only(headers, header::HOST.as_str()) != Some(page.host.as_bytes()) || request.uri().authority().is_some() {
        return Err(Refused::Host);
    }
    let path = request.uri().path();
    match (request.method(), path) {
        (&Method::OPTIONS, _) => Err(Refused::Preflight),
        (&Method::POST, "/act") => {
            from_here(page, headers)?;
            let secret = only(headers, SECRET_HEADER).ok_or(Refused::Secret)?;
            if !page.knows(secret) {
                return Err(Refused::Secret);
            }
            let json = only(headers, header::CONTENT_TYPE.as_str()) == Some(b"application/json");
            if json { Ok(()) } else { Err(Refused::Form) }
        }
        (&Method::GET, "/live") => from_here(page, headers),
        (_, "/act" | "/live") => Err(Refused::Method),
        // The page itself holds no secret and does nothing.
        (&Method::GET | &Method::HEAD, _) => Ok(()),
        _ => Err(Refused::Method),
    }
}

/// Origin is this page's own, and where the browser says more, that too.
fn from_here(page: &Page, headers: &HeaderMap) -> Result<(), Refused> {
    let same = only(headers, header::ORIGIN.as_str()) == Some(page.origin.as_bytes());
    let site = headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin");
    if same && site { Ok(()) } else { Err(Refused::Origin) }
}

/// A header that stands there once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    all.next().is_none().then(|| first.as_bytes())
}
