//! The one binary that a person types.

mod admission;
mod ca;
mod cli;
mod config;
mod impair;
mod ledger;
mod media;
mod net;
mod publish;
mod sender;
mod stop;
mod tally;
mod up;
mod watch;

fn main() -> std::process::ExitCode {
    cli::main()
}
