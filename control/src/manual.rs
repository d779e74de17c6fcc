//! What programs write about themselves: man pages and completions, from the same definitions that the command line is read with.

pub use clap_complete::Shell;

use clap::Command;
use clap_mangen::Man;
use std::path::Path;

/// Writes `trocar.1`, `trocar-up.1` and so on, a page for each verb that is shown, into a directory that it makes.
///
/// # Errors
/// Where the directory cannot be made, or a file not be written.
pub fn write_pages(command: Command, dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut command = command.disable_help_subcommand(true);
    // Fills in what is known of the whole only: "trocar-up", "trocar up".
    command.build();
    page_and_below(&command, dir)
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
#[must_use]
pub fn completions(mut command: Command, shell: Shell) -> String {
    let (name, mut out) = (command.get_name().to_owned(), Vec::new());
    clap_complete::generate(shell, &mut command, name, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}
