//! Stopping on request: SIGINT and SIGTERM, once for an orderly end.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whether the process was asked to stop.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens from now on.
    pub(crate) fn on_signals() -> std::io::Result<Self> {
        let (asked, stop) = watch::channel(false);
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            asked.send_replace(true);
            // Kept until the process ends: a dropped sender would look like a request.
            std::future::pending::<()>().await;
        });
        Ok(Self(stop))
    }

    /// Asked by setting the value, not by a signal.
    pub(crate) fn by_hand() -> (Self, watch::Sender<bool>) {
        let (asked, stop) = watch::channel(false);
        (Self(stop), asked)
    }

    /// Returns when the process was asked to stop.
    pub(crate) async fn requested(&self) {
        let mut stop = self.0.clone();
        if stop.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
