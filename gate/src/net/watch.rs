//! The thread that looks at the trust list, for channels and for the frames' listener: a runtime that is busy does not delay a
//! revocation.

use super::state::Shared;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use trocar_control::trust::{Trust, TrustList};

/// Between looks at the files (HO-M-021: a revoked certificate ends REMOTE within 1 s after its list reached the gate).
const EVERY: Duration = Duration::from_millis(250);

/// Runs until nobody else holds what it watches for. What holds is told to `shared` and to whoever has the receiver.
pub(super) fn start(list: TrustList, shared: Weak<Shared>) -> io::Result<watch::Receiver<Arc<Trust>>> {
    let (sender, receiver) = watch::channel(list.current());
    let thread = std::thread::Builder::new().name("gate-trust".to_owned());
    thread.spawn(move || follow(list, &shared, &sender)).map(|_| receiver)
}

fn follow(mut list: TrustList, shared: &Weak<Shared>, told_to: &watch::Sender<Arc<Trust>>) {
    let mut told = String::new();
    loop {
        std::thread::sleep(EVERY);
        let Some(shared) = shared.upgrade() else { return };
        match list.reload() {
            Ok(true) => {
                told.clear();
                let trust = list.current();
                tracing::info!(revocation_lists = trust.revocation_lists(), "trust list loaded anew");
                told_to.send_replace(Arc::clone(&trust));
                shared.trust_changed(trust);
            }
            Ok(false) => {}
            Err(e) if e.to_string() != told => {
                told = e.to_string();
                tracing::error!(error = %told, "trust list: the former one stays in force");
            }
            Err(_) => {}
        }
        shared.tidy();
    }
}
