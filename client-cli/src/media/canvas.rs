//! Drawing into a planar 4:2:0 picture of 8 bits: spans clipped to the scope's disc, metal, shadows, glints and text.

use super::font;

/// Video black and white and the chroma of grey (ITU-R BT.709, limited range).
pub(super) const BLACK: u8 = 16;
pub(super) const WHITE: u8 = 235;
pub(super) const GREY: u8 = 128;

/// A position in the picture, in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) x: f32,
    pub(super) y: f32,
}

impl Point {
    /// This point moved `along` pixels in the direction of `axis` and `across` pixels to its right.
    pub(super) fn step(self, axis: Self, along: f32, across: f32) -> Self {
        Self { x: self.x + axis.x * along - axis.y * across, y: self.y + axis.y * along + axis.x * across }
    }
}

/// Where the planes of an I420 picture are in its buffer: GStreamer's own layout, rows rounded up to 4 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct I420 {
    pub(super) y_stride: usize,
    pub(super) c_stride: usize,
    u_offset: usize,
    v_offset: usize,
    pub(super) size: usize,
}

impl I420 {
    /// The layout of a picture of even sides.
    pub(super) const fn new(width: u32, height: u32) -> Self {
        let (width, height) = (width as usize, height as usize);
        let (y_stride, c_stride) = (width.next_multiple_of(4), (width / 2).next_multiple_of(4));
        let (u_offset, chroma) = (y_stride * height, c_stride * (height / 2));
        Self { y_stride, c_stride, u_offset, v_offset: u_offset + chroma, size: u_offset + 2 * chroma }
    }

    /// A black picture.
    pub(super) fn black(&self) -> Vec<u8> {
        let mut picture = vec![GREY; self.size];
        picture.iter_mut().take(self.u_offset).for_each(|y| *y = BLACK);
        picture
    }
}

/// One plane of a picture.
#[derive(Debug)]
pub(super) struct Plane<'a> {
    pub(super) data: &'a mut [u8],
    pub(super) stride: usize,
}

impl Plane<'_> {
    /// The bytes `x0..x1` of row `y`; none where that is outside.
    pub(super) fn span(&mut self, y: usize, x0: usize, x1: usize) -> Option<&mut [u8]> {
        let row = y.checked_mul(self.stride)?;
        self.data.get_mut(row.checked_add(x0)?..row.checked_add(x1)?)
    }

    fn fill(&mut self, y: usize, x0: usize, x1: usize, value: u8) {
        if let Some(span) = self.span(y, x0, x1) {
            span.fill(value);
        }
    }
}

/// The scope's round field of view: for each row the columns inside it, even at both ends.
#[derive(Debug)]
pub(super) struct Disc {
    chords: Vec<(usize, usize)>,
}

impl Disc {
    /// A disc as high as the picture, in its middle.
    pub(super) fn new(width: u32, height: u32) -> Self {
        let (cx, radius) = (f64::from(width) / 2.0, f64::from(height) / 2.0);
        let chord = |y: u32| {
            let dy = f64::from(y) + 0.5 - radius;
            let half = (radius * radius - dy * dy).max(0.0).sqrt();
            // Positive and smaller than the width: the cast only drops the fraction.
            let left = (cx - half).max(0.0) as usize;
            (left.next_multiple_of(2), ((cx + half) as usize).min(width as usize) & !1)
        };
        Self { chords: (0..height).map(chord).collect() }
    }

    /// The columns of each row, from the top.
    pub(super) fn rows(&self) -> impl Iterator<Item = (usize, (usize, usize))> + '_ {
        self.chords.iter().copied().enumerate().filter(|(_, (x0, x1))| x0 < x1)
    }

    /// The part of `x0..x1` in row `y` that is inside.
    fn clip(&self, y: usize, x0: f32, x1: f32) -> Option<(usize, usize)> {
        let (left, right) = self.chords.get(y).copied()?;
        // Saturating casts: what is left of the picture becomes 0.
        let (x0, x1) = ((x0.round() as usize).max(left), (x1.round() as usize).min(right));
        (x0 < x1).then_some((x0, x1))
    }
}

/// Brightness across a round metal rod: 256 steps from one edge to the other.
pub(super) type Shading = [u8; 256];

/// A glint: opacity per pixel, an ellipse with a soft edge.
#[derive(Debug)]
pub(super) struct Sprite {
    width: usize,
    alpha: Vec<u8>,
}

