//! The test card of `media-tests/foreign/card.py`, drawn into and read out of I420 luma.

use serde_json::{Value, json};

/// Size and rate of the card.
pub const WIDTH: usize = 320;
pub const HEIGHT: usize = 240;
pub const FPS: usize = 15;
const COLUMNS: usize = 8;
const STEPS_PER_SECOND: usize = 4;

fn limited(grey: usize) -> u8 {
    (16 + grey * 219 / 255) as u8
}

/// One frame, I420.
pub fn draw(frame: usize) -> Vec<u8> {
    let column = frame * STEPS_PER_SECOND / FPS % COLUMNS;
    let luma = (0..HEIGHT * WIDTH).map(|i| {
        let (x, y) = (i % WIDTH, i / WIDTH);
        let grey = if y >= HEIGHT * 3 / 4 {
            if x * COLUMNS / WIDTH == column { 255 } else { 0 }
        } else if x < WIDTH / 2 {
            64
        } else {
            192
        };
        limited(grey)
    });
    luma.chain(std::iter::repeat_n(128, WIDTH * HEIGHT / 2)).collect()
}

/// What was seen of the card.
#[derive(Default)]
pub struct Picture {
    frames: usize,
    size: (usize, usize),
    greys: [i32; 2],
    columns: [bool; COLUMNS],
}

impl Picture {
    /// Takes a luma plane in video range.
    pub fn see(&mut self, luma: &[u8], stride: usize, (width, height): (usize, usize)) {
        let mean = |x: std::ops::Range<f64>, y: std::ops::Range<f64>| {
            let (x0, x1) = ((width as f64 * x.start) as usize, (width as f64 * x.end) as usize);
            let (y0, y1) = ((height as f64 * y.start) as usize, (height as f64 * y.end) as usize);
            let sum: f64 = (y0..y1).flat_map(|r| &luma[r * stride + x0..r * stride + x1]).map(|v| f64::from(*v)).sum();
            (sum / (((x1 - x0) * (y1 - y0)).max(1) as f64) - 16.0) * 255.0 / 219.0
        };
        self.frames += 1;
        self.size = (width, height);
        self.greys = [mean(0.05..0.45, 0.05..0.7).round() as i32, mean(0.55..0.95, 0.05..0.7).round() as i32];
        let strip: Vec<f64> = (0..COLUMNS)
            .map(|i| mean((i as f64 + 0.25) / COLUMNS as f64..(i as f64 + 0.75) / COLUMNS as f64, 0.8..0.95))
            .collect();
        let white: Vec<usize> = (0..COLUMNS).filter(|i| strip[*i] > 150.0).collect();
        if let [one] = white[..]
            && strip.iter().filter(|v| **v < 100.0).count() == COLUMNS - 1
        {
            self.columns[one] = true;
        }
    }

    /// As the other clients report it.
    pub fn report(&self) -> Value {
        if self.frames == 0 {
            return Value::Null;
        }
        let columns = self.columns.iter().filter(|c| **c).count();
        json!({ "frames": self.frames, "width": self.size.0, "height": self.size.1, "greys": self.greys, "columns": columns })
    }
}

/// What was heard of the tone: rising zero crossings over the last second of 48 kHz mono.
#[derive(Default)]
pub struct Sound {
    frames: usize,
    samples: Vec<f32>,
}

impl Sound {
    /// Samples a second.
    pub const RATE: usize = 48_000;

    /// Takes a block of samples.
    pub fn hear(&mut self, block: impl Iterator<Item = f32>) {
        self.frames += 1;
        self.samples.extend(block);
        let surplus = self.samples.len().saturating_sub(Self::RATE);
        self.samples.drain(..surplus);
    }

    /// As the other clients report it.
    pub fn report(&self) -> Value {
        if self.frames == 0 {
            return Value::Null;
        }
        let crossings: Vec<usize> =
            self.samples.windows(2).enumerate().filter(|(_, w)| w[0] < 0.0 && w[1] >= 0.0).map(|(i, _)| i).collect();
        let hz = match (crossings.first(), crossings.last()) {
            (Some(a), Some(b)) if b > a => (crossings.len() - 1) as f64 * Self::RATE as f64 / (b - a) as f64,
            _ => 0.0,
        };
        let level = (self.samples.iter().map(|s| s * s).sum::<f32>() / self.samples.len().max(1) as f32).sqrt();
        json!({ "frames": self.frames, "hz": hz.round(), "level": level })
    }
}
