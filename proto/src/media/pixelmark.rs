//! The machine-readable mark in a synthetic picture: which frame this is and when it was captured.
//!
//! A picture on a screen has lost its RTP header. The mark lets a test, or a page that reads its own canvas, tell the
//! age of what is shown from the pixels alone. It is made to survive video coding: cells are large, black or white, and
//! a checksum refuses what was read wrongly.
//!
//! ```text
//!        0  1  2                                    34 35      columns of cells, cell = height / 90 pixels
//!   1       ┌──────────── quiet border, black ─────────┐
//!   2       │  frame counter, 32 bits                  │      row 0
//!   3       │  capture time in ms, bits 0 to 31        │      row 1
//!   4       │  bits 32 to 47 of it │ CRC-16, 16 bits   │      row 2
//!   5       └──────────────────────────────────────────┘
//! ```
//! A bit is one cell, most significant bit first: 1 is white (Y 235), 0 is black (Y 16). The checksum is
//! CRC-16/CCITT-FALSE over the ten bytes before it, big-endian. An all-black picture is refused by the checksum.

use crate::units::WallMicros;

/// Bits in a row of the mark, one per cell.
pub const COLUMNS: u32 = 32;
/// Rows of the mark.
pub const ROWS: u32 = 3;
/// Pixel rows of a picture per pixel of a cell's side.
const HEIGHT_PER_CELL: u32 = 90;
/// The mark begins this many cells from the left and from the top.
const ORIGIN_CELLS: u32 = 2;
/// Cells above the mark: it stands beside the scope's circle, clear of what a viewer writes along the picture's edges.
const TOP_CELLS: u32 = 20;
/// Video white and black (ITU-R BT.709, 8 bit, limited range).
const WHITE: u8 = 235;
const BLACK: u8 = 16;
/// Half way between black and white: darker is 0.
const THRESHOLD: u64 = 126;

/// Why there is no mark, or none that can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MarkError {
    /// The picture has too few rows for a cell of one pixel.
    #[error("a picture of {height} rows is too small for a mark, {HEIGHT_PER_CELL} rows are needed")]
    TooSmall {
        /// Rows of the picture.
        height: u32,
    },
    /// The plane is smaller than the mark.
    #[error("the mark does not fit into the plane")]
    OutsidePlane,
    /// What was read is not a mark, or a bit of it is wrong.
    #[error("the mark's checksum is {read:#06x} where {computed:#06x} was computed")]
    Checksum {
        /// The checksum that the mark carries.
        read: u16,
        /// The checksum of the bits that were read.
        computed: u16,
    },
}

/// The bits of a mark, row by row; the most significant bit is the leftmost cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Frame counter; low 32 bits of the capture time; its high 16 bits and the checksum.
    pub rows: [u32; 3],
}

/// The mark of frame `frame`, captured at `capture`, which is kept to the millisecond (rounded down, 48 bits).
#[must_use]
pub fn encode(frame: u32, capture: WallMicros) -> Mark {
    let ms = capture.0 / 1_000;
    let low = (ms & 0xffff_ffff) as u32;
    let high = ((ms >> 32) & 0xffff) as u16;
    let crc = checksum(frame, low, high);
    Mark { rows: [frame, low, u32::from(high) << 16 | u32::from(crc)] }
}

/// Frame counter and capture time (whole milliseconds) of the rows of a mark.
///
/// # Errors
/// [`MarkError::Checksum`] where the rows are not a mark.
pub fn decode(rows: [u32; 3]) -> Result<(u32, WallMicros), MarkError> {
    let [frame, low, last] = rows;
    let (high, read) = ((last >> 16) as u16, (last & 0xffff) as u16);
    let computed = checksum(frame, low, high);
    if read != computed {
        return Err(MarkError::Checksum { read, computed });
    }
    Ok((frame, WallMicros((u64::from(high) << 32 | u64::from(low)) * 1_000)))
}

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellRect {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

/// Where the cells of a mark are in a picture of a given height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Side of a cell in pixels, at least 1.
    cell: u32,
}

impl Layout {
    /// The layout in a picture of `height` rows: cells of 12 pixels at 1080, 24 at 2160.
    ///
    /// # Errors
    /// [`MarkError::TooSmall`] under 90 rows.
    pub const fn for_height(height: u32) -> Result<Self, MarkError> {
        match height / HEIGHT_PER_CELL {
            0 => Err(MarkError::TooSmall { height }),
            cell => Ok(Self { cell }),
        }
    }

