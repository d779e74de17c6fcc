//! The tissue: a hollow organ's wall with folds, vessels and a dark way ahead, drawn once when a scene is made.

use super::canvas::{BLACK, WHITE};

/// A square picture in 4:2:0, larger than the disc that looks at it.
#[derive(Debug)]
pub(super) struct Texture {
    /// Pixels of a side, even.
    pub(super) side: usize,
    pub(super) y: Vec<u8>,
    pub(super) u: Vec<u8>,
    pub(super) v: Vec<u8>,
}

impl Texture {
    /// The wall in `side` x `side` pixels (rounded up to even), where the disc has a radius of `radius` pixels. Equal
    /// arguments give equal pictures.
    pub(super) fn new(side: usize, radius: f32, seed: u64) -> Self {
        let half = side.div_ceil(2);
        let noise = Noise { seed };
        let vessels = vessels(half, &mut Generator(seed));
        let (mut light, mut u, mut v) = (Vec::new(), Vec::new(), Vec::new());
        for (i, vessel) in vessels.iter().enumerate() {
            // -1 to 1 across the disc, a little more at the margin.
            let at = |n: usize| (n as f32 - half as f32 / 2.0) * 2.0 / radius;
            let [y, cb, cr] = bt709(tissue(at(i % half), at(i / half), f32::from(*vessel) / 255.0, &noise));
            light.push(y);
            u.push(level(cb));
            v.push(level(cr));
        }
        let y = luma(&light, half, &mut Generator(seed ^ 0x5eed));
        Self { side: half * 2, y, u, v }
    }
}

/// Linear interpolation of the half-size light to full size, with a fine grain.
fn luma(light: &[f32], half: usize, grain: &mut Generator) -> Vec<u8> {
    let side = half * 2;
    let mut luma = Vec::with_capacity(side * side);
    for y in 0..side {
        let (row, next) = (y / 2 * half, (y / 2 + y % 2).min(half - 1) * half);
        for x in 0..side {
            let (column, right) = (x / 2, (x / 2 + x % 2).min(half - 1));
            let at = |row: usize, column: usize| light.get(row + column).copied().unwrap_or(0.0);
            let mean = (at(row, column) + at(row, right) + at(next, column) + at(next, right)) / 4.0;
            luma.push(level(mean + (grain.unit() - 0.5) * 5.0));
        }
    }
    luma
}

/// Red, green and blue (0 to 1) of the wall at a place of the disc; `vessel` is 0 to 1.
fn tissue(x: f32, y: f32, vessel: f32, noise: &Noise) -> [f32; 3] {
    // The way ahead is off the middle; the rings of folds close in on it.
    let (lx, ly) = (x + 0.16, y + 0.14);
    let warp = noise.fractal(x * 1.4 + 7.0, y * 1.4, 3) - 0.5;
    let angle_warp = noise.fractal(lx * 1.1 + 31.0, ly * 1.1 + 3.0, 2) - 0.5;
    let distance = (lx * lx * 0.85 + ly * ly * 1.15).sqrt() * (1.0 + 0.7 * angle_warp);
    let turns = (distance + 0.14).ln() * 1.55 + warp * 0.75;
    // Towards the lumen the wall rises slowly into the light, up to a crest; what is behind it lies in its shadow.
    let along = 1.0 - (turns - turns.floor());
    let crest = smooth(0.05, 0.80, along) * (1.0 - smooth(0.88, 0.97, along));
    let behind = smooth(0.88, 0.97, along) + (1.0 - smooth(0.0, 0.34, along));
    let depth = smooth(0.03, 0.62, distance);
    let rim = 1.0 - 0.30 * (x * x + y * y).min(1.3).powi(2);
    let blotch = noise.fractal(x * 4.5, y * 4.5 + 11.0, 4);
    let fine = noise.fractal(x * 30.0 + 5.0, y * 30.0, 2) - 0.5;
    let wet = smooth(0.60, 0.78, noise.fractal(x * 9.0 + 2.0, y * 9.0 + 50.0, 3)) * crest;
    let light = (0.06 + 0.94 * depth) * rim * (0.60 + 0.36 * crest - 0.21 * behind + 0.10 * fine + 0.08 * wet);
    let redness = 0.15 + 0.62 * smooth(0.34, 0.74, blotch) - 0.22 * crest + 0.38 * (1.0 - depth) + 0.2 * behind;
    let redness = redness.clamp(0.0, 1.0);
    let vessel = vessel * depth * 0.62 * (1.0 - behind).max(0.3);
    let colour = |pale: f32, red: f32, blood: f32| {
        let wall = pale + (red - pale) * redness;
        ((wall + (blood - wall) * vessel) * light * 1.06).clamp(0.0, 1.0)
    };
    [colour(0.98, 0.86, 0.60), colour(0.64, 0.33, 0.10), colour(0.59, 0.31, 0.16)]
}

