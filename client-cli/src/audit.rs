//! `trocar audit`: a gate's chain of records, checked and told.

use anyhow::bail;
use std::path::PathBuf;
use trocar_control::audit;

/// Look at a gate's audit chain.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum AuditCommand {
    /// Say whether the chain is whole, and where it is not, which record is the first bad one.
    ///
    /// What cannot be found by the chain alone is a store whose every file was replaced: note the head that is printed, elsewhere.
    Verify {
        /// The gate's store, or the file audit.jsonl.
        path: PathBuf,
    },
    /// Tell what happened, as a story.
    Show {
        /// The gate's store, or the file audit.jsonl.
        path: PathBuf,
    },
}

impl AuditCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Verify { path } => {
                let v = audit::verify(&path)?;
                let when = v.from_until.map_or_else(String::new, |(from, until)| format!(", {from} to {until}"));
                println!("{}: {} records are whole{when}", v.file.display(), v.records);
                println!("head: record {}, {}", v.head.seq, hex::encode(v.head.hash.0));
                let there = |is: bool| if is { "is there and agrees" } else { "is not there" };
                println!("copy {}; noted head {}", there(v.has_copy), there(v.has_head));
                if v.lost > 0 {
                    println!(
                        "{} records were lost because the disk did not take them in time, as the chain says",
                        v.lost
                    );
                }
                Ok(())
            }
            Self::Show { path } => match audit::show(&path) {
                Ok(story) => crate::verbs::print(&story),
                Err((story, bad)) => {
                    crate::verbs::print(&story)?;
                    bail!("the story ends here: {bad}")
                }
            },
        }
    }
}
