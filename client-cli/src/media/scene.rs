//! The synthetic operating field: what an endoscope might show, drawn anew for each frame and cheap enough for 4K.
//!
//! The wall is a texture that is made once; a frame copies it row by row with offsets that breathe. Instrument, glints, text and
//! pixel mark are drawn on top. All motion repeats after [`PERIOD_S`], so that a recording of that length loops without a
//! jump. Pixels outside the disc, the mark and the text are never written: pictures start black (see [`Scene::blank`]) and
//! are used again.

use super::canvas::{Canvas, Disc, I420, Point, Shading, Sprite};
use super::error::MediaError;
use super::font;
use super::spec::Geometry;
use super::texture::{Generator, Texture};
use std::f32::consts::TAU;
use trocar_proto::media::pixelmark;
use trocar_proto::units::WallMicros;

/// Seconds after which all motion repeats.
const PERIOD_S: u32 = 10;
/// Same field in every run.
const SEED: u64 = 0x7472_6f63_6172;
/// Glints on the wall.
const GLINTS: usize = 34;
/// The margin of the texture around the disc, as a part of the picture's height: the largest motion.
const MARGIN: f32 = 0.045;

/// What the picture says about its own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// Captured now: the time is in the text and in the mark.
    Live(WallMicros),
    /// Part of a recording: the text says so, and the mark's time is 0.
    Replay,
}

/// Everything of the field that does not change from frame to frame.
#[derive(Debug)]
pub(crate) struct Scene {
    geometry: Geometry,
    layout: I420,
    disc: Disc,
    texture: Texture,
    glints: Vec<Glint>,
    shaft: Shading,
    steel: Shading,
    mark: pixelmark::Layout,
    grain: Option<Grain>,
}

#[derive(Debug)]
struct Glint {
    /// Place in the disc, -1 to 1.
    at: Point,
    sprite: Sprite,
    /// Where in its flicker it starts, in turns, and whole flickers per period.
    phase: f32,
    flickers: f32,
}

/// Noise of the camera's sensor, new in each frame: makes an encoder spend the bits that a real picture would take.
#[derive(Debug)]
struct Grain {
    tile: Vec<u8>,
    amplitude: u8,
}

impl Scene {
    /// The field in pictures of `geometry`. Takes about 0.4 s of CPU time at 2160 rows. `grain` is the amplitude of the
    /// sensor noise in luma steps, 0 for none.
    ///
    /// # Errors
    /// [`MediaError::Size`] where there is no such picture.
    pub(crate) fn new(geometry: Geometry, grain: u8) -> Result<Self, MediaError> {
        let Geometry { width, height, fps } = geometry.checked()?;
        let mark = pixelmark::Layout::for_height(height);
        let mark = mark.map_err(|_| MediaError::Size { width, height, fps, reason: "at least 90 rows" })?;
        let side = height as usize + 2 * margin(height);
        let mut random = Generator(SEED);
        Ok(Self {
            geometry,
            layout: I420::new(width, height),
            disc: Disc::new(width, height),
            texture: Texture::new(side, height as f32 / 2.0, SEED),
            glints: (0..GLINTS).map(|_| Glint::random(&mut random, height as f32 / 2.0)).collect(),
            shaft: metal(34.0, 92.0, 70.0),
            steel: metal(62.0, 118.0, 60.0),
            mark,
            grain: (grain > 0).then(|| Grain::new(side * 2, grain, &mut random)),
        })
    }

    /// A black picture to draw into, I420 in GStreamer's default layout.
    pub(crate) fn blank(&self) -> Vec<u8> {
        self.layout.black()
    }

    /// Bytes of a picture.
    pub(crate) const fn picture_size(&self) -> usize {
        self.layout.size
    }