    /// Side of a cell in pixels.
    #[must_use]
    pub const fn cell_size(self) -> u32 {
        self.cell
    }

    /// The cell of bit `column` (0 is the leftmost and most significant) of row `row`.
    #[must_use]
    pub const fn cell(self, row: u32, column: u32) -> CellRect {
        let x = ORIGIN_CELLS.saturating_add(column).saturating_mul(self.cell);
        let y = TOP_CELLS.saturating_add(row).saturating_mul(self.cell);
        CellRect { x, y, width: self.cell, height: self.cell }
    }

    /// All cells and the quiet border of one cell around them: what [`Self::paint`] writes to.
    #[must_use]
    pub const fn area(self) -> CellRect {
        let edge = (ORIGIN_CELLS - 1) * self.cell;
        CellRect {
            x: edge,
            y: (TOP_CELLS - 1) * self.cell,
            width: (COLUMNS + 2) * self.cell,
            height: (ROWS + 2) * self.cell,
        }
    }

    /// Draws border and mark into a luma plane of 8 bits a pixel whose rows are `stride` bytes apart.
    ///
    /// # Errors
    /// [`MarkError::OutsidePlane`] where the mark does not fit; the plane may be painted in part then.
    pub fn paint(self, mark: &Mark, luma: &mut [u8], stride: usize) -> Result<(), MarkError> {
        fill(self.area(), BLACK, luma, stride)?;
        for (row, bits) in (0_u32..).zip(mark.rows) {
            for column in (0..COLUMNS).filter(|c| bits >> (COLUMNS - 1 - c) & 1 == 1) {
                fill(self.cell(row, column), WHITE, luma, stride)?;
            }
        }
        Ok(())
    }

    /// The rows of the mark in a luma plane, by the mean of the middle of each cell. Nothing is checked: see [`decode`].
    ///
    /// # Errors
    /// [`MarkError::OutsidePlane`] where the plane is smaller than the mark.
    pub fn read(self, luma: &[u8], stride: usize) -> Result<[u32; 3], MarkError> {
        let mut rows = [0_u32; 3];
        for (row, bits) in (0_u32..).zip(rows.iter_mut()) {
            for column in 0..COLUMNS {
                let white = mean(middle(self.cell(row, column)), luma, stride)? > THRESHOLD;
                *bits = *bits << 1 | u32::from(white);
            }
        }
        Ok(rows)
    }
}

/// The inner half of a cell, at least one pixel: its edges are smeared by coding and scaling.
const fn middle(cell: CellRect) -> CellRect {
    let inset = cell.width / 4;
    let side = cell.width - 2 * inset;
    CellRect { x: cell.x + inset, y: cell.y + inset, width: side, height: side }
}

fn fill(rect: CellRect, value: u8, luma: &mut [u8], stride: usize) -> Result<(), MarkError> {
    for y in rect.y..rect.y + rect.height {
        let range = span(rect, y, stride)?;
        luma.get_mut(range).ok_or(MarkError::OutsidePlane)?.fill(value);
    }
    Ok(())
}

fn mean(rect: CellRect, luma: &[u8], stride: usize) -> Result<u64, MarkError> {
    let mut sum = 0_u64;
    for y in rect.y..rect.y + rect.height {
        let row = luma.get(span(rect, y, stride)?).ok_or(MarkError::OutsidePlane)?;
        sum += row.iter().copied().map(u64::from).sum::<u64>();
    }
    Ok(sum / (u64::from(rect.width) * u64::from(rect.height)).max(1))
}

/// The bytes of row `y` of a rectangle; refused where they would run into the next row of the picture.
fn span(rect: CellRect, y: u32, stride: usize) -> Result<std::ops::Range<usize>, MarkError> {
    let (x, width) = (rect.x as usize, rect.width as usize);
    if x + width > stride {
        return Err(MarkError::OutsidePlane);
    }
    let start = (y as usize).checked_mul(stride).and_then(|s| s.checked_add(x)).ok_or(MarkError::OutsidePlane)?;
    Ok(start..start + width)
}

/// CRC-16/CCITT-FALSE: polynomial 0x1021, initial value 0xffff, nothing reflected, nothing inverted.
fn checksum(frame: u32, low: u32, high: u16) -> u16 {
    let bytes = frame.to_be_bytes().into_iter().chain(low.to_be_bytes()).chain(high.to_be_bytes());
    bytes.fold(0xffff, crc16_step)
}

