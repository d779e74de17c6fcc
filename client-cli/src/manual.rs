//! Man pages and completions, made from the same definitions that the command line is read with.

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use std::path::Path;

/// Writes `trocar.1`, `trocar-up.1` and so on, a page for each verb that is shown, into a directory that it makes.
///
/// # Errors
/// Where a file cannot be written.
pub(crate) fn write_pages(command: Command, dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut command = command.disable_help_subcommand(true);
    // Fills in what is known of the whole only: "trocar-up", "trocar up".
    command.build();
    page_and_below(&command, dir).with_context(|| format!("cannot write into {}", dir.display()))
}

/// As deep as the verbs are nested.
fn page_and_below(command: &Command, dir: &Path) -> std::io::Result<()> {
    for verb in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        page_and_below(verb, dir)?;
    }
    let version = concat!("trocar ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(version).manual("Trocar");
    let mut page = Vec::new();
    man.render(&mut page)?;
    // What stands below a help text is the exit status, which has a section of its own name in a manual.
    let page = String::from_utf8_lossy(&page).replace(".SH EXTRA\nExit status: ", ".SH \"EXIT STATUS\"\n");
    std::fs::write(dir.join(man.get_filename()), page)
}

/// Completions for a shell, as text.
pub(crate) fn completions(mut command: Command, shell: Shell) -> Vec<u8> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut command, "trocar", &mut out);
    out
}