    /// Draws frame `frame` as it is `seconds` after the beginning into a picture that was [blank](Self::blank) once.
    ///
    /// # Errors
    /// [`MediaError::Size`] where `picture` is too short.
    pub(crate) fn draw(&self, picture: &mut [u8], frame: u32, seconds: f64, stamp: Stamp) -> Result<(), MediaError> {
        let Geometry { width, height, fps } = self.geometry;
        let too_short = || MediaError::Size { width, height, fps, reason: "the picture's buffer is too short" };
        let mut canvas = Canvas::new(picture, &self.layout, &self.disc).ok_or_else(too_short)?;
        // One turn is the period; below it a position in f32 is exact to microseconds.
        let turn = (seconds / f64::from(PERIOD_S)).fract() as f32;
        self.wall(&mut canvas, turn);
        for glint in &self.glints {
            let (centre, strength) = glint.place(self.geometry, turn);
            canvas.glint(&glint.sprite, centre, strength);
        }
        self.instrument(&mut canvas, turn);
        if let Some(grain) = &self.grain {
            grain.apply(&mut canvas, &self.disc, frame);
        }
        self.text(&mut canvas, frame, stamp);
        let capture = if let Stamp::Live(capture) = stamp { capture } else { WallMicros(0) };
        let area = self.mark.area();
        canvas.black_box(even(area.x), even(area.y), even(area.width), even(area.height));
        let mark = pixelmark::encode(frame, capture);
        self.mark.paint(&mark, canvas.y.data, canvas.y.stride).map_err(|_| too_short())
    }

    fn wall(&self, canvas: &mut Canvas<'_>, turn: f32) {
        let Geometry { width, height, .. } = self.geometry;
        let (left, margin) = (even((width - height) / 2), margin(height));
        let (side, half) = (self.texture.side, self.texture.side / 2);
        for (y, (x0, x1)) in self.disc.rows() {
            let (dx, dy) = sway(y as f32 / height as f32, turn, margin as f32);
            let (row, column) = (moved(y + margin, dy), moved(x0 + margin, dx).saturating_sub(left));
            copy(canvas.y.span(y, x0, x1), &self.texture.y, row * side + column);
            if y.is_multiple_of(2) {
                let from = row / 2 * half + column / 2;
                copy(canvas.u.span(y / 2, x0 / 2, x1 / 2), &self.texture.u, from);
                copy(canvas.v.span(y / 2, x0 / 2, x1 / 2), &self.texture.v, from);
            }
        }
    }

    /// A grasper from the lower right: a shaft, a hinge and two jaws that open and close.
    fn instrument(&self, canvas: &mut Canvas<'_>, turn: f32) {
        let (cx, r) = (self.geometry.width as f32 / 2.0, self.geometry.height as f32 / 2.0);
        let wave = |times: f32, phase: f32| ((turn * times + phase) * TAU).sin();
        let entry = Point { x: cx + r * 1.02, y: r + r * (0.92 + 0.03 * wave(2.0, 0.3)) };
        let tip = Point {
            x: cx + r * (0.05 + 0.17 * wave(2.0, 0.0) + 0.05 * wave(5.0, 0.2)),
            y: r + r * (0.10 + 0.13 * wave(3.0, 0.1)),
        };
        let (dx, dy) = (tip.x - entry.x, tip.y - entry.y);
        let length = (dx * dx + dy * dy).sqrt().max(1.0);
        let axis = Point { x: dx / length, y: dy / length };
        let hinge = tip.step(axis, -0.25 * r, 0.0);
        let open = 0.10 + 0.17 * (1.0 + wave(4.0, 0.0));
        let fall = |p: Point| Point { x: p.x + 0.03 * r, y: p.y + 0.06 * r };
        canvas.shadow(quad(fall(entry), axis, (0.0, length - 0.25 * r), (0.066 * r, 0.066 * r)), 150);
        for turn_by in [open, -open] {
            let jaw = rotate(axis, turn_by);
            let corners = quad(hinge, jaw, (-0.02 * r, 0.27 * r), (0.034 * r, 0.012 * r));
            canvas.shadow(corners.map(fall), 165);
        }
        for turn_by in [open, -open] {
            let jaw = rotate(axis, turn_by);
            let corners = quad(hinge, jaw, (-0.02 * r, 0.27 * r), (0.034 * r, 0.012 * r));
            canvas.rod(corners, hinge, jaw, 0.034 * r, &self.steel);
        }
        let rod = |canvas: &mut Canvas<'_>, from: f32, to: f32, half: f32, shading: &Shading| {
            canvas.rod(quad(hinge, axis, (from * r, to * r), (half * r, half * r)), hinge, axis, half * r, shading);
        };
        rod(canvas, -0.12, 0.035, 0.046, &self.steel);
        rod(canvas, -0.035, 0.0, 0.020, &self.shaft);
        rod(canvas, -0.17, -0.10, 0.058, &self.steel);
        rod(canvas, -2.6, -0.17, 0.066, &self.shaft);
        rod(canvas, -0.30, -0.285, 0.066, &self.steel);
    }

    fn text(&self, canvas: &mut Canvas<'_>, frame: u32, stamp: Stamp) {
        let scale = (self.geometry.height as usize / 270).max(1);
        let (x, line) = (even(self.mark.cell(0, 0).x), font::LINE * scale);
        let box_height = (2 * line).next_multiple_of(2);
        let mark = self.mark.area();
        let y = even(mark.y + mark.height) + line;
        let y = y & !1;
        canvas.black_box(x, y, 16 * font::ADVANCE * scale, box_height);
        canvas.text(&format!("FRAME {frame:06}"), x, y, scale);
        let second = match stamp {
            Stamp::Live(capture) => time_of_day(capture),
            Stamp::Replay => "REPLAY".to_owned(),
        };
        canvas.text(&second, x, y + line, scale);
    }
}

