//! What cameras and microphones of a test's browsers make: a tone and a picture that tell whose they are.

use std::f64::consts::TAU;
use std::io::Write as _;
use std::path::{Path, PathBuf};

const SAMPLES_PER_SECOND: u32 = 48_000;
const WIDTH: usize = 640;
const HEIGHT: usize = 360;
const EIGHTHS: usize = 8;

/// A tone of `hz` as a WAV file (16 bit, one channel) of one second, which has a whole number of periods: played again and
/// again it has no seam. It comes as two words a second: a browser takes a steady tone for noise, and suppresses it.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_tone(dir: &Path, hz: u32) -> anyhow::Result<PathBuf> {
    let bytes = SAMPLES_PER_SECOND * 2;
    let mut wav = Vec::new();
    wav.extend(b"RIFF");
    wav.extend((36 + bytes).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    // PCM, one channel.
    wav.extend([1, 0, 1, 0]);
    wav.extend(SAMPLES_PER_SECOND.to_le_bytes());
    wav.extend((SAMPLES_PER_SECOND * 2).to_le_bytes());
    wav.extend([2, 0, 16, 0]);
    wav.extend(b"data");
    wav.extend(bytes.to_le_bytes());
    for i in 0..SAMPLES_PER_SECOND {
        let second = f64::from(i) / f64::from(SAMPLES_PER_SECOND);
        let loud = (TAU * f64::from(hz) * second).sin() * word(second % 0.5) * 8_000.0;
        let [low, high, ..] = (loud.round() as i32).to_le_bytes();
        wav.extend([low, high]);
    }
    let path = dir.join(format!("tone-{hz}.wav"));
    std::fs::write(&path, wav)?;
    Ok(path)
}

/// How loud a word is, 0 to 1, so many seconds after it began: up, steady, down, and a pause.
fn word(second: f64) -> f64 {
    (second / 0.03).min((0.38 - second) / 0.03).clamp(0.0, 1.0)
}

/// A camera's picture as a Y4M file, 640x360 at 15 frames a second: the left half as bright as the first number says, the
/// right half as the second, and along the lowest quarter a mark that steps from eighth to eighth each fifteenth of a second.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_camera(dir: &Path, left: u8, right: u8) -> anyhow::Result<PathBuf> {
    let path = dir.join(format!("camera-{left}-{right}.y4m"));
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
    writeln!(file, "YUV4MPEG2 W{WIDTH} H{HEIGHT} F15:1 Ip A1:1 C420jpeg")?;
    for mark in 0..EIGHTHS {
        writeln!(file, "FRAME")?;
        for y in 0..HEIGHT {
            let row: Vec<u8> = (0..WIDTH)
                .map(|x| match (y * 4 >= HEIGHT * 3, x * EIGHTHS / WIDTH == mark, x * 2 < WIDTH) {
                    (true, true, _) => 235,
                    (true, false, _) => 16,
                    (false, _, true) => left,
                    (false, _, false) => right,
                })
                .collect();
            file.write_all(&row)?;
        }
        file.write_all(&[128; WIDTH * HEIGHT / 2])?;
    }
    file.flush()?;
    Ok(path)
}
