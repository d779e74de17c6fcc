//! The one binary that a person types.

mod admin;
mod admission;
mod audit;
mod ca;
mod cli;
mod config;
mod consent;
mod echo;
mod impair;
mod ledger;
mod link;
mod load;
mod media;
mod net;
mod operate;
mod publish;
mod repair;
mod report;
mod revoke;
mod rtc;
mod sender;
mod stop;
mod tally;
mod top;
mod up;
mod verbs;
mod watch;

fn main() -> std::process::ExitCode {
    cli::main()
}
