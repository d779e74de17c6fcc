//! What a person does to the device: signals, lines, keys. They only set flags that the device's loop looks at.

use std::io::{self, BufRead as _, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use tokio::signal::unix::{SignalKind, signal};

/// Flags that the loop takes.
#[derive(Debug, Clone, Default)]
pub(super) struct Inputs(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    stop: AtomicBool,
    override_to_local: AtomicBool,
    camera: AtomicBool,
}

impl Inputs {
    pub(super) fn stop(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn stops(&self) -> bool {
        self.0.stop.load(Ordering::Relaxed)
    }

    /// The hardware switch.
    pub(super) fn press_override(&self) {
        self.0.override_to_local.store(true, Ordering::Relaxed);
    }

    pub(super) fn takes_override(&self) -> bool {
        self.0.override_to_local.swap(false, Ordering::Relaxed)
    }

    /// A hand at the camera.
    pub(super) fn push_camera(&self) {
        self.0.camera.store(true, Ordering::Relaxed);
    }

    pub(super) fn takes_camera(&self) -> bool {
        self.0.camera.swap(false, Ordering::Relaxed)
    }

    /// SIGTERM and SIGINT end, SIGUSR1 is the override, SIGUSR2 pushes the camera. They are in force when this returns.
    pub(super) fn listen_to_signals(&self) -> io::Result<()> {
        let inputs = self.clone();
        let (ready, installed) = sync_channel(1);
        thread::Builder::new().name("sim-signals".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
            let result = runtime.and_then(|runtime| runtime.block_on(inputs.signals(&ready)));
            if let Err(error) = result {
                let _ = ready.try_send(Err(error));
            }
        })?;
        installed.recv().unwrap_or_else(|_| Err(io::Error::other("no signals")))
    }

    async fn signals(&self, ready: &std::sync::mpsc::SyncSender<io::Result<()>>) -> io::Result<()> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut one = signal(SignalKind::user_defined1())?;
        let mut two = signal(SignalKind::user_defined2())?;
        let _ = ready.try_send(Ok(()));
        loop {
            tokio::select! {
                _ = term.recv() => self.stop(),
                _ = int.recv() => self.stop(),
                _ = one.recv() => self.press_override(),
                _ = two.recv() => self.push_camera(),
            }
        }
    }

    /// `override`, `camera` and `quit`, each in a line of standard input.
    pub(super) fn listen_to_lines(&self) -> io::Result<()> {
        let inputs = self.clone();
        let read = move || {
            let mut from = io::stdin().lock();
            let mut line = String::new();
            while from.by_ref().take(256).read_line(&mut line).is_ok_and(|len| len > 0) {
                match line.trim() {
                    "override" => inputs.press_override(),
                    "camera" => inputs.push_camera(),
                    "quit" => inputs.stop(),
                    other => tracing::warn!(line = other, "only override, camera and quit are known"),
                }
                line.clear();
            }
        };
        thread::Builder::new().name("sim-lines".into()).spawn(read).map(drop)
    }
}