/// Opacity of the vessels in `side` x `side` pixels: trees whose branches wander, thin out and split.
fn vessels(side: usize, random: &mut Generator) -> Vec<u8> {
    let mut map = vec![0_u8; side * side];
    let size = side as f32;
    let mut branches = Vec::new();
    for _ in 0..11 {
        let start = (random.unit() * size, random.unit() * size);
        branches.push((start, random.unit() * std::f32::consts::TAU, size * (0.0020 + 0.0018 * random.unit())));
    }
    // A branch is split at most a few times before it is too thin; the bound holds whatever the seed.
    for _ in 0..260 {
        let Some(((mut x, mut y), mut angle, mut width)) = branches.pop() else { break };
        let bend = (random.unit() - 0.5) * 0.02;
        for _ in 0..600 {
            stamp(&mut map, side, (x, y), width);
            angle += bend + (random.unit() - 0.5) * 0.22;
            let stride = (width * 0.7).max(0.7);
            (x, y) = (x + angle.cos() * stride, y + angle.sin() * stride);
            width *= 0.9975;
            if width < size * 0.0006 || !(0.0..size).contains(&x) || !(0.0..size).contains(&y) {
                break;
            }
            if random.unit() < 0.009 {
                let side_angle = if random.unit() < 0.5 { 0.6 } else { -0.6 };
                branches.push(((x, y), angle + side_angle, width * 0.62));
                width *= 0.93;
            }
        }
    }
    map
}

/// A soft round dot, kept where it is darker than what is there.
fn stamp(map: &mut [u8], side: usize, (cx, cy): (f32, f32), radius: f32) {
    let reach = radius + 1.0;
    let range = |c: f32| (c - reach).max(0.0) as usize..((c + reach) as usize + 1).min(side);
    for y in range(cy) {
        for x in range(cx) {
            let away = ((x as f32 - cx).powi(2) + (y as f32 - cy).powi(2)).sqrt();
            let opacity = ((reach - away) / reach.max(1.0) * 1.6).clamp(0.0, 1.0);
            if let Some(pixel) = map.get_mut(y * side + x) {
                *pixel = (*pixel).max((opacity * 230.0) as u8);
            }
        }
    }
}

/// Luma and both chromas (ITU-R BT.709, limited range) of red, green and blue from 0 to 1.
fn bt709([r, g, b]: [f32; 3]) -> [f32; 3] {
    let y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    [16.0 + 219.0 * y, 128.0 + 224.0 * (b - y) / 1.8556, 128.0 + 224.0 * (r - y) / 1.5748]
}

fn level(value: f32) -> u8 {
    // Clamped before the cast.
    value.round().clamp(f32::from(BLACK), f32::from(WHITE)) as u8
}

/// 0 below `from`, 1 above `to`, smooth in between.
fn smooth(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// A random sequence from a seed: a Weyl sequence through a mixing function.
#[derive(Debug)]
pub(super) struct Generator(pub(super) u64);

impl Generator {
    /// The next 32 bits.
    pub(super) fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.0) >> 32) as u32
    }

    /// The next number from 0 to 1.
    pub(super) fn unit(&mut self) -> f32 {
        (self.bits() >> 8) as f32 / (1_u32 << 24) as f32
    }
}

const fn mix(seed: u64) -> u64 {
    let a = (seed ^ (seed >> 31)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let b = (a ^ (a >> 29)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    b ^ (b >> 32)
}

/// Smooth noise: random values on a lattice, interpolated.
struct Noise {
    seed: u64,
}

impl Noise {
    /// `octaves` layers, each twice as fine and half as strong; about 0 to 1, mean 0.5.
    fn fractal(&self, x: f32, y: f32, octaves: u32) -> f32 {
        let (mut sum, mut total, mut weight, mut scale) = (0.0, 0.0, 1.0, 1.0);
        for _ in 0..octaves {
            sum += weight * self.value(x * scale, y * scale);
            total += weight;
            (weight, scale) = (weight * 0.5, scale * 2.03);
        }
        sum / total
    }

    fn value(&self, x: f32, y: f32) -> f32 {
        let (left, top) = (x.floor(), y.floor());
        let (fx, fy) = (smooth(0.0, 1.0, x - left), smooth(0.0, 1.0, y - top));
        let (left, top) = (left as i32, top as i32);
        let across = |row: i32| {
            let (a, b) = (self.lattice(left, row), self.lattice(left + 1, row));
            a + (b - a) * fx
        };
        let (upper, lower) = (across(top), across(top + 1));
        upper + (lower - upper) * fy
    }

    fn lattice(&self, x: i32, y: i32) -> f32 {
        let key = u64::from(x.cast_unsigned()) << 32 | u64::from(y.cast_unsigned());
        (mix(key.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.seed) >> 40) as f32 / (1_u32 << 24) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_textures() {
        let (a, b, c) = (Texture::new(101, 45.0, 1), Texture::new(101, 45.0, 1), Texture::new(101, 45.0, 2));
        assert_eq!((a.side, a.y.len(), a.u.len()), (102, 102 * 102, 51 * 51));
        assert_eq!((&a.y, &a.u, &a.v), (&b.y, &b.u, &b.v));
        assert_ne!(a.y, c.y);
    }
}
