//! `trocar link serve`: the end that is measured against.

use crate::stop::Stop;
use std::net::SocketAddr;
use std::path::PathBuf;
use trocar_link::measure::responder::Limits;
use trocar_link::sockets::{Opened, Responding, Who};

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct ServeArgs {
    /// Address to listen at, UDP and TCP; the next port is used too. All addresses where left out.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// File with a key: only who has the same one may measure.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Highest rate that it sends or takes, in bits per second.
    #[arg(long, value_name = "RATE", value_parser = trocar_link::rate::mbit_s, default_value = "1G")]
    max_rate: f64,
    /// Longest measurement, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 900.0, value_parser = super::args::seconds)]
    max_seconds: f64,
    /// Measurements at a time; one of each peer.
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    sessions: u16,
    /// JSON lines instead of text.
    #[arg(long)]
    json: bool,
}

/// Serves until it is stopped.
pub(super) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let opened = Opened {
        listen: args.listen,
        who: Who::HasKey(super::args::read_key(args.key_file.as_deref())?),
        limits: Limits {
            mbit_s_max: args.max_rate,
            seconds_max: args.max_seconds,
            sessions_max: usize::from(args.sessions),
        },
        program: format!("trocar {} link serve", env!("CARGO_PKG_VERSION")),
        note: if args.json { note_json } else { |text| println!("{text}") },
    };
    let responding = Responding::start(runtime.handle(), opened)?;
    let Responding { listen, second_port, quic_port, .. } = &responding;
    if args.json {
        println!(
            "{}",
            serde_json::json!({ "event": "ready", "listen": listen, "second_port": second_port, "quic_port": quic_port })
        );
    } else {
        let most = args.max_rate;
        println!("listening at {listen}, UDP and TCP, and at UDP {second_port} and {quic_port}; at most {most} Mbit/s");
    }
    runtime.block_on(async {
        Stop::on_signals()?.requested().await;
        anyhow::Ok(())
    })?;
    responding.stop();
    Ok(())
}

fn note_json(text: &str) {
    println!("{}", serde_json::json!({ "event": "note", "text": text }));
}
