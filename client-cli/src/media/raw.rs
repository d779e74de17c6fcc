//! Digests of raw pictures, beside the encoder: a camera or card that froze gives the same picture again and again, which nobody
//! sees in what an encoder makes of it (HO-F-003).
//!
//! XXH3 with 128 bits over every pixel that is shown, row by row: what stands between the rows may change in a picture that does
//! not. It tells pictures apart that differ by accident; an adversary at the raw picture is not what it is for.

use gstreamer as gst;
use gstreamer_video::{VideoFrameExt as _, VideoFrameRef, VideoInfo};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::watch;
use twox_hash::xxhash3_128::Hasher as Xxh3;

/// Pictures that wait for their digest: as many as may be under way to the encoder. One more gets none, and no frame proof.
const WAITING: usize = 2;

/// What is known of the raw picture behind a frame.
#[derive(Debug, Clone)]
pub(crate) enum Raw {
    /// Nobody asked.
    NotAsked,
    /// It was encoded elsewhere: nobody here has seen it.
    Elsewhere,
    /// Its digest, here or on its way.
    Digest(RawDigest),
}

/// A digest that is being made.
#[derive(Debug, Clone)]
pub(crate) struct RawDigest {
    digest: watch::Receiver<Option<u128>>,
    pushed: Instant,
}

impl RawDigest {
    /// When the picture went into the encoder: it is at least as old as that, however far the encoder is behind.
    pub(crate) const fn pushed(&self) -> Instant {
        self.pushed
    }

    /// The digest, once it is there; none where the picture was left out.
    pub(crate) async fn get(mut self) -> Option<u128> {
        self.digest.wait_for(Option::is_some).await.ok().and_then(|d| *d)
    }
}

struct Job {
    picture: gst::Buffer,
    info: Option<Arc<VideoInfo>>,
    done: watch::Sender<Option<u128>>,
}

/// Makes digests on a thread of its own, so that no picture waits for its own.
#[derive(Debug)]
pub(super) struct RawHasher {
    jobs: SyncSender<Job>,
    info: Mutex<Option<Arc<VideoInfo>>>,
}

impl RawHasher {
    /// For pictures with these caps.
    pub(super) fn start(caps: &gst::Caps) -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel::<Job>(WAITING);
        let work = move || {
            for Job { picture, info, done } in waiting {
                // A sender that is dropped without a value says that there is none.
                if let Some(digest) = digest(&picture, info.as_deref()) {
                    done.send_replace(Some(digest));
                }
            }
        };
        std::thread::Builder::new().name("trocar-raw".to_owned()).spawn(work)?;
        Ok(Self { jobs, info: Mutex::new(video_info(caps)) })
    }

    /// Pictures have other caps from now on.
    pub(super) fn set_caps(&self, caps: &gst::Caps) {
        *self.info.lock().unwrap_or_else(PoisonError::into_inner) = video_info(caps);
    }

    /// Begins a digest of a picture that goes into the encoder now.
    pub(super) fn begin(&self, picture: &gst::Buffer) -> RawDigest {
        let pushed = Instant::now();
        let (done, digest) = watch::channel(None);
        let info = self.info.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Loss policy: a picture that finds the queue full has no digest, and its frame no proof: the gate sees an older one.
        let _ = self.jobs.try_send(Job { picture: picture.clone(), info, done });
        RawDigest { digest, pushed }
    }
}

#[cfg(test)]
impl RawDigest {
    /// Of a picture that went into the encoder then.
    pub(crate) fn known(digest: u128, pushed: Instant) -> Self {
        Self { digest: watch::channel(Some(digest)).1, pushed }
    }
}

fn video_info(caps: &gst::Caps) -> Option<Arc<VideoInfo>> {
    VideoInfo::from_caps(caps).ok().map(Arc::new)
}

/// Over the visible pixels; over all bytes where the layout is not known.
fn digest(picture: &gst::Buffer, info: Option<&VideoInfo>) -> Option<u128> {
    let mut hash = Xxh3::new();
    if let Some(info) = info
        && let Ok(frame) = VideoFrameRef::from_buffer_ref_readable(picture.as_ref(), info)
    {
        for plane in 0..frame.n_planes() {
            hash_plane(&mut hash, &frame, plane)?;
        }
    } else {
        hash.write(picture.map_readable().ok()?.as_slice());
    }
    Some(hash.finish_128())
}

fn hash_plane(hash: &mut Xxh3, frame: &VideoFrameRef<&gst::BufferRef>, plane: u32) -> Option<()> {
    let data = frame.plane_data(plane).ok()?;
    let stride = usize::try_from(*frame.plane_stride().get(usize::try_from(plane).ok()?)?).ok()?;
    let of_plane = (0..frame.n_components()).filter(|c| frame.comp_plane(*c) == plane);
    // Formats that pack pixels into groups have no bytes per pixel: their rows are taken whole.
    let shown = of_plane
        .map(|c| (frame.comp_width(c) as usize).saturating_mul(usize::try_from(frame.comp_pstride(c)).unwrap_or(0)))
        .max()
        .filter(|bytes| (1..stride).contains(bytes))
        .unwrap_or(stride);
    if stride == 0 || shown == stride {
        hash.write(data);
        return Some(());
    }
    data.chunks(stride).for_each(|row| hash.write(row.get(..shown).unwrap_or(row)));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(width: i32, height: i32) -> gst::Caps {
        gst::Caps::builder("video/x-raw")
            .field("format", "I420")
            .field("width", width)
            .field("height", height)
            .field("framerate", gst::Fraction::new(30, 1))
            .build()
    }

    #[tokio::test]
    async fn the_same_picture_has_the_same_digest_and_one_changed_pixel_another() {
        // HO-F-003
        gst::init().unwrap();
        let hasher = RawHasher::start(&caps(64, 32)).unwrap();
        let picture = |changed: Option<usize>| {
            let mut bytes = vec![7_u8; 64 * 32 * 3 / 2];
            changed.into_iter().for_each(|at| bytes[at] ^= 1);
            gst::Buffer::from_mut_slice(bytes)
        };
        let of = |changed| hasher.begin(&picture(changed)).get();
        let first = of(None).await.unwrap();
        assert_eq!(of(None).await, Some(first));
        for at in [0, 64 * 32 - 1, 64 * 32, 64 * 32 * 3 / 2 - 1] {
            assert_ne!(of(Some(at)).await, Some(first), "byte {at}");
        }
    }

    #[tokio::test]
    async fn what_stands_between_the_rows_does_not_count() {
        // HO-F-003: a frozen picture in buffers with different rubbish in their padding is frozen.
        gst::init().unwrap();
        let hasher = RawHasher::start(&caps(62, 32)).unwrap();
        let picture = |padding: u8, pixel: u8| {
            // Rows of 62 bytes in strides of 64, and 31 in 32.
            let row = |w: usize, s: usize| [vec![pixel; w], vec![padding; s - w]].concat();
            let bytes = [row(62, 64).repeat(32), row(31, 32).repeat(32)].concat();
            gst::Buffer::from_mut_slice(bytes)
        };
        let first = hasher.begin(&picture(0, 9)).get().await.unwrap();
        assert_eq!(hasher.begin(&picture(0xff, 9)).get().await, Some(first));
        assert_ne!(hasher.begin(&picture(0, 8)).get().await, Some(first));
    }

    #[tokio::test]
    async fn a_picture_that_cannot_be_read_has_no_digest() {
        gst::init().unwrap();
        let (done, digest) = watch::channel(None);
        drop(done);
        assert_eq!(RawDigest { digest, pushed: Instant::now() }.get().await, None);
    }
}
