//! A whole gate: opens what its configuration names, in an order in which nothing is promised that is not there yet, and runs the core
//! on this thread's behalf until it is told to stop.

use crate::config::Config;
use crate::consent::Withdrawal;
use crate::console::{self, Tty};
use crate::core::{Core, Event, Inbox, Lane, Parts, View, first_view};
use crate::device::Counters as DeviceCounters;
use crate::troubles::Troubles;
use crate::{consent, device, fail_stop, frames, means, stdio, store};
use anyhow::Context as _;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use trocar_control::audit::record::Party;
use trocar_control::trust::Identity;

/// Records that wait when the process ends get so long.
const LAST_RECORDS: Duration = Duration::from_secs(2);

/// What the terminal that the gate was started from is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ConsoleKind {
    /// The surgeon's screen.
    Screen,
    /// JSON lines in and out.
    Stdio,
    /// Nothing: there is a page, or hardware.
    None,
}

/// Runs the gate until SIGTERM or SIGINT, which it obeys when no offer is open and no expert holds.
///
/// Fatal is what local cannot be without: a thread, the store of another gate, the device, the console. What remote operation alone needs is
/// no reason to leave local without a gate: it is told on the console and tried again (HO-G-029), and so is a store that cannot be read
/// (HO-E-005), for the session.
///
/// # Errors
/// What cannot be opened: named by the key of the configuration.
pub fn run(config: Config, kind: Option<ConsoleKind>) -> anyhow::Result<()> {
    fail_stop::abort_on_panic();
    let kind = kind.unwrap_or(if config.console.terminal { ConsoleKind::Screen } else { ConsoleKind::None });
    start_log(&config, kind);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("trocar-gate-net")
        .enable_all()
        .build()
        .context("runtime")?;
    let cfg = Arc::new(config.timers.clone());
    let inbox = Inbox::default();
    let opened = store::open(&config.store, &cfg, this_run(&config), inbox.clone()).context("store")?;
    for line in &opened.found {
        tracing::warn!("{line}");
    }
    let counters = Arc::new(DeviceCounters::default());
    let moving = device::open_counted(&config.device, inbox.clone(), Arc::clone(&counters)).context("device")?;
    let consent = consent::start(consent::Watched {
        file: config.consent.clone(),
        session: config.session.id.clone(),
        trust: config.trust.dir.clone(),
        consents: opened.consents,
        disk: opened.disk.clone(),
        inbox: inbox.clone(),
    });
    let consent = consent.context("consent")?;
    let withdrawal: Withdrawal = Arc::new(move || consent.withdraw());
    let troubles = Troubles::new(inbox.clone());
    let wanted = means::Wanted { net: config.net(), frames: frames_of(&config) };
    let network = means::start(wanted, inbox.clone(), troubles.clone(), runtime.handle().clone());
    let network = network.context("cannot start a thread")?;
    let means_counters = network.counters();
    let (view_in, view) = watch::channel(Arc::new(first_view(&cfg)));
    let disk = opened.disk.clone();
    let all = move || {
        let written = [("audit records lost", disk.lost())];
        let own = written.into_iter().chain(crate::realtime::figures()).chain(counters.named());
        own.chain(means_counters.all()).collect()
    };
    let parts = Parts {
        device: moving,
        network,
        disk: opened.disk.clone(),
        inbox: inbox.clone(),
        view: view_in,
        counters: Box::new(all),
        troubles,
    };
    // What can fail at the start fails before the core serves anybody.
    let console = console::start(&config.console, inbox.clone(), Arc::clone(&withdrawal), view.clone());
    let console = console.context("console")?;
    let core = Core::new(&cfg, opened.store, opened.found.join("; "), parts)?;
    fail_stop::watch(core.pulse()).context("core")?;
    let running = std::thread::Builder::new().name("trocar-gate-core".to_owned()).spawn(move || {
        crate::realtime::claim();
        core.run()
    });
    let running = running.context("core")?;
    stop_on_signals(&runtime, &inbox)?;
    let attended = attend(&config, kind, (&console, &inbox, &withdrawal), &view, || running.is_finished());
    if let Err(error) = &attended {
        // The core serves on; it is ended as by any other signal.
        tracing::error!(error = format!("{error:#}"), "there is no console in this terminal");
    }
    let ended = running.join().map_err(|_| anyhow::anyhow!("the core stopped by a fault in the program"))?;
    if !opened.disk.finish(LAST_RECORDS) {
        tracing::error!("the last audit records are not on disk: it did not answer in time");
    }
    ended.map_err(Into::into)
}

