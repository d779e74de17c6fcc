//! The page for a browser on this machine. It listens on a loopback address only, and that alone is no protection: any website that the
//! same browser has open can send requests there, and any other program on this machine too. So:
//!
//! - each run draws a secret; it stands in the link's fragment, which no browser sends, and goes with each act in a header of its own
//!   (no cookie, which would travel by itself and to every port of the address);
//! - Host must be the address itself, so that no name that was bound to it anew (DNS rebinding) reaches anything;
//! - Origin must be this page's own on everything that acts or is live;
//! - acts are POST with JSON; nothing else acts.
//!
//! What does not fit is refused, counted and told (HO-X-021).

mod guard;
mod live;
mod routes;

#[cfg(test)]
mod tests;

pub(super) use guard::Refusals;

use super::{ConsoleError, Shared};
use crate::fail_stop::{self, Asked};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Connections at a time; more are closed at once.
const CONNECTIONS: usize = 32;
/// For the head of a request.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// Between two looks at whether the console is to end.
const LOOK: Duration = Duration::from_millis(100);

/// What each request sees.
#[derive(Debug)]
struct Page {
    shared: Shared,
    /// What Host must be: the address and port.
    host: String,
    /// What Origin must be.
    origin: String,
    secret: String,
    /// Live connections at a time.
    lives: Arc<Semaphore>,
}

impl Page {
    /// Whether somebody knows this run's secret. Takes as long whatever is wrong.
    fn knows(&self, secret: &[u8]) -> bool {
        verify_slices_are_equal(secret, self.secret.as_bytes()).is_ok()
    }
}

/// Listens, and serves on a thread of its own. Returns the address and the link.
pub(super) fn start(
    at: SocketAddr,
    link_file: Option<&Path>,
    shared: Shared,
) -> Result<(SocketAddr, String), ConsoleError> {
    let listen = |source| ConsoleError::Listen { at, source };
    let listener = TcpListener::bind(at).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    if !bound.ip().is_loopback() {
        return Err(listen(io::Error::other("not a loopback address")));
    }
    let mut random = [0; 32];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| ConsoleError::Random)?;
    let secret = URL_SAFE_NO_PAD.encode(random);
    let link = format!("http://{bound}/#{secret}");
    if let Some(path) = link_file {
        write_link(path, &link).map_err(|source| ConsoleError::Link { path: path.to_owned(), source })?;
    }
    let (host, origin) = (bound.to_string(), format!("http://{bound}"));
    let page = Page { shared, host, origin, secret, lives: Arc::new(Semaphore::new(live::MOST)) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ConsoleError::Thread)?;
    let serving = move || runtime.block_on(serve(listener, Arc::new(page))).map_err(|e| e.to_string());
    fail_stop::spawn("trocar-page", serving).map_err(ConsoleError::Thread)?;
    Ok((bound, link))
}

/// Readable by this user only, from its first moment on.
fn write_link(path: &Path, link: &str) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{link}")
}

async fn serve(listener: TcpListener, page: Arc<Page>) -> io::Result<Asked> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let router = routes::router(page.clone());
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut look = tokio::time::interval(LOOK);
    loop {
        let accepted = tokio::select! {
            _ = look.tick() => {
                if page.shared.is_over() {
                    return Ok(Asked);
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            page.shared.refusals.count(guard::Refused::Full);
            continue;
        };
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                // Without a timer the header timeout does nothing.
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME)
                .max_headers(64)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            let _ = connection.await;
            drop(place);
        });
    }
}