impl Sprite {
    /// An ellipse of the given radii in pixels, at least 2 each.
    pub(super) fn ellipse(rx: usize, ry: usize) -> Self {
        let (rx, ry) = (rx.max(2), ry.max(2));
        let (width, height) = (2 * rx + 1, 2 * ry + 1);
        let alpha = |i: usize| {
            let (x, y) = ((i % width) as f32 / rx as f32 - 1.0, (i / width) as f32 / ry as f32 - 1.0);
            let inside = (1.0 - x * x - y * y).max(0.0);
            (255.0 * (inside * 1.8).min(1.0)) as u8
        };
        Self { width, alpha: (0..width * height).map(alpha).collect() }
    }
}

/// A picture being drawn.
#[derive(Debug)]
pub(super) struct Canvas<'a> {
    pub(super) y: Plane<'a>,
    pub(super) u: Plane<'a>,
    pub(super) v: Plane<'a>,
    disc: &'a Disc,
}

impl<'a> Canvas<'a> {
    /// The planes of `picture`; none where it is shorter than its layout.
    pub(super) fn new(picture: &'a mut [u8], layout: &I420, disc: &'a Disc) -> Option<Self> {
        let (y, chroma) = picture.split_at_mut_checked(layout.u_offset)?;
        let (u, v) = chroma.split_at_mut_checked(layout.v_offset - layout.u_offset)?;
        Some(Self {
            y: Plane { data: y, stride: layout.y_stride },
            u: Plane { data: u, stride: layout.c_stride },
            v: Plane { data: v, stride: layout.c_stride },
            disc,
        })
    }

    /// A rod between two edges: `corners` in order around it, shaded across `axis` (a unit vector) by the distance from
    /// the line through `middle`, `half_width` pixels to either edge.
    pub(super) fn rod(&mut self, corners: [Point; 4], middle: Point, axis: Point, half_width: f32, shading: &Shading) {
        let scale = 127.5 / half_width.max(1.0);
        let (step, disc) = (-axis.y * scale, self.disc);
        for_spans(corners, |y, left, right| {
            let Some((x0, x1)) = disc.clip(y, left, right) else { return };
            let across = (x0 as f32 + 0.5 - middle.x) * -axis.y + (y as f32 + 0.5 - middle.y) * axis.x;
            // 16.16 fixed point: one addition and one look-up a pixel.
            let (mut at, step) = (((across * scale + 127.5) * 65_536.0) as i32, (step * 65_536.0) as i32);
            for pixel in self.y.span(y, x0, x1).unwrap_or_default() {
                let index = (at >> 16).clamp(0, 255) as usize;
                *pixel = shading.get(index).copied().unwrap_or(BLACK);
                at = at.wrapping_add(step);
            }
            if y.is_multiple_of(2) {
                self.u.fill(y / 2, x0 / 2, x1.div_ceil(2), GREY + 2);
                self.v.fill(y / 2, x0 / 2, x1.div_ceil(2), GREY - 2);
            }
        });
    }

    /// Darkens the inside of `corners` to `keep` / 256 of its brightness.
    pub(super) fn shadow(&mut self, corners: [Point; 4], keep: u16) {
        let disc = self.disc;
        for_spans(corners, |y, left, right| {
            let Some((x0, x1)) = disc.clip(y, left, right) else { return };
            for pixel in self.y.span(y, x0, x1).unwrap_or_default() {
                *pixel = ((u16::from(*pixel) * keep) >> 8) as u8;
            }
        });
    }

    /// Blends white over the picture around a centre, `strength` 0 to 256.
    pub(super) fn glint(&mut self, sprite: &Sprite, centre: Point, strength: u16) {
        let height = sprite.alpha.len() / sprite.width.max(1);
        let (left, top) = (centre.x - sprite.width as f32 / 2.0, centre.y - height as f32 / 2.0);
        for (dy, alpha) in sprite.alpha.chunks_exact(sprite.width.max(1)).enumerate() {
            let y = top.max(0.0) as usize + dy;
            let Some((x0, x1)) = self.disc.clip(y, left, left + sprite.width as f32) else { continue };
            let skip = x0.saturating_sub(left.round().max(0.0) as usize);
            let alpha = alpha.get(skip..).unwrap_or_default();
            for (pixel, a) in self.y.span(y, x0, x1).unwrap_or_default().iter_mut().zip(alpha) {
                *pixel = towards(*pixel, WHITE, u16::from(*a) * strength / 256);
            }
            if y.is_multiple_of(2) {
                for plane in [&mut self.u, &mut self.v] {
                    let span = plane.span(y / 2, x0 / 2, x1 / 2).unwrap_or_default();
                    for (pixel, a) in span.iter_mut().zip(alpha.iter().step_by(2)) {
                        *pixel = towards(*pixel, GREY, u16::from(*a) * strength / 256);
                    }
                }
            }
        }
    }

