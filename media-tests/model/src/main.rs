//! Explores the named worlds to their end, or all of them, and prints a table: `trocar-model [--deep] [--limit SECONDS] [NAME…]`.
//! `--deep` allows more of everything in each; `--limit` gives each so many seconds, and says where that was not enough.

use std::process::ExitCode;
use std::time::Duration;
use trocar_model::check::{Outcome, explore};
use trocar_model::handover::checks::Strict;
use trocar_model::scopes::{self, Scope};

/// What was asked for.
struct Asked {
    scopes: Vec<Scope>,
    limit: Option<Duration>,
}

fn asked() -> Result<Asked, String> {
    let (mut deep, mut limit, mut names) = (false, None, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--deep" => deep = true,
            "--limit" => {
                let seconds = args.next().and_then(|s| s.parse().ok()).ok_or("--limit: wants seconds")?;
                limit = Some(Duration::from_secs(seconds));
            }
            flag if flag.starts_with('-') => {
                return Err(format!("{flag}: unknown; there are --deep and --limit SECONDS"));
            }
            name => names.push(name.to_owned()),
        }
    }
    let mut scopes = if deep { scopes::deep() } else { scopes::ci() };
    if let Some(unknown) = names.iter().find(|n| !scopes.iter().any(|s| s.name == n.as_str())) {
        let all: Vec<_> = scopes.iter().map(|s| s.name).collect();
        return Err(format!("{unknown}: no such world; there are {}", all.join(", ")));
    }
    scopes.retain(|s| names.is_empty() || names.iter().any(|n| n == s.name));
    Ok(Asked { scopes, limit })
}

/// One line of the table, and whatever is wrong below it. True where nothing is.
fn print(scope: &Scope, o: &Outcome) -> bool {
    let more = if o.complete { "" } else { "  NOT COMPLETE" };
    let seconds = o.time.as_secs_f64();
    println!(
        "{:<12} {:>10} {:>11} {:>6} {seconds:>8.1}  {}{more}",
        scope.name, o.unique, o.steps, o.depth, scope.about
    );
    for (name, story) in &o.broken {
        println!("\n{name} is broken:\n{story}");
    }
    for missed in &o.missed {
        println!("  never: {missed}");
    }
    o.broken.is_empty() && o.missed.is_empty() && o.complete
}

fn main() -> ExitCode {
    let asked = match asked() {
        Ok(asked) => asked,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!("{:<12} {:>10} {:>11} {:>6} {:>8}  what", "world", "situations", "steps", "depth", "seconds");
    let (mut all, mut good) = (0, true);
    for scope in &asked.scopes {
        let outcome = explore::<Strict>(scope, threads, asked.limit);
        all += outcome.unique;
        good &= print(scope, &outcome);
    }
    println!("{all} situations in {} worlds", asked.scopes.len());
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