impl Glint {
    fn random(random: &mut Generator, radius: f32) -> Self {
        let (angle, away) = (random.unit() * TAU, 0.30 + 0.58 * random.unit());
        let size = radius * (0.006 + 0.024 * random.unit() * random.unit());
        let stretch = 0.6 + 1.6 * random.unit();
        Self {
            at: Point { x: angle.cos() * away, y: angle.sin() * away },
            sprite: Sprite::ellipse((size * stretch) as usize, (size / stretch.sqrt()) as usize),
            phase: random.unit(),
            flickers: 2.0 + (random.unit() * 4.0).floor(),
        }
    }

    /// Centre in pixels and strength of 256: a glint follows the wall only in part, as a reflection does.
    fn place(&self, geometry: Geometry, turn: f32) -> (Point, u16) {
        let (radius, margin) = (geometry.height as f32 / 2.0, margin(geometry.height) as f32);
        let (dx, dy) = sway(0.5 + self.at.y / 2.0, turn, margin);
        let centre = Point {
            x: geometry.width as f32 / 2.0 + self.at.x * radius - 0.7 * dx,
            y: radius + self.at.y * radius - 0.7 * dy,
        };
        let glow = ((turn * self.flickers + self.phase) * TAU).sin();
        (centre, (150.0 + 100.0 * glow) as u16)
    }
}

impl Grain {
    fn new(length: usize, amplitude: u8, random: &mut Generator) -> Self {
        let amplitude = amplitude.min(64);
        let span = u32::from(amplitude) * 2 + 1;
        Self { tile: (0..length.max(64)).map(|_| (random.bits() % span) as u8).collect(), amplitude }
    }

    fn apply(&self, canvas: &mut Canvas<'_>, disc: &Disc, frame: u32) {
        let mut random = Generator(u64::from(frame) << 32);
        let half = self.tile.len() / 2;
        for (y, (x0, x1)) in disc.rows() {
            let from = random.bits() as usize % half.max(1);
            let noise = self.tile.get(from..).unwrap_or_default();
            for (pixel, n) in canvas.y.span(y, x0, x1).unwrap_or_default().iter_mut().zip(noise) {
                *pixel = pixel.saturating_add(*n).saturating_sub(self.amplitude);
            }
        }
    }
}

/// How far the wall has moved in the row at `y` (0 at the top, 1 at the bottom), in pixels, at most `most` either way:
/// slow breathing, and waves that run down the wall.
fn sway(y: f32, turn: f32, most: f32) -> (f32, f32) {
    let wave = |times: f32, phase: f32| ((turn * times + phase) * TAU).sin();
    let across = 0.50 * wave(2.0, 0.0) + 0.28 * wave(3.0, 0.3 - y * 1.3);
    let down = 0.48 * wave(2.0, 0.17) + 0.20 * wave(5.0, -y);
    (across * most, down * most)
}

/// Corners around a rod on `axis`, from `along.0` to `along.1` pixels away from `origin`, with a half width at each end.
fn quad(origin: Point, axis: Point, along: (f32, f32), half: (f32, f32)) -> [Point; 4] {
    [
        origin.step(axis, along.0, -half.0),
        origin.step(axis, along.1, -half.1),
        origin.step(axis, along.1, half.1),
        origin.step(axis, along.0, half.0),
    ]
}

