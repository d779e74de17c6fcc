//! `make link-peers`, short: over one line that loses packets on the way up alone, `trocar link test`, `iperf3 -u` and an SRT transfer count
//! what the emulator's ledger says, each by its own way of counting.

use anyhow::{Context, ensure};
use trocar_media_tests::ledger::Flow;
use trocar_media_tests::peers::iperf::{self, Load};
use trocar_media_tests::peers::{Does, Line, Place, ours, srt};
use trocar_proto::link::{Direction, Link, Profile, Record};
use trocar_proto::units::Micros;

/// Six packets of a hundred are lost on the way up, in threes; none on the way down.
const LOSSY: &str =
    "delay = { shape = 'constant', ms = 5 }\nloss = { model = 'bursts', percent = 6, burst_packets = 3 }\n";
const SEED: u64 = 7;
/// What `iperf3` sends: so little that a receiver that does not get to read for a second loses nothing.
const LOAD: Load = Load { mbit_s: 0.24, bytes: 200, packets: 600 };

fn profile() -> String {
    format!("[up]\n{LOSSY}[down]\ndelay = {{ shape = 'constant', ms = 5 }}\n")
}

/// Packets that the kernel threw away before the programs that should have read them, all over this machine.
fn thrown_away() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/net/snmp")?;
    let mut lines = text.lines().filter_map(|l| l.strip_prefix("Udp: "));
    let (names, values) = (lines.next().context("Udp:")?, lines.next().context("Udp:")?);
    let found = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "RcvbufErrors");
    Ok(found.context("RcvbufErrors")?.1.parse()?)
}

/// What the model does to the packets of `iperf3` with that seed: behind the one by which it begins, on a clock that jumps.
fn replay(seed: u64) -> anyhow::Result<Flow> {
    let profile: Profile = toml::from_str(&profile())?;
    let mut link = Link::new(&profile.up, Direction::Up.seed(seed))?;
    let mut records = Vec::new();
    for n in 0..=LOAD.packets {
        let now = Micros(n * 10_000);
        let _ = link.handle_packet(now, if n == 0 { 4 } else { LOAD.bytes }, ());
        while let Some((entry, ())) = link.poll_drop() {
            records.push(Record::new(Direction::Up, 0, &entry));
        }
        while let Some(departure) = link.poll_departure(Micros(now.0 + 9_999)) {
            let record = Record::new(Direction::Up, 0, &departure.entry);
            records.push(Record { sent_us: record.due_us, ..record });
        }
    }
    Ok(Flow::of(&records, Direction::Up, |len| len == LOAD.bytes))
}

#[test]
fn link_test_counts_what_the_ledger_of_that_direction_says() -> anyhow::Result<()> {
    let m = ours::measure(Place::ours(), &profile(), SEED, &["-t", "1", "--max-rate", "2M"])?;
    let [up, down] = &m.idle;
    println!("trocar link test: {} of {} lost, {:?}", up.lost(), up.sent(), up.bursts());
    ensure!(up.lost() > 0 && down.lost() == 0, "the line loses on the way up alone: {} {}", up.lost(), down.lost());
    m.counts(0, up)?;
    m.counts(1, down)?;
    // The controls: the other direction's ledger, and one without the last packet that was lost.
    ensure!(m.counts(0, down).is_err() && m.counts(1, up).is_err(), "the wrong direction was not noticed");
    let last = up.losses().last().copied().context("a loss")?;
    ensure!(m.counts(0, &up.clone().first(last)?).is_err(), "a packet too few was not noticed");
    Ok(())
}

#[test]
fn iperf3_counts_what_the_ledger_says_up_to_the_last_packet_that_it_took() -> anyhow::Result<()> {
    let before = thrown_away()?;
    let ran = iperf::send(Place::ours(), &profile(), SEED, LOAD)?;
    let beside = thrown_away()? - before;
    println!(
        "iperf3: {} lost of the first {}; ledger {} of {}",
        ran.lost,
        ran.counted,
        ran.flow.lost(),
        ran.flow.sent()
    );
    ensure!(ran.flow.sent() == LOAD.packets, "{} packets", ran.flow.sent());
    // What the kernel threw away behind the emulator is lost, and not by the line.
    ensure!(beside > 0 || ran.accounts_for(&ran.flow).is_ok(), "{:?}", ran.accounts_for(&ran.flow));
    // The line was the one of this seed, and a ledger of another seed is not taken for it. What came behind the last packet that was
    // counted may still have been in the emulator when that was ended.
    let [model, line] = [replay(SEED)?, ran.flow.clone()].map(|flow| flow.first(ran.counted));
    ensure!(model?.losses() == line?.losses(), "another seed's line: {:?}", ran.flow.losses());
    ensure!(ran.accounts_for(&replay(SEED + 1)?).is_err(), "another seed's ledger was taken");
    ensure!(ran.accounts_for(&Flow::default()).is_err(), "an empty ledger was taken");
    Ok(())
}

#[test]
fn srt_sees_no_more_gaps_than_the_ledger_has_losses() -> anyhow::Result<()> {
    let line = Line { name: "lossy", does: Does::BothWays(LOSSY), mbit_s: 0.0, iperf_mbit_s: 0.0 };
    let before = thrown_away()?;
    let o = srt::run(&line, Place::ours(), SEED, 2)?;
    let beside = (thrown_away()? - before) as f64;
    let lost = o.lost.context("lost")?;
    println!("SRT: {} gaps, ledger {} lost of {}", lost.said, lost.truth, o.sent);
    // What is sent again may be lost again, and is no gap then: SRT sees some of the losses, and none that is not there.
    ensure!(lost.said > 0.0 && lost.said <= lost.truth + beside, "{lost:?}, {beside} thrown away");
    ensure!(o.sent as f64 > lost.truth && lost.truth > 0.0, "{o:?}");
    Ok(())
}
