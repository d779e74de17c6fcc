//! One feed's source: opened, run, and opened again after a failure, for as long as the feed is published.

use super::plan::{Plan, What};
use crate::media::{Frame, MediaError, Prepared, Running, SourceEvent, SourceInfo};
use crate::sender::Sender;
use crate::stop::Stop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, oneshot};

/// First and longest wait before a source that failed is opened again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// A source that ran for this long has proved itself: the next failure begins with the first wait.
const PROVED: Duration = Duration::from_secs(10);
/// A live source that was opened longer ago than this before it may begin is opened again: what it gave since is stale.
const STALE: Duration = Duration::from_secs(2);

/// What a supervisor tells the publisher.
pub(super) enum News {
    /// The source is open. `begin` is answered when the feed is announced and connected.
    Ready { index: usize, info: SourceInfo, begin: oneshot::Sender<()> },
    /// The source is over for good: a recording that ended, or a failure that no waiting mends.
    Over { index: usize, error: Option<MediaError> },
}

/// What supervisor and publisher share.
#[derive(Default)]
pub(super) struct Link {
    /// A viewer wants a key frame.
    pub(super) key_frame: Notify,
    /// Pictures left out, and times that the schedule moved.
    pub(super) skipped: AtomicU64,
    pub(super) slips: AtomicU64,
}

/// One feed's supervisor.
pub(super) struct Supervisor {
    pub(super) index: usize,
    pub(super) plan: Arc<Plan>,
    pub(super) sender: Arc<Sender>,
    pub(super) link: Arc<Link>,
    pub(super) news: mpsc::Sender<News>,
}

/// How a run of the source ended.
enum Ended {
    Stopped,
    Over,
    Failed(MediaError),
}

