//! Asking before something cannot be undone.

use anyhow::{Context, bail};
use std::io::{IsTerminal as _, Write as _};

/// Whether to ask: flag of the verbs that end something.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Consent {
    /// Do not ask. Needed where there is no terminal to ask on.
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Refuses at once where nobody could be asked, before anything is looked at.
    ///
    /// # Errors
    /// Without `--yes` and without a terminal.
    pub(super) fn can_be_had(self) -> anyhow::Result<()> {
        if self.yes || (std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            return Ok(());
        }
        bail!("this cannot be undone, and there is no terminal to ask on: --yes does it without asking")
    }

    /// Asks on the terminal.
    ///
    /// # Errors
    /// Where the answer is not `yes`.
    pub(super) fn ask(self, question: &str) -> anyhow::Result<()> {
        if self.yes {
            return Ok(());
        }
        eprint!("{question} Type yes: ");
        std::io::stderr().flush()?;
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).context("no answer")?;
        if line.trim() == "yes" { Ok(()) } else { bail!("not done: the answer was not yes") }
    }
}