/// Shows what is to be shown on this thread until the core has ended.
fn attend(
    config: &Config,
    kind: ConsoleKind,
    (console, inbox, withdrawal): (&console::Console, &Inbox, &Withdrawal),
    view: &watch::Receiver<Arc<View>>,
    is_over: impl Fn() -> bool,
) -> anyhow::Result<()> {
    // The link is a secret: where a file is named for it, it goes nowhere else, for standard error may be a journal.
    if let Some(link) = console.link().filter(|_| kind != ConsoleKind::Stdio && config.console.page_link.is_none()) {
        eprintln!("console: {link}");
    }
    match kind {
        ConsoleKind::Screen => {
            let shown = Tty::stdio().map_err(console::ConsoleError::Terminal);
            if let Err(error) = shown.and_then(|tty| console::run_terminal(console, tty)) {
                // The gate runs on: there is a page, or hardware, or the next start.
                tracing::error!(%error, "there is no terminal screen");
            }
        }
        ConsoleKind::Stdio => stdio::start(inbox, Arc::clone(withdrawal), view.clone()).context("console")?,
        ConsoleKind::None => {}
    }
    let mut view = view.clone();
    let waiting = tokio::runtime::Builder::new_current_thread().build().context("console")?;
    // The view's sender goes with the core.
    waiting.block_on(async { while !is_over() && view.changed().await.is_ok() {} });
    console.stop();
    Ok(())
}

/// What the audit records of this run have in common.
fn this_run(config: &Config) -> store::Run {
    store::Run {
        session: config.session.id.clone(),
        patient: config.session.patient.clone(),
        gate: party(Identity::from_pem_files(&config.identity.cert, &config.identity.key).ok().as_ref()),
        configuration: config.hash,
        software: concat!("trocar-gate ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

/// This gate as the one who acts where local does, at its console. Without a certificate it has no name.
fn party(identity: Option<&Identity>) -> Party {
    let name = identity.map(Identity::name);
    Party {
        role: Some("gate".to_owned()),
        fingerprint: identity.map(|identity| hex::encode(identity.hash().0)),
        authentication: Some("console".to_owned()),
        device: name.map(ToString::to_string),
        realm: name.map(|name| name.realm.to_string()),
        ..Party::default()
    }
}

fn frames_of(config: &Config) -> Option<frames::FramesConfig> {
    if config.frames.is_none() {
        tracing::warn!("[frames] is missing: without frame proof, camera and instruments are refused");
    }
    config.frames.clone()
}

fn stop_on_signals(runtime: &tokio::runtime::Runtime, inbox: &Inbox) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let _inside = runtime.enter();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let inbox = inbox.clone();
    runtime.spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                _ = hangup.recv() => {
                    // The terminal is gone and its screen with it; page and hardware inputs are not, and TAKE has to work.
                    tracing::error!("the terminal was closed: the gate goes on without it");
                    continue;
                }
            }
            tracing::info!("asked to stop: that happens in LOCAL, or at once where nobody may move");
            let _ = inbox.push(Lane::Local, Event::Shutdown);
        }
    });
    Ok(())
}

/// To standard error; with a screen on that terminal, to `gate.log` in the store's directory instead, so that the screen stays whole.
fn start_log(config: &Config, kind: ConsoleKind) {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::fmt::writer::BoxMakeWriter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(&config.log.filter));
    let screen = kind == ConsoleKind::Screen && std::io::stderr().is_terminal();
    let file = || {
        // As the store makes it, which is opened after this.
        let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.store);
        std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(config.store.join("gate.log"))
    };
    let writer = match screen.then(file) {
        None => BoxMakeWriter::new(std::io::stderr),
        Some(Ok(file)) => BoxMakeWriter::new(Arc::new(file)),
        // No disk: what the screen and its counters say has to do.
        Some(Err(_)) => BoxMakeWriter::new(std::io::sink),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(!screen).with_writer(writer);
    if config.log.json {
        log.json().init();
    } else {
        log.init();
    }
}
