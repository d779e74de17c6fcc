//! `make interop`: every foreign client × codec × direction against a relay of this tree, one cell at a time, in a network
//! of its own. Prints the table and keeps it in docs/INTEROP.md. Words on the command line choose cells whose label has
//! all of them; then nothing is kept. `--part 2/4` runs the second quarter; the table is written once all parts are there.

use anyhow::{Context, bail};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Instant;
use trocar_media_tests::foreign::part::Part;
use trocar_media_tests::foreign::report::{Row, render, write};
use trocar_media_tests::foreign::{Cell, Client, Control, Hub, Media, Wire};

/// Set inside the network of its own.
const INSIDE: &str = "TROCAR_INTEROP_INSIDE";
/// The relay's media address there. Not loopback: Firefox and GStreamer gather no candidates there.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 1);

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if std::env::var_os(INSIDE).is_none() {
        return Err(enter(&words));
    }
    let part = match words.as_slice() {
        [flag, part] if flag == "--part" => Some(Part::parse(part)?),
        _ => None,
    };
    // The number of a cell chooses its tone: it is the same in every part.
    let mut cells: Vec<(u32, Cell)> = (0u32..).zip(matrix()).collect();
    match &part {
        Some(part) => part.choose(&mut cells),
        None => cells.retain(|(_, c)| words.iter().all(|w| c.label().contains(w.as_str()))),
    }
    if cells.is_empty() {
        bail!("no cell's label has all of {words:?}");
    }
    let mut rows = run(&cells)?;
    let mut whole = words.is_empty();
    if let Some(part) = &part {
        part.keep(&rows)?;
        if let Some(all) = part.gather(matrix())? {
            (rows, whole) = (all, true);
        }
    }
    let table = render(&rows);
    println!("\n{table}");
    if whole {
        let file = trocar_media_tests::workspace().join("docs/INTEROP.md");
        write(&file, &table).with_context(|| file.display().to_string())?;
    }
    let broken = rows
        .iter()
        .filter(|r| r.cell.control != Control::None && r.outcome.as_ref().is_err_and(|why| !why.starts_with("void")))
        .count();
    if broken > 0 {
        bail!("{broken} negative controls did not fail: the table proves nothing");
    }
    Ok(())
}

/// One cell at a time, against one relay.
fn run(cells: &[(u32, Cell)]) -> anyhow::Result<Vec<Row>> {
    let mut hub = Hub::start(IpAddr::V4(ADDRESS))?;
    let mut rows = Vec::new();
    for &(number, cell) in cells {
        let began = Instant::now();
        let outcome = cell.run(&mut hub, number, checker(&cell));
        let (sign, said) = outcome.as_ref().map_or_else(|why| ("NO ", why), |said| ("ok ", said));
        println!("{sign} {:5.1} s  {}: {said}", began.elapsed().as_secs_f64(), cell.label());
        if outcome.as_ref().is_err_and(|why| why.starts_with("THE RELAY DIED")) {
            hub = Hub::start(IpAddr::V4(ADDRESS))?;
        }
        rows.push(Row { cell, outcome });
    }
    Ok(rows)
}

/// Starts this program again in a network namespace with one link and a default route; returns only where that fails.
fn enter(words: &[String]) -> anyhow::Error {
    let net = format!(
        "ip link set lo up && ip link add media type veth peer name far && ip addr add {ADDRESS}/24 dev media && \
         ip link set media up && ip link set far up && ip route add default dev media && exec \"$0\" \"$@\""
    );
    let Ok(me) = std::env::current_exe() else { return anyhow::anyhow!("where this program is, is not known") };
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    let mut command = Command::new("unshare");
    command.args(if root { ["--net"].as_slice() } else { ["--net", "--map-root-user"].as_slice() });
    command.args(["sh", "-c", &net]).arg(me).args(words).env(INSIDE, "1");
    anyhow::Error::new(command.exec()).context("unshare (util-linux)")
}

/// Who looks at what a client publishes: Chromium, which decodes most; what Chromium publishes is looked at by a stack
/// that shares no code with it, where that has the codec.
fn checker(cell: &Cell) -> Client {
    match (cell.client, cell.media.video) {
        (_, Some("H265")) => Client::QuinnDatagram,
        (Client::Chromium | Client::Firefox, None | Some("H264" | "VP8")) => Client::Aiortc,
        _ => Client::Chromium,
    }
}

/// Every cell, the controls of a client after its cells.
fn matrix() -> Vec<Cell> {
    const ALL: &[&str] = &["H264", "VP8", "VP9", "AV1", "Opus", "VP8+Opus"];
    const SOME: &[&str] = &["H264", "VP8", "Opus", "VP8+Opus"];
    let mut cells = Vec::new();
    let mut add = |client, publish, media: &[&'static str], controls: &[Control]| {
        let media: Vec<Media> = media.iter().map(|m| named(m)).collect();
        cells.extend(media.iter().map(|m| Cell::new(client, publish, *m)));
        let first = media.first().copied().unwrap_or(Media::SOUND);
        cells.extend(controls.iter().map(|c| Cell { control: *c, ..Cell::new(client, publish, first) }));
    };
    let (token, both) = ([Control::WrongToken].as_slice(), [Control::WrongToken, Control::NoPublisher].as_slice());
    let nobody = [Control::NoPublisher].as_slice();
    for (client, media) in [
        (Client::Aiortc, SOME),
        (Client::Chromium, ALL),
        (Client::Firefox, ALL),
        (Client::GstClient, ALL),
        (Client::GstSimple, SOME),
        (Client::WebrtcCrate, &["H264", "H265", "VP8", "VP9", "AV1"]),
    ] {
        add(client, true, media, token);
        add(client, false, media, both);
    }
    add(Client::QuinnDatagram, true, &["H264", "VP8", "VP9", "H265", "Opus"], nobody);
    add(Client::QuinnDatagram, false, &["H264", "H265", "VP8", "VP9", "Opus"], token);
    add(Client::QuinnStream, true, &["H264", "VP8", "Opus"], nobody);
    add(Client::QuinnStream, false, &["H264", "VP8", "Opus"], token);
    add(Client::Ffmpeg(Wire::Srt), true, &["H264", "H265"], nobody);
    add(Client::Ffmpeg(Wire::Ts), true, &["H264", "H265"], nobody);
    add(Client::Ffmpeg(Wire::Rtp), true, &["H264", "H265", "VP8", "VP9"], nobody);
    add(Client::Ffmpeg(Wire::RtpTs), true, &["H264"], nobody);
    add(Client::Ffmpeg(Wire::Rtsp), true, &["H264"], &[]);
    add(Client::FfmpegWhip, true, &["H264"], &[]);
    add(Client::Gstreamer(Wire::Srt), true, &["H264", "H265"], nobody);
    add(Client::Gstreamer(Wire::Rtp), true, &["H264", "H265", "VP8", "VP9"], nobody);
    add(Client::Gstreamer(Wire::Rtsp), true, &["H264", "H265"], nobody);
    cells
}

fn named(media: &'static str) -> Media {
    match media {
        "Opus" => Media::SOUND,
        "VP8+Opus" => Media::BOTH,
        codec => Media::picture(codec),
    }
}