fn rotate(axis: Point, angle: f32) -> Point {
    let (sin, cos) = angle.sin_cos();
    Point { x: axis.x * cos - axis.y * sin, y: axis.x * sin + axis.y * cos }
}

/// A round rod: dark at both edges, a streak of light beside its middle.
fn metal(dark: f32, body: f32, streak: f32) -> Shading {
    let mut shading = [0; 256];
    for (i, level) in shading.iter_mut().enumerate() {
        let across = i as f32 / 127.5 - 1.0;
        let round = (1.0 - across * across).max(0.0).sqrt();
        let light = (-((across + 0.28) / 0.16).powi(2)).exp();
        *level = (dark + body * round * round + streak * light).clamp(16.0, 235.0) as u8;
    }
    shading
}

/// `HH:MM:SS.mmm UTC` of a point in time.
fn time_of_day(at: WallMicros) -> String {
    let ms = at.0 / 1_000 % 86_400_000;
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03} UTC", ms % 1_000)
}

fn copy(to: Option<&mut [u8]>, texture: &[u8], from: usize) {
    if let Some(to) = to
        && let Some(source) = texture.get(from..from + to.len())
    {
        to.copy_from_slice(source);
    }
}

/// The texture's margin in pixels, even.
fn margin(height: u32) -> usize {
    ((height as f32 * MARGIN) as usize).next_multiple_of(2)
}

fn moved(position: usize, by: f32) -> usize {
    position.saturating_add_signed(by.round() as isize)
}

const fn even(n: u32) -> usize {
    n as usize & !1
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Geometry = Geometry { width: 640, height: 360, fps: 30 };

    #[test]
    fn the_mark_of_a_drawn_frame_reads_back() {
        let scene = Scene::new(SMALL, 4).unwrap();
        let capture = WallMicros(1_790_000_000_123_000);
        let mut picture = scene.blank();
        for frame in 0..3 {
            scene.draw(&mut picture, frame, f64::from(frame) / 30.0, Stamp::Live(capture)).unwrap();
            let rows = pixelmark::Layout::for_height(360).unwrap().read(&picture, 640).unwrap();
            assert_eq!(pixelmark::decode(rows), Ok((frame, capture)));
        }
    }

    #[test]
    fn a_used_picture_gives_the_same_frame_as_a_blank_one() {
        for geometry in
            [SMALL, Geometry { width: 642, height: 362, fps: 30 }, Geometry { width: 480, height: 480, fps: 30 }]
        {
            let scene = Scene::new(geometry, 2).unwrap();
            let (mut used, mut blank) = (scene.blank(), scene.blank());
            scene.draw(&mut used, 1, 3.3, Stamp::Live(WallMicros(1))).unwrap();
            scene.draw(&mut used, 2, 7.1, Stamp::Replay).unwrap();
            scene.draw(&mut blank, 2, 7.1, Stamp::Replay).unwrap();
            assert!(used == blank, "{geometry}");
        }
    }

    #[test]
    fn the_field_moves_and_comes_back() {
        let scene = Scene::new(SMALL, 0).unwrap();
        let at = |seconds: f64| {
            let mut picture = scene.blank();
            scene.draw(&mut picture, 0, seconds, Stamp::Replay).unwrap();
            picture
        };
        assert!(at(0.0) != at(0.5));
        assert!(at(0.25) == at(0.25 + f64::from(PERIOD_S)));
    }

    #[test]
    fn text_of_the_time() {
        assert_eq!(time_of_day(WallMicros(86_399_987_654)), "23:59:59.987 UTC");
        assert_eq!(time_of_day(WallMicros(1_700_000_000_123_456)), "22:13:20.123 UTC");
    }

    #[test]
    fn the_wall_covers_the_disc_however_it_sways() {
        for turn in 0..200 {
            for y in 0..=20 {
                let (dx, dy) = sway(y as f32 / 20.0, turn as f32 / 200.0, 16.0);
                assert!(dx.abs() < 15.5 && dy.abs() < 15.5, "{turn} {y}: {dx} {dy}");
            }
        }
    }
}