    /// Fills `width` x `height` pixels from (x, y), even numbers all, with black.
    pub(super) fn black_box(&mut self, x: usize, y: usize, width: usize, height: usize) {
        for row in y..y + height {
            self.y.fill(row, x, x + width, BLACK);
            if row.is_multiple_of(2) {
                self.u.fill(row / 2, x / 2, (x + width) / 2, GREY);
                self.v.fill(row / 2, x / 2, (x + width) / 2, GREY);
            }
        }
    }

    /// Writes a line of text, white, its upper left corner at (x, y), `scale` pixels to a dot of the font.
    pub(super) fn text(&mut self, text: &str, x: usize, y: usize, scale: usize) {
        for (i, glyph) in text.chars().map(font::glyph).enumerate() {
            let left = x + i * font::ADVANCE * scale;
            for (row, bits) in glyph.iter().enumerate() {
                for column in (0..font::WIDTH).filter(|c| bits >> (font::WIDTH - 1 - c) & 1 == 1) {
                    let from = left + column * scale;
                    (0..scale).for_each(|dy| self.y.fill(y + row * scale + dy, from, from + scale, WHITE));
                }
            }
        }
    }
}

/// `from` moved `alpha` / 256 of the way to `to`.
fn towards(from: u8, to: u8, alpha: u16) -> u8 {
    let alpha = alpha.min(256);
    ((u16::from(from) * (256 - alpha) + u16::from(to) * alpha) >> 8) as u8
}

/// Calls `row(y, left, right)` for each pixel row that a convex polygon crosses.
fn for_spans(corners: [Point; 4], mut row: impl FnMut(usize, f32, f32)) {
    let top = corners.iter().map(|p| p.y).fold(f32::MAX, f32::min).max(0.0) as usize;
    let bottom = corners.iter().map(|p| p.y).fold(0.0, f32::max) as usize;
    let [a, b, c, d] = corners;
    let edges = [(a, b), (b, c), (c, d), (d, a)];
    for y in top..=bottom {
        let at = y as f32 + 0.5;
        let crossing = |&(p, q): &(Point, Point)| {
            let crosses = (p.y <= at) != (q.y <= at);
            crosses.then(|| p.x + (q.x - p.x) * (at - p.y) / (q.y - p.y))
        };
        let (left, right) =
            edges.iter().filter_map(crossing).fold((f32::MAX, f32::MIN), |(l, r), x| (l.min(x), r.max(x)));
        if left < right {
            row(y, left, right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_one_of_gstreamer() {
        gstreamer::init().unwrap();
        for (width, height) in [(3840, 2160), (1366, 768), (642, 362)] {
            let info =
                gstreamer_video::VideoInfo::builder(gstreamer_video::VideoFormat::I420, width, height).build().unwrap();
            let layout = I420::new(width, height);
            assert_eq!(info.size(), layout.size, "{width}x{height}");
            assert_eq!(info.offset(), &[0, layout.u_offset, layout.v_offset]);
            assert_eq!(
                info.stride()[..2],
                [i32::try_from(layout.y_stride).unwrap(), i32::try_from(layout.c_stride).unwrap()]
            );
        }
    }

    #[test]
    fn nothing_is_drawn_outside_the_disc() {
        let (layout, disc) = (I420::new(640, 360), Disc::new(640, 360));
        let mut picture = layout.black();
        let mut canvas = Canvas::new(&mut picture, &layout, &disc).unwrap();
        let whole = [(0.0, 0.0), (640.0, 0.0), (640.0, 360.0), (0.0, 360.0)].map(|(x, y)| Point { x, y });
        canvas.rod(whole, Point { x: 320.0, y: 180.0 }, Point { x: 1.0, y: 0.0 }, 180.0, &[200; 256]);
        canvas.glint(&Sprite::ellipse(60, 60), Point { x: 150.0, y: 20.0 }, 256);
        for (y, (x0, x1)) in disc.rows() {
            let row = &picture[y * 640..(y + 1) * 640];
            assert!(row[..x0].iter().chain(&row[x1..]).all(|p| *p == BLACK), "row {y}");
            assert!(row[x0..x1].iter().all(|p| *p >= 200), "row {y}");
        }
    }
}
