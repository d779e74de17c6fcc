//! `trocar admin break-glass`: who came in without a login during an emergency, and that somebody has looked into it.

use super::Place;
use crate::verbs::table::{Align, Table, clean, utc};
use trocar_signaling::{BreakGlassDesk, BreakGlassJoin};

/// Work with break-glass joins, of a node that runs or not.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum BreakGlassCommand {
    /// Print the break-glass joins that nobody has reviewed, oldest first.
    List {
        #[command(flatten)]
        place: Place,
        /// Print those that were reviewed as well, with who did and what they found.
        #[arg(long)]
        all: bool,
        /// Print one JSON value instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Note that a break-glass join was looked into. It leaves the list, and stands in the audit chain within a second.
    Review {
        #[command(flatten)]
        place: Place,
        /// Who has looked into it.
        #[arg(long, value_name = "NAME")]
        by: String,
        /// What they found: whether there was an emergency, and what follows. No name of a patient.
        #[arg(long, value_name = "TEXT")]
        note: String,
        /// Which, as `list` prints it.
        id: String,
    },
}

impl BreakGlassCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List { place, all, json } => {
                let found = BreakGlassDesk::open(&place.database()?)?.list(all)?;
                if json {
                    return crate::verbs::print(&format!("{}\n", serde_json::to_string(&found)?));
                }
                crate::verbs::print(&table(&found, all))
            }
            Self::Review { place, by, note, id } => {
                BreakGlassDesk::open(&place.database()?)?.review(&id, &by, &note)?;
                crate::verbs::print(&format!("reviewed {id}\n"))
            }
        }
    }
}

fn table(found: &[BreakGlassJoin], all: bool) -> String {
    use Align::Left;
    let mut head = vec![("ID", Left), ("AT", Left), ("ROLE", Left), ("NAME", Left), ("REASON", Left)];
    if all {
        head.push(("REVIEW", Left));
    }
    let mut table = Table::new(&head);
    for join in found {
        let mut cells = vec![clean(&join.id), utc(join.at), clean(&join.role), clean(&join.name), clean(&join.reason)];
        if all {
            let review = join.review.as_ref();
            cells.push(
                review.map_or_else(|| "-".to_owned(), |r| clean(&format!("{}, by {}: {}", utc(r.at), r.by, r.note))),
            );
        }
        table.row(cells);
    }
    let none = if all { "there was none" } else { "none waits for a review" };
    table.or_say(none).render()
}
