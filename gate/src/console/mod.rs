//! The surgeon's side of the gate: a terminal screen, a page for a browser on the same machine, and hardware inputs.
//!
//! All of them show the same `model::Model` and push the same acts into the core's lane of local. Which of them shows signs of life does
//! not matter, one is enough; a hardware input alone is no live console, since nobody reads anything from it (HO-A-012).
//!
//! - [`ConsoleConfig`]: which of them there are.
//! - [`start`]: page and hardware inputs, on threads of their own.
//! - [`run_terminal`]: the terminal screen, on the caller's thread.

mod evdev;
mod hand;
mod model;
mod page;
mod terminal;
mod words;

#[cfg(test)]
mod fixture;

pub use evdev::{HardwareAct, InputConfig};
pub use terminal::Tty;

use crate::consent::Withdrawal;
use crate::core::{Inbox, View};
use hand::Hand;
use model::{Around, Model};
use serde::Deserialize;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Which consoles there are: section `[console]` of the gate's file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsoleConfig {
    /// The screen in the terminal that the gate was started from.
    pub terminal: bool,
    /// Where the page listens: a loopback address, port 0 for any. Without it there is no page.
    pub page: Option<SocketAddr>,
    /// Where the page's link is written at each start, readable by this user only. It carries the secret of this run.
    pub page_link: Option<PathBuf>,
    /// Pedals and buttons.
    pub inputs: Vec<InputConfig>,
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        Self { terminal: true, page: None, page_link: None, inputs: Vec::new() }
    }
}

impl ConsoleConfig {
    /// Most hardware inputs.
    pub const MOST_INPUTS: usize = 16;

    /// Whether the parts can be.
    ///
    /// # Errors
    /// [`ConsoleError::Config`] names the key that is wrong, and what would be right.
    pub fn check(&self) -> Result<(), ConsoleError> {
        let wrong = |key, rule| Err(ConsoleError::Config { key, rule });
        if self.page.is_some_and(|at| !at.ip().is_loopback()) {
            return wrong(
                "console.page",
                "a loopback address, such as 127.0.0.1:7070: this page is for this machine only",
            );
        }
        if self.page_link.is_some() && self.page.is_none() {
            return wrong("console.page_link", "left out where there is no console.page");
        }
        if self.inputs.len() > Self::MOST_INPUTS {
            return wrong("console.inputs", "at most 16 of them");
        }
        if self.inputs.iter().any(|i| i.keys.is_empty()) {
            return wrong("console.inputs.keys", "at least one key, such as keys = { KEY_SPACE = \"take\" }");
        }
        Ok(())
    }
}

/// Why a console cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The configuration.
    #[error("{key}: must be {rule}")]
    Config {
        /// Which key.
        key: &'static str,
        /// What would be right.
        rule: &'static str,
    },
    /// The page cannot listen.
    #[error("console.page: cannot listen on {at}: {source}")]
    Listen {
        /// Where.
        at: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The link cannot be written.
    #[error("console.page_link: cannot write {}: {source}", path.display())]
    Link {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes for the page's secret")]
    Random,
    /// A thread or runtime could not be started.
    #[error("cannot start the console: {0}")]
    Thread(io::Error),
    /// No terminal.
    #[error("cannot use this terminal: {0}")]
    Terminal(io::Error),
}

/// Page and hardware inputs, while they run. They end when this is dropped.
#[derive(Debug)]
pub struct Console {
    shared: Shared,
    page: Option<(SocketAddr, String)>,
}

impl Console {
    /// The page's link with the secret of this run, for the person who started the gate.
    #[must_use]
    pub fn link(&self) -> Option<&str> {
        self.page.as_ref().map(|(_, link)| link.as_str())
    }

    /// Where the page listens.
    #[must_use]
    pub fn page(&self) -> Option<SocketAddr> {
        self.page.as_ref().map(|(at, _)| *at)
    }

    /// Requests to the page that were refused: another Host or Origin, no secret, a method that does not act (HO-X-021).
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.shared.refusals.total()
    }

    /// Ends page, hardware inputs and terminal screen; the screen restores its terminal first, so wait for [`run_terminal`] to return.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Hardware inputs: name, and why it cannot be used.
type Inputs = Vec<(String, Option<String>)>;

/// What the parts of the console share.
#[derive(Debug, Clone)]
struct Shared {
    hand: Hand,
    view: watch::Receiver<Arc<View>>,
    inputs: Arc<Mutex<Inputs>>,
    refusals: Arc<page::Refusals>,
    stop: Arc<AtomicBool>,
}

impl Shared {
    fn new(inbox: Inbox, withdrawal: Withdrawal, view: watch::Receiver<Arc<View>>) -> Self {
        let (inputs, refusals, stop) = (Arc::default(), Arc::default(), Arc::default());
        Self { hand: Hand::new(inbox, withdrawal), view, inputs, refusals, stop }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// What is to be shown now.
    fn model(&self) -> Model {
        let inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let around = Around { inputs, refused: self.refusals.total() };
        let view = self.view.borrow().clone();
        Model::new(&view, &around, crate::core::now())
    }

    /// How a hardware input is, by its place in the configuration.
    fn note_input(&self, place: usize, trouble: Option<String>) {
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, was)) = inputs.get_mut(place) {
            *was = trouble;
        }
    }
}

