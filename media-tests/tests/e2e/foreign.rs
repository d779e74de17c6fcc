//! Two of the clients of `make interop`, in every test run: aiortc over WHIP and WHEP, ffmpeg over SRT, MPEG-TS and RTP.
//! What comes through is decoded; each has its negative controls.

use anyhow::ensure;
use std::net::{IpAddr, Ipv4Addr};
use trocar_media_tests::foreign::{Cell, Client, Control, Hub, Media, Wire};

/// Runs cells one after the other against one relay; all of them, so that a failure shows what else works.
fn run(cells: &[Cell]) -> anyhow::Result<()> {
    let mut hub = Hub::start(IpAddr::V4(Ipv4Addr::LOCALHOST))?;
    let mut failed = Vec::new();
    for (number, cell) in (0u32..).zip(cells) {
        match cell.run(&mut hub, number, Client::Aiortc) {
            Ok(said) => println!("ok  {}: {said}", cell.label()),
            Err(why) => failed.push(format!("{}: {why}", cell.label())),
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

#[test]
fn aiortc_publishes_and_views_pictures_and_sound_and_is_refused_with_a_wrong_token() -> anyhow::Result<()> {
    let (publish, view) = (|m| Cell::new(Client::Aiortc, true, m), |m| Cell::new(Client::Aiortc, false, m));
    let h264 = Media::picture("H264");
    run(&[
        publish(Media::BOTH),
        publish(h264),
        view(h264),
        Cell { control: Control::WrongToken, ..publish(h264) },
        Cell { control: Control::WrongToken, ..view(h264) },
        Cell { control: Control::NoPublisher, ..view(h264) },
    ])
}

#[test]
fn ffmpeg_sends_by_srt_mpeg_ts_and_rtp_and_nothing_is_seen_without_it() -> anyhow::Result<()> {
    let by = |wire| Cell::new(Client::Ffmpeg(wire), true, Media::picture("H264"));
    run(&[by(Wire::Srt), by(Wire::Ts), by(Wire::Rtp), Cell { control: Control::NoPublisher, ..by(Wire::Rtp) }])
}
