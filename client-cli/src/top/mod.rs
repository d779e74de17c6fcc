//! `trocar top`: a relay's figures, live in the terminal. Old figures never look live: what cannot be asked is said in
//! large words, with the age of what is still on the screen, and its rates and states are left out.

mod alarm;
mod fetch;
mod history;
mod print;
mod reading;
mod rows;
mod screen;
mod state;
pub(crate) mod text;

use crate::net::link::InvitationLink;
use crate::stop::Stop;
use crate::verbs;
use anyhow::{Context as _, bail};
use fetch::{Shared, Source};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use state::State;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use url::Url;

/// Live view of a relay's figures in the terminal.
///
/// Feeds and legs with their rates, losses and delays in the relay, from the figures that the relay shows to Prometheus.
/// Rates are over the last five intervals. Press ? for the meaning of the columns.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Exit status: 0 ended as asked; 1 no terminal, or with --once no answer; 2 a mistake on the command \
                        line."
)]
pub(crate) struct TopArgs {
    /// Where the figures are; /metrics is added where the URL has no path. They are for the same machine only, unless
    /// `signaling.metrics_open` is set there.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080/metrics")]
    metrics: Url,
    /// Invitation link of the session that is looked at, to add its title and what its feeds are.
    #[arg(long, value_name = "LINK")]
    invite: Option<InvitationLink>,
    /// Trust list (PEM): the certificate of the authority that signed the server. Needed where a URL is https.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Seconds from one question to the next, 0.5 to 60.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Print one plain table after five intervals and end.
    #[arg(long)]
    once: bool,
    /// Print JSON, one line each interval.
    #[arg(long)]
    json: bool,
}

fn interval(s: &str) -> Result<Duration, String> {
    let parsed = s.parse::<f64>().ok().filter(|s| (0.5..=60.0).contains(s));
    parsed.map(Duration::from_secs_f64).ok_or_else(|| "seconds from 0.5 to 60 are right".to_owned())
}

/// How often the screen is drawn while nothing happens: its ages are to be right to a glance.
const REDRAW: Duration = Duration::from_millis(250);

/// Runs until `q`, a signal, or the one table of `--once`.
pub(crate) async fn run(args: TopArgs) -> anyhow::Result<()> {
    let live = !args.once && !args.json;
    if live && !(std::io::stdout().is_terminal() && std::io::stdin().is_terminal()) {
        bail!("there is no terminal to draw on: --once prints one table, --json a line each interval");
    }
    let stop = Stop::on_signals()?;
    let source = Source::new(&args.metrics, args.ca.as_deref())?;
    let shared = Shared::default();
    let api = match &args.invite {
        Some(link) => Some(verbs::join(link, args.ca.as_deref(), "trocar top").await.context("--invite")?),
        None => None,
    };
    let mut looking = None;
    let mut fresh = None;
    if let Some(api) = &api {
        shared.lock().session = Some(api.session().await.context("--invite")?);
        fresh = Some(api.keep_fresh());
        looking = Some(tokio::spawn(shared.clone().keep_looking(api.clone())));
    }
    let done = if live {
        let asking = tokio::spawn(shared.clone().keep_asking(source.clone(), args.interval));
        let done = on_screen(&args, source.url(), shared, stop).await;
        asking.abort();
        done
    } else {
        tokio::select! {
            done = plainly(&args, &source, &shared) => done,
            () = stop.requested() => Ok(()),
        }
    };
    looking.into_iter().chain(fresh).for_each(|task| task.abort());
    if let Some(api) = &api {
        verbs::leave(api).await;
    }
    done
}

/// One table or object, or a JSON line each interval.
async fn plainly(args: &TopArgs, source: &Source, shared: &Shared) -> anyhow::Result<()> {
    let url = source.url().as_str();
    let mut tick = tokio::time::interval(args.interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        shared.ask(source).await;
        let known = shared.lock();
        let figures = known.figures();
        if let Some((_, why)) = &known.failing {
            if args.once {
                bail!("{url} does not answer: {why}");
            }
            let age = figures.map(|f| f.at.elapsed().as_secs_f64());
            verbs::print(&format!("{}\n", print::json_silence(url, why, age)))?;
            continue;
        }
        let Some(figures) = figures else { continue };
        if args.once && !known.is_full() {
            continue;
        }
        if args.json {
            verbs::print(&format!("{}\n", print::json(url, &figures)))?;
        } else {
            verbs::print(&print::text(url, &figures, &known.feeds_in_words(), &known.alarms()))?;
        }
        if args.once {
            return Ok(());
        }
    }
}

/// Draws on a thread of its own, since waiting for keys blocks.
async fn on_screen(args: &TopArgs, url: &Url, shared: Shared, stop: Stop) -> anyhow::Result<()> {
    let asked_to_end = Arc::new(AtomicBool::new(false));
    let (seen, url, interval) = (Arc::clone(&asked_to_end), url.to_string(), args.interval);
    let mut drawing = tokio::task::spawn_blocking(move || {
        let mut terminal = ratatui::try_init().context("cannot draw on this terminal")?;
        let done = draw_until_done(&mut terminal, &shared, &url, interval, &seen);
        ratatui::try_restore()?;
        done
    });
    tokio::select! {
        done = &mut drawing => return done?,
        () = stop.requested() => asked_to_end.store(true, Ordering::Relaxed),
    }
    drawing.await?
}

fn draw_until_done(
    terminal: &mut ratatui::DefaultTerminal,
    shared: &Shared,
    url: &str,
    interval: Duration,
    asked_to_end: &AtomicBool,
) -> anyhow::Result<()> {
    let mut state = State::new();
    // An answer may be late by one interval before its figures are called old.
    let fresh_for = interval * 2 + Duration::from_millis(500);
    while !state.done && !asked_to_end.load(Ordering::Relaxed) {
        let (newest, failing, session, words, alarms) = {
            let known = shared.lock();
            let session = known.session.as_ref().map(|s| verbs::table::clean(&s.title));
            (known.figures(), known.failing.clone(), session, known.feeds_in_words(), known.alarms())
        };
        let now = Instant::now();
        let at = newest.as_ref().map(|f| f.at);
        let fresh = failing.is_none() && at.is_some_and(|at| now.saturating_duration_since(at) <= fresh_for);
        let shown = state.paused.clone().or_else(|| newest.clone());
        let scene = screen::Scene {
            url,
            figures: shown.as_ref(),
            fresh,
            newest: at,
            failing: failing.as_ref(),
            session,
            words: &words,
            alarms: &alarms,
            now,
        };
        terminal.draw(|frame| screen::draw(frame, &scene, &mut state))?;
        // All keys that have come are taken before the next picture.
        let mut wait = REDRAW;
        while !state.done && event::poll(wait)? {
            if let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
            {
                state.handle_key(key, newest.clone());
            }
            wait = Duration::ZERO;
        }
    }
    Ok(())
}
