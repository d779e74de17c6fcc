//! Clients that nobody here wrote, driven by thin scripts of ours (`media-tests/foreign`), against a relay of their own.
//! A cell of the matrix is one client, one codec, one direction. It works when the other side *decoded* the test card and
//! heard the tone; that a connection came up counts for nothing.

pub mod cell;
pub mod client;
pub mod hub;
pub mod part;
pub mod report;

pub use cell::{Cell, Control};
pub use client::{Client, Wire};
pub use hub::Hub;

use anyhow::{Context, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Pictures a second of the test card.
const CARD_FPS: f64 = 15.0;

/// What is sent: a picture in one codec, sound in Opus, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Media {
    /// RTP name of the picture's codec.
    pub video: Option<&'static str>,
    /// Whether there is sound.
    pub sound: bool,
}

impl Media {
    /// A picture without sound.
    #[must_use]
    pub const fn picture(codec: &'static str) -> Self {
        Self { video: Some(codec), sound: false }
    }

    /// Sound without a picture.
    pub const SOUND: Self = Self { video: None, sound: true };

    /// VP8 and Opus over one connection.
    pub const BOTH: Self = Self { video: Some("VP8"), sound: true };

    /// As it stands at the head of a column.
    #[must_use]
    pub fn label(self) -> String {
        match (self.video, self.sound) {
            (Some(video), true) => format!("{video}+Opus"),
            (Some(video), false) => video.to_owned(),
            (None, _) => "Opus".to_owned(),
        }
    }
}

/// Says whether a viewer's result shows the test card and the tone of `hz`, and what it shows, in words.
///
/// # Errors
/// What is wrong with it, in words.
pub fn judge(media: Media, hz: u32, seconds: u32, result: &Value) -> Result<String, String> {
    let mut said = Vec::new();
    if media.video.is_some() {
        said.push(judge_picture(seconds, result.get("video").unwrap_or(&Value::Null))?);
    }
    if media.sound {
        said.push(judge_sound(hz, result.get("audio").unwrap_or(&Value::Null))?);
    }
    Ok(said.join("; "))
}

fn judge_picture(seconds: u32, seen: &Value) -> Result<String, String> {
    let number = |pointer: &str| seen.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0);
    let (frames, left, right, columns) =
        (number("/frames"), number("/greys/0"), number("/greys/1"), number("/columns"));
    if frames == 0.0 {
        return Err("no picture was decoded".to_owned());
    }
    let said = format!(
        "{frames} frames {}x{}, greys {left} and {right} of 64 and 192, mark in {columns} of 8 columns",
        number("/width"),
        number("/height"),
    );
    // Two fifths of the whole time's frames: the connection, the first key frame and a loaded machine take the rest.
    let enough = frames >= CARD_FPS * f64::from(seconds) * 0.4;
    let greys = (left - 64.0).abs() <= 24.0 && (right - 192.0).abs() <= 24.0;
    if enough && greys && columns >= 6.0 { Ok(said) } else { Err(format!("not the test card: {said}")) }
}

fn judge_sound(hz: u32, heard: &Value) -> Result<String, String> {
    let number = |name: &str| heard.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let (frames, found) = (number("frames"), number("hz"));
    if frames == 0.0 {
        return Err("no sound was decoded".to_owned());
    }
    let said = format!("{frames} blocks of sound, {found} of {hz} Hz");
    if (found - f64::from(hz)).abs() <= f64::from(hz) * 0.02 { Ok(said) } else { Err(format!("not the tone: {said}")) }
}

/// Where the scripts are.
#[must_use]
pub fn folder() -> PathBuf {
    crate::workspace().join("media-tests/foreign")
}

/// What `scripts/foreign.sh` installs below the cache.
///
/// # Errors
/// Where it is not there.
pub fn installed(name: &str) -> anyhow::Result<PathBuf> {
    let cache = std::env::var_os("TROCAR_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/trocar")));
    let found = cache.context("neither TROCAR_CACHE nor HOME is set")?.join(name);
    if !found.exists() {
        bail!("{} is missing: run `scripts/foreign.sh`", found.display());
    }
    Ok(found)
}

/// The test card as a file: H.264 constrained baseline, 320x240, a key frame each second, a minute long.
///
/// # Errors
/// Where ffmpeg is missing or fails.
pub fn make_card(dir: &Path) -> anyhow::Result<PathBuf> {
    let card = dir.join("card.mp4");
    let field = "color=c=0x404040:s=320x240:r=15:d=60,format=rgb24,drawbox=x=160:y=0:w=160:h=180:c=0xc0c0c0:t=fill,\
                 drawbox=x=0:y=180:w=320:h=60:c=black:t=fill";
    let mark = "color=c=white:s=40x60:r=15:d=60";
    let join = "[0][1]overlay=x='40*mod(floor(t*4),8)':y=180,format=yuv420p";
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "error", "-y", "-f", "lavfi", "-i", field, "-f", "lavfi", "-i", mark]);
    command.args(["-filter_complex", join, "-c:v", "libx264", "-profile:v", "baseline", "-tune", "zerolatency"]);
    command.args(["-g", "15", "-b:v", "400k", "-x264-params", "repeat-headers=1"]).arg(&card);
    let done = command.output().context("ffmpeg is missing: run `scripts/foreign.sh`")?;
    if !done.status.success() {
        bail!("ffmpeg made no test card: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(card)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop the process: that is how it fails")]

    use super::*;
    use serde_json::json;

    fn seen(frames: u32, greys: [u32; 2], columns: u32) -> Value {
        json!({ "video": { "frames": frames, "width": 320, "height": 240, "greys": greys, "columns": columns } })
    }

    #[test]
    fn the_card_is_told_from_other_pictures() {
        let h264 = Media::picture("H264");
        assert!(judge(h264, 0, 4, &seen(55, [56, 205], 8)).is_ok());
        for other in [seen(55, [64, 192], 1), seen(55, [128, 128], 8), seen(12, [64, 192], 8), json!({ "video": null })]
        {
            judge(h264, 0, 4, &other).unwrap_err();
        }
    }

    #[test]
    fn the_tone_is_told_from_silence_and_other_tones() {
        let heard = |hz: f64| json!({ "audio": { "frames": 200, "hz": hz } });
        assert!(judge(Media::SOUND, 440, 4, &heard(439.5)).is_ok());
        for other in [heard(0.0), heard(460.0), json!({ "audio": null })] {
            judge(Media::SOUND, 440, 4, &other).unwrap_err();
        }
    }
}