fn crc16_step(crc: u16, byte: u8) -> u16 {
    (0..8).fold(crc ^ (u16::from(byte) << 8), |c, _| if c & 0x8000 == 0 { c << 1 } else { c << 1 ^ 0x1021 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPTURE: WallMicros = WallMicros(1_790_000_123_456_789);

    #[test]
    fn checksum_has_the_published_check_value() {
        assert_eq!(b"123456789".iter().fold(0xffff, |c, b| crc16_step(c, *b)), 0x29b1);
    }

    #[test]
    fn rows_round_trip_to_the_millisecond() {
        for frame in [0, 1, 0x8000_0001, u32::MAX] {
            let mark = encode(frame, CAPTURE);
            assert_eq!(decode(mark.rows), Ok((frame, WallMicros(1_790_000_123_456_000))));
        }
    }

    #[test]
    fn every_single_corrupted_bit_is_refused() {
        let good = encode(4711, CAPTURE).rows;
        for bit in 0..96 {
            let mut rows = good;
            rows[bit / 32] ^= 1 << (bit % 32);
            assert!(matches!(decode(rows), Err(MarkError::Checksum { .. })), "bit {bit}");
        }
    }

    #[test]
    fn black_and_white_pictures_are_refused() {
        for value in [0_u8, 16, 235, 255] {
            let plane = vec![value; 640 * 360];
            let rows = Layout::for_height(360).unwrap().read(&plane, 640).unwrap();
            assert!(decode(rows).is_err(), "{value}");
        }
    }

    #[test]
    fn cells_are_where_the_layout_says() {
        let layout = Layout::for_height(1080).unwrap();
        assert_eq!(layout.cell(0, 0), CellRect { x: 24, y: 240, width: 12, height: 12 });
        assert_eq!(layout.cell(2, 31), CellRect { x: 396, y: 264, width: 12, height: 12 });
        assert_eq!(layout.area(), CellRect { x: 12, y: 228, width: 408, height: 60 });
        let sizes = [2160, 720, 360].map(|h| Layout::for_height(h).unwrap().cell_size());
        assert_eq!(sizes, [24, 8, 4]);
        assert_eq!(Layout::for_height(89), Err(MarkError::TooSmall { height: 89 }));
    }

    #[test]
    fn paint_and_read_round_trip_at_every_size_and_stride() {
        for (width, height, stride) in [(3840, 2160, 3840), (1280, 720, 1344), (640, 360, 640), (160, 90, 160)] {
            let mut plane = vec![90_u8; stride * height];
            let layout = Layout::for_height(u32::try_from(height).unwrap()).unwrap();
            let mark = encode(0xdead_beef, CAPTURE);
            layout.paint(&mark, &mut plane, stride).unwrap();
            assert_eq!(layout.read(&plane, stride), Ok(mark.rows), "{width}x{height}");
        }
    }

    #[test]
    fn reading_survives_smeared_edges_and_noise() {
        let (stride, height) = (640_usize, 360);
        let layout = Layout::for_height(height).unwrap();
        let mark = encode(123_456, CAPTURE);
        let mut plane = vec![128_u8; stride * height as usize];
        layout.paint(&mark, &mut plane, stride).unwrap();
        let smeared: Vec<u8> = (0..plane.len())
            .map(|i| {
                let sum: u32 =
                    [i.saturating_sub(1), i, (i + 1).min(plane.len() - 1)].iter().map(|j| u32::from(plane[*j])).sum();
                let noise = u32::try_from(i * 7919 % 41).unwrap();
                u8::try_from((sum / 3 + noise).saturating_sub(20).min(255)).unwrap()
            })
            .collect();
        assert_eq!(layout.read(&smeared, stride), Ok(mark.rows));
    }

    #[test]
    fn a_plane_that_is_too_small_is_refused() {
        let layout = Layout::for_height(360).unwrap();
        let mark = encode(1, CAPTURE);
        assert_eq!(layout.paint(&mark, &mut [0; 100], 640), Err(MarkError::OutsidePlane));
        assert_eq!(layout.paint(&mark, &mut vec![0; 100 * 360], 100), Err(MarkError::OutsidePlane));
        assert_eq!(layout.read(&[0; 100], 640), Err(MarkError::OutsidePlane));
    }
}
