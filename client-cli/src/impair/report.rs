//! What the emulator did: a line per packet in the ledger, a line per direction at the end.

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use trocar_proto::link::ledger::FateName;
use trocar_proto::link::{Direction, Entry, Fate, Record, Tally};
use trocar_proto::units::Micros;

/// Largest lateness that is told apart, in microseconds.
const LATE_MAX_US: u64 = 10_000_000;

/// The ledger and the sums.
pub(super) struct Report {
    ledger: Option<BufWriter<File>>,
    failed: Option<std::io::Error>,
    json: bool,
    pub(super) seconds: f64,
    pub(super) clients: u64,
    /// Packets of clients beyond the largest number.
    pub(super) refused: u64,
    pub(super) up: Way,
    pub(super) down: Way,
}

/// One direction.
pub(super) struct Way {
    pub(super) tally: Tally,
    send_failed: u64,
    pub(super) kernel_drops: u64,
    /// From when the model says to when it was sent, in microseconds.
    late_us: Histogram<u64>,
}

#[derive(Serialize)]
struct WaySummary<'a> {
    #[serde(flatten)]
    tally: &'a Tally,
    /// Arrived by the model, but the system did not take it.
    send_failed: u64,
    /// Lost in the kernel, before the emulator.
    kernel_drops: u64,
    delivered_mbit_s: f64,
    late_p50_us: u64,
    late_p99_us: u64,
    late_max_us: u64,
}

impl Way {
    fn new() -> anyhow::Result<Self> {
        let late_us = Histogram::new_with_max(LATE_MAX_US, 3)?;
        Ok(Self { tally: Tally::default(), send_failed: 0, kernel_drops: 0, late_us })
    }

    /// Counts a packet that arrived, and was sent on at that time, or not.
    pub(super) fn enter(&mut self, entry: &Entry, sent_at: Option<Micros>) {
        match (entry.fate, sent_at) {
            (Fate::Delivered { at, .. }, Some(sent)) => self.late_us.saturating_record(sent.since(at)),
            _ => self.send_failed += 1,
        }
    }

    fn summary(&self, seconds: f64) -> WaySummary<'_> {
        WaySummary {
            tally: &self.tally,
            send_failed: self.send_failed,
            kernel_drops: self.kernel_drops,
            delivered_mbit_s: self.tally.delivered_bytes as f64 * 8e-6 / seconds.max(1e-6),
            late_p50_us: self.late_us.value_at_quantile(0.5),
            late_p99_us: self.late_us.value_at_quantile(0.99),
            late_max_us: self.late_us.max(),
        }
    }
}

impl WaySummary<'_> {
    fn line(&self, name: &str) -> String {
        let t = self.tally;
        format!(
            "{name:<4} in {} + {} copies, out {} ({:.1} Mbit/s): lost {}, queue {}, blackout {}, inside {}, overload {}; \
             reordered {}, corrupted {}; send failed {}, kernel dropped {}; late p50 {} us, p99 {} us, max {} us",
            t.offered,
            t.copies,
            t.delivered,
            self.delivered_mbit_s,
            t.lost,
            t.queue_dropped,
            t.blackout,
            t.inside,
            t.overload,
            t.reordered,
            t.corrupted,
            self.send_failed,
            self.kernel_drops,
            self.late_p50_us,
            self.late_p99_us,
            self.late_max_us,
        )
    }
}

impl Report {
    pub(super) fn create(ledger: Option<&Path>, json: bool) -> anyhow::Result<Self> {
        let open = |path: &Path| {
            let file = File::create(path).with_context(|| format!("cannot write the ledger {}", path.display()));
            Ok::<_, anyhow::Error>(BufWriter::with_capacity(1 << 16, file?))
        };
        let ledger = ledger.map(open).transpose()?;
        let (up, down) = (Way::new()?, Way::new()?);
        Ok(Self { ledger, failed: None, json, seconds: 0.0, clients: 0, refused: 0, up, down })
    }

    pub(super) const fn way(&mut self, direction: Direction) -> &mut Way {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    /// Adds a line to the ledger. After a failure there are no more; it is told at the end.
    pub(super) fn write(&mut self, direction: Direction, entry: &Entry, client: u32, sent_at: Option<Micros>) {
        let Some(ledger) = &mut self.ledger else { return };
        let mut record = Record::new(direction, client, entry);
        record.sent_us = sent_at.map(|at| at.0);
        if record.fate == FateName::Delivered && sent_at.is_none() {
            record.fate = FateName::SendFailed;
        }
        let written = serde_json::to_writer(&mut *ledger, &record).map_err(Into::into);
        if let Err(error) = written.and_then(|()| ledger.write_all(b"\n")) {
            self.ledger = None;
            self.failed = Some(error);
        }
    }

    /// Tells at once that a client has another address.
    pub(super) fn rebound(&self, client: u32, at: Micros, from: SocketAddr, to: SocketAddr) {
        if self.json {
            let event = serde_json::json!({
                "event": "rebind", "client": client, "at_us": at.0, "from_port": from.port(), "to_port": to.port(),
            });
            println!("{event}");
        } else {
            println!("client {client} has port {} instead of {}", to.port(), from.port());
        }
    }

    /// # Errors
    /// Where the ledger could not be written.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error).context("the ledger is not complete");
        }
        self.ledger.as_mut().map_or(Ok(()), std::io::Write::flush).context("the ledger is not complete")
    }

    /// The last words: a line per direction, or one in JSON.
    pub(super) fn print(&self) {
        let (up, down) = (self.up.summary(self.seconds), self.down.summary(self.seconds));
        if self.json {
            let summary = serde_json::json!({
                "event": "summary", "seconds": self.seconds, "clients": self.clients, "refused": self.refused,
                "up": up, "down": down,
            });
            println!("{summary}");
            return;
        }
        println!("{}\n{}", up.line("up"), down.line("down"));
        if self.refused > 0 {
            println!("{} packets were of clients beyond --clients-max", self.refused);
        }
    }
}