impl Supervisor {
    /// Runs until it is stopped or the source is over. `first` is a source that is open already.
    pub(super) async fn run(self, mut first: Option<Prepared>, stop: Stop) {
        let mut wait = BACKOFF.0;
        let mut outage = Outage::default();
        loop {
            let opened = match first.take() {
                Some(prepared) => Ok(prepared),
                None => tokio::select! {
                    () = stop.requested() => return,
                    opened = self.open() => opened,
                },
            };
            let began = Instant::now();
            let ended = match opened {
                Ok(prepared) => self.carry(prepared, &mut outage, &stop).await,
                Err(error) => Ended::Failed(error),
            };
            let error = match ended {
                Ended::Stopped => return,
                Ended::Over => return self.over(None).await,
                Ended::Failed(error) if !error.may_pass() => return self.over(Some(error)).await,
                Ended::Failed(error) => error,
            };
            outage.begin(&self.plan, &error);
            if began.elapsed() > PROVED {
                wait = BACKOFF.0;
            }
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    async fn over(&self, error: Option<MediaError>) {
        // Without a publisher there is nobody to tell.
        let _ = self.news.send(News::Over { index: self.index, error }).await;
    }

    async fn open(&self) -> Result<Prepared, MediaError> {
        let plan = Arc::clone(&self.plan);
        on_thread("trocar-open", move || plan.prepare()).await?
    }

    /// From an open source to its end.
    async fn carry(&self, mut prepared: Prepared, outage: &mut Outage, stop: &Stop) -> Ended {
        let opened = Instant::now();
        let (begin, may_begin) = oneshot::channel();
        let info = prepared.info().clone();
        let clock_rate = info.codec.clock_rate();
        if self.news.send(News::Ready { index: self.index, info, begin }).await.is_err() {
            return Ended::Stopped;
        }
        tokio::select! {
            () = stop.requested() => return Ended::Stopped,
            may = may_begin => if may.is_err() { return Ended::Stopped },
        }
        if self.plan.is_live() && opened.elapsed() > STALE {
            prepared = match self.open().await {
                Ok(again) => again,
                Err(error) => return Ended::Failed(error),
            };
        }
        self.sender.begin(clock_rate);
        let sink = Arc::clone(&self.sender);
        match prepared.start(Box::new(move |frame: Frame| sink.send(&frame))) {
            Ok(running) => {
                outage.end(&self.plan);
                self.follow(running, stop).await
            }
            Err(error) => Ended::Failed(error),
        }
    }

    async fn follow(&self, mut running: Running, stop: &Stop) -> Ended {
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        let ended = loop {
            tokio::select! {
                biased;
                () = stop.requested() => break Ended::Stopped,
                event = running.next_event() => match event {
                    Some(SourceEvent::Error(error)) => break Ended::Failed(error),
                    Some(SourceEvent::EndOfStream) | None => break Ended::Over,
                    Some(SourceEvent::Restarted { rounds }) => {
                        tracing::info!(feed = %self.plan.feed, rounds, "the file begins again");
                    }
                },
                () = self.link.key_frame.notified() => if !running.request_key_frame() {
                    tracing::debug!(feed = %self.plan.feed, "a key frame is wanted; this source has them only where it has them");
                },
                _ = tick.tick() => {
                    let stats = running.stats();
                    self.link.skipped.store(stats.skipped, Ordering::Relaxed);
                    self.link.slips.store(stats.slips, Ordering::Relaxed);
                }
            }
        };
        // Taking a pipeline down may take a moment, which is no other feed's matter.
        let _ = on_thread("trocar-close", move || running.stop()).await;
        ended
    }
}

/// Runs blocking work on a thread of its own, which the end of the process does not wait for.
async fn on_thread<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, MediaError> {
    let (tell, done) = oneshot::channel();
    let body = move || {
        // Nobody waits any more: the result is not needed.
        let _ = tell.send(work());
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    thread.map_err(|cause| MediaError::Thread { name, cause })?;
    done.await.map_err(|_| MediaError::Thread { name, cause: std::io::Error::other("it panicked") })
}

/// Says once that a source is gone, and once that it is back.
#[derive(Default)]
struct Outage(Option<Instant>);

impl Outage {
    fn begin(&mut self, plan: &Plan, error: &MediaError) {
        tracing::warn!(feed = %plan.feed, source = plan.place(), %error, "the source is gone; trying again");
        if self.0.is_none() {
            self.0 = Some(Instant::now());
            // Some errors name the source themselves.
            let (place, error) = (plan.place(), error.to_string());
            let from = if error.contains(&place) { String::new() } else { format!(" from {place}") };
            println!("{}: no {}{from}: {error}; trying again", plan.feed, noun(plan));
        }
    }

    fn end(&mut self, plan: &Plan) {
        if let Some(since) = self.0.take() {
            println!("{}: the {} is back after {:.1} s", plan.feed, noun(plan), since.elapsed().as_secs_f64());
        }
    }
}

const fn noun(plan: &Plan) -> &'static str {
    match plan.what {
        What::Picture { .. } => "picture",
        What::Sound { .. } => "sound",
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Wanted;
    use super::super::plan::tests::wanted;
    use super::*;
    use crate::media::tests::network::{Foreign, X264, free_port};
    use trocar_proto::units::WallMicros;

    struct Supervised {
        sender: Arc<Sender>,
        news: mpsc::Receiver<News>,
        stop: tokio::sync::watch::Sender<bool>,
        task: tokio::task::JoinHandle<()>,
    }

    fn supervise(source: &str) -> Supervised {
        let plan = Wanted { ..wanted(source) }.plans().unwrap().remove(0);
        let (tell, news) = mpsc::channel(2);
        let sender = Arc::new(Sender::new(None).unwrap());
        let (stop_signal, stop) = Stop::by_hand();
        let supervisor = Supervisor {
            index: 7,
            plan: Arc::new(plan),
            sender: Arc::clone(&sender),
            link: Arc::default(),
            news: tell,
        };
        let task = tokio::spawn(supervisor.run(None, stop_signal));
        Supervised { sender, news, stop, task }
    }

    impl Supervised {
        /// Waits until the source is open and lets it begin.
        async fn begin(&mut self) -> SourceInfo {
            let news = tokio::time::timeout(Duration::from_secs(20), self.news.recv()).await;
            match news.expect("in time").expect("a supervisor that lives") {
                News::Ready { index: 7, info, begin } => {
                    begin.send(()).unwrap();
                    info
                }
                _ => panic!("the source is over"),
            }
        }

        /// Frames that came out of the source; none of them has a connection.
        fn came(&self) -> u64 {
            self.sender.report(WallMicros(0)).frames_dropped
        }

        async fn wait_for(&self, frames: u64) {
            let began = Instant::now();
            while self.came() < frames {
                assert!(began.elapsed() < Duration::from_secs(10), "{} of {frames} frames", self.came());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }

        async fn stop(self) {
            self.stop.send_replace(true);
            tokio::time::timeout(Duration::from_secs(2), self.task).await.expect("it stops in time").unwrap();
        }
    }

    #[tokio::test]
    async fn a_stream_whose_sender_stops_comes_back_by_itself() {
        let port = free_port();
        let to = format!("udp://127.0.0.1:{port}?pkt_size=1316");
        let coding = [&X264[..], &["-f", "mpegts"]].concat();
        let mut feed = supervise(&format!("udp://127.0.0.1:{port}"));
        for round in 1..=2 {
            let sender = Foreign::ffmpeg(&coding, &to);
            let info = feed.begin().await;
            assert_eq!((info.width, info.height), (320, 180));
            feed.wait_for(feed.came() + 20).await;
            drop(sender);
            // The negative control: without a sender nothing comes; and the source is given up meanwhile.
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            let silent = feed.came();
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(feed.came(), silent, "round {round}");
        }
        feed.stop().await;
    }

    #[tokio::test]
    async fn a_camera_that_ends_is_opened_again_after_half_a_second() {
        let mut feed =
            supervise("gst:videotestsrc is-live=true num-buffers=12 ! video/x-raw,width=320,height=180,framerate=30/1");
        feed.begin().await;
        feed.wait_for(8).await;
        let began = Instant::now();
        feed.begin().await;
        assert!(began.elapsed() > BACKOFF.0, "{:?}", began.elapsed());
        feed.wait_for(16).await;
        feed.stop().await;
    }

    #[tokio::test]
    async fn what_no_waiting_mends_is_over_and_says_why() {
        let mut feed = supervise("file:/etc/hostname");
        let news = tokio::time::timeout(Duration::from_secs(20), feed.news.recv()).await.unwrap();
        let Some(News::Over { index: 7, error: Some(error) }) = news else { panic!("it is not over") };
        assert!(error.to_string().contains("holds no video"), "{error}");
    }
}
