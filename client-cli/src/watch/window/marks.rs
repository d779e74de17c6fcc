//! What the pixels of the pictures on the screen say: when the test scene drew them. From there to here is glass to glass, but for the
//! camera and the screen themselves.

use crate::net::api::wall_now;
use anyhow::Context;
use gstreamer as gst;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trocar_proto::media::pixelmark::{Layout, decode};
use trocar_proto::units::WallMicros;

/// Pictures on their way to the screen whose marks are kept. Loss policy: the oldest is forgotten, and has no line.
const KEPT: usize = 8;

/// A file with one JSON line for each picture that was shown and has a mark.
#[derive(Debug, Clone)]
pub(crate) struct Marks(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// Unbuffered: a window may end at any moment.
    file: File,
    /// By the picture's number: frame counter and capture time of its mark.
    waiting: VecDeque<(u64, u32, WallMicros)>,
}

impl Marks {
    /// An empty file.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(Arc::new(Mutex::new(Inner { file, waiting: VecDeque::with_capacity(KEPT) }))))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A decoded picture (I420) goes to the screen under that number.
    pub(super) fn put(&self, number: u64, picture: &gst::Sample) {
        let Some((frame, capture)) = read(picture) else { return };
        let mut inner = self.lock();
        if inner.waiting.len() >= KEPT {
            inner.waiting.pop_front();
        }
        inner.waiting.push_back((number, frame, capture));
    }

    /// It is on the screen. One that is painted anew was shown before.
    pub(super) fn shown(&self, number: u64) {
        let shown = wall_now().0;
        let mut inner = self.lock();
        let Some(at) = inner.waiting.iter().position(|(n, ..)| *n == number) else { return };
        let Some((_, frame, capture)) = inner.waiting.remove(at) else { return };
        let line = format!("{{\"frame\":{frame},\"captured_us\":{},\"shown_us\":{shown}}}\n", capture.0);
        if let Err(error) = inner.file.write_all(line.as_bytes()) {
            tracing::error!(%error, "the marks could not be written");
        }
    }
}

/// The mark of a picture; none where there is none that can be trusted. A recording has no time in it.
fn read(picture: &gst::Sample) -> Option<(u32, WallMicros)> {
    let caps = picture.caps()?.structure(0)?;
    let side = |name: &str| caps.get::<i32>(name).ok().and_then(|n| u32::try_from(n).ok());
    let (width, height) = (side("width")?, side("height")?);
    let data = picture.buffer()?.map_readable().ok()?;
    // Rows of GStreamer's I420 begin at multiples of four bytes.
    let stride = usize::try_from(width.next_multiple_of(4)).ok()?;
    let rows = Layout::for_height(height).ok()?.read(data.as_slice(), stride).ok()?;
    decode(rows).ok().filter(|(_, capture)| capture.0 > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::init_gstreamer;
    use trocar_proto::media::pixelmark::encode;

    fn picture(mark: Option<(u32, WallMicros)>) -> gst::Sample {
        init_gstreamer().unwrap();
        let (width, height) = (318_i32, 180_i32);
        let stride = 320;
        let mut luma = vec![60; stride * height as usize];
        if let Some((frame, capture)) = mark {
            Layout::for_height(height as u32).unwrap().paint(&encode(frame, capture), &mut luma, stride).unwrap();
        }
        luma.resize(luma.len() * 3 / 2, 128);
        let caps = gst::Caps::builder("video/x-raw").field("width", width).field("height", height).build();
        gst::Sample::builder().caps(&caps).buffer(&gst::Buffer::from_mut_slice(luma)).build()
    }

    #[test]
    fn a_picture_with_a_mark_has_one_line_when_it_is_shown_and_others_have_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let marks = Marks::create(file.path()).unwrap();
        marks.put(1, &picture(Some((7, WallMicros(1_700_000_000_123_000)))));
        marks.put(2, &picture(None));
        marks.put(3, &picture(Some((9, WallMicros(0)))));
        marks.put(4, &picture(Some((10, WallMicros(1_700_000_000_200_000)))));
        for number in [1, 1, 2, 3] {
            marks.shown(number);
        }
        let text = std::fs::read_to_string(file.path()).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 1, "{text}");
        assert_eq!((&lines[0]["frame"], &lines[0]["captured_us"]), (&7.into(), &1_700_000_000_123_000_u64.into()));
    }
}