/// Starts page and hardware inputs. The terminal screen is started by [`run_terminal`]. `withdrawal` is what "consent is withdrawn" does.
///
/// # Errors
/// [`ConsoleError`]: a configuration that cannot be, an address in use, a link that cannot be written. A hardware input that is not
/// there is no error: it is shown, and tried again.
pub fn start(
    config: &ConsoleConfig,
    inbox: Inbox,
    withdrawal: Withdrawal,
    view: watch::Receiver<Arc<View>>,
) -> Result<Console, ConsoleError> {
    config.check()?;
    let shared = Shared::new(inbox, withdrawal, view);
    let names = config.inputs.iter().map(|i| (i.name.clone(), Some("not opened yet".to_owned())));
    *shared.inputs.lock().unwrap_or_else(PoisonError::into_inner) = names.collect();
    // From here on an early return stops what was started.
    let mut console = Console { shared, page: None };
    if let Some(at) = config.page {
        console.page = Some(page::start(at, config.page_link.as_deref(), console.shared.clone())?);
    }
    for (place, input) in config.inputs.iter().enumerate() {
        evdev::start(place, input.clone(), console.shared.clone()).map_err(ConsoleError::Thread)?;
    }
    Ok(console)
}

/// Shows the screen and takes keys until [`Console::stop`], or until the terminal or the core is gone. Restores the terminal.
///
/// # Errors
/// [`ConsoleError::Terminal`] where it is none, or was lost; the gate runs on without it.
pub fn run_terminal(console: &Console, tty: Tty) -> Result<(), ConsoleError> {
    terminal::run(&console.shared, tty).map_err(ConsoleError::Terminal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<ConsoleConfig, String> {
        let config: ConsoleConfig = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        config.check().map_err(|e| e.to_string())?;
        Ok(config)
    }

    #[test]
    fn a_configuration_is_read_and_an_empty_one_is_the_terminal_alone() {
        assert_eq!(parsed(""), Ok(ConsoleConfig::default()));
        let text = "terminal = false\npage = \"127.0.0.1:0\"\npage_link = \"link\"\n[[inputs]]\nname = \"foot pedal\"\n\
                    device = \"/dev/input/event3\"\nkeys = { KEY_SPACE = \"take\", 0x120 = \"estop\", BTN_1 = \"confirm\" }\n";
        let config = parsed(text).unwrap();
        let acts: Vec<_> = config.inputs[0].keys.iter().map(|(k, a)| (k.0, *a)).collect();
        assert_eq!(acts, [(57, HardwareAct::Take), (0x101, HardwareAct::Confirm), (0x120, HardwareAct::Estop)]);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (text, part) in [
            ("page = \"0.0.0.0:7070\"", "console.page: must be a loopback address"),
            ("page = \"[2001:db8::1]:1\"", "console.page: must be a loopback address"),
            ("page_link = \"link\"", "console.page_link: must be left out"),
            ("pages = 1", "unknown field `pages`"),
            ("[[inputs]]\nname = \"p\"\ndevice = \"d\"\nkeys = {}", "console.inputs.keys: must be at least one"),
            (
                "[[inputs]]\nname = \"p\"\ndevice = \"d\"\nkeys = { KEY_SPACEBAR = \"take\" }",
                "`KEY_SPACEBAR` is no key",
            ),
            ("[[inputs]]\nname = \"p\"\ndevice = \"d\"\nkeys = { KEY_A = \"offer\" }", "unknown variant `offer`"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
