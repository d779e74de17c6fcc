//! One relay's event stream, kept for as long as signaling runs.

use super::door::Door;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};
use trocar_proto::session::admission::RelayEvent;
use trocar_proto::session::remote::{RelayHello, RelayState, StreamLine, Word};

/// A relay that said nothing for this long is taken for silent; it says something twice a second.
pub(super) const SILENCE: Duration = Duration::from_millis(1_500);
/// After this long in silence its work goes to another relay, where there is one.
pub(super) const GIVEN_UP: Duration = Duration::from_secs(10);
/// First and longest pause between attempts.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];
/// Longest line, in bytes: the first one has all that the relay has.
const LINE: usize = 16 << 20;
/// How often the trust list is looked at.
const TRUST_EVERY: Duration = Duration::from_millis(250);

/// What the stream of one relay says.
#[allow(clippy::large_enum_variant, reason = "few at a time, and a box would be one more thing to read past")]
pub(super) enum News {
    /// It is there, with all that it has. The number is that of the attempt.
    Up(u64, Box<RelayHello>, Box<RelayState>),
    /// Something happened there.
    Event(RelayEvent),
    /// Nothing was heard of it for [`SILENCE`].
    Silent,
    /// The same for [`GIVEN_UP`].
    GivenUp,
    /// Nobody listens at its address: the process is gone.
    Gone,
}

/// Keeps the stream until nobody wants its news any more. `begin` gives each attempt its number.
pub(super) async fn keep(name: String, door: Arc<Door>, begin: impl Fn() -> u64 + Send, news: mpsc::Sender<News>) {
    let mut heard = Instant::now();
    let (mut pause, longest) = (PAUSES[0], PAUSES[1]);
    let mut told = String::new();
    let mut said = Said::default();
    loop {
        let attempt = begin();
        let listening = timeout(SILENCE, door.listen()).await;
        let (refused, why) = match listening {
            Ok(Ok((response, certificate))) => {
                let mut stream = Stream { response, buffer: Vec::new(), seq: 0 };
                let end = read(&mut stream, certificate, attempt, &door, &news, &mut heard).await;
                let Some(why) = end else { return };
                if stream.seq > 0 {
                    // It was there: what comes now is new.
                    (pause, said) = (PAUSES[0], Said::default());
                    told.clear();
                }
                (false, why)
            }
            Ok(Err(error)) => error,
            Err(_) => (false, "no answer".to_owned()),
        };
        if why != told {
            tracing::warn!(relay = name, error = why, "no event stream from the relay");
            told = why;
        }
        for word in said.next(refused, heard.elapsed()) {
            if news.send(word).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = news.closed() => return,
        }
        door.renew();
        pause = (pause * 2).min(longest);
    }
}

/// What has been said since the relay was last heard; each once.
#[derive(Default)]
struct Said {
    silent: bool,
    gone: bool,
}

impl Said {
    fn next(&mut self, refused: bool, quiet: Duration) -> Vec<News> {
        let mut words = Vec::new();
        if !self.silent && quiet >= SILENCE {
            self.silent = true;
            words.push(News::Silent);
        }
        if !self.gone && refused {
            self.gone = true;
            words.push(News::Gone);
        }
        if !self.gone && quiet >= GIVEN_UP {
            words.push(News::GivenUp);
        }
        words
    }
}

struct Stream {
    response: reqwest::Response,
    buffer: Vec<u8>,
    seq: u64,
}

/// Reads one stream to its end, and says why it ended; none where nobody wants news.
async fn read(
    stream: &mut Stream,
    certificate: trocar_proto::session::ids::CertHash,
    attempt: u64,
    door: &Door,
    news: &mpsc::Sender<News>,
    heard: &mut Instant,
) -> Option<String> {
    let mut looks = interval(TRUST_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        let line = tokio::select! {
            biased;
            line = timeout_at(last + SILENCE, stream.line()) => line,
            _ = looks.tick() => {
                if door.renew() {
                    return Some("the trust list has changed".to_owned());
                }
                continue;
            }
        };
        let line = match line {
            Ok(Ok(line)) => line,
            Ok(Err(why)) => return Some(why),
            Err(_) => return Some(format!("nothing came for {} ms", SILENCE.as_millis())),
        };
        if line.seq != stream.seq {
            return Some(format!("line {} came where {} was next", line.seq, stream.seq));
        }
        let word = match (line.word, stream.seq) {
            (Word::Hello(hello, state), 0) => {
                if hello.certificate != certificate {
                    return Some("the relay says another certificate than it shows".to_owned());
                }
                Some(News::Up(attempt, hello, state))
            }
            (_, 0) | (Word::Hello(..), _) => return Some("the first line, and no other, says who it is".to_owned()),
            (Word::Event(event), _) => Some(News::Event(event)),
            (Word::Alive, _) => None,
        };
        stream.seq += 1;
        last = Instant::now();
        *heard = last;
        if let Some(word) = word
            && news.send(word).await.is_err()
        {
            return None;
        }
    }
}

impl Stream {
    /// The next line. May be dropped and called again: what came is kept.
    async fn line(&mut self) -> Result<StreamLine, String> {
        let mut looked = 0;
        loop {
            if let Some(at) = self.buffer.get(looked..).and_then(|b| b.iter().position(|c| *c == b'\n')) {
                let line: Vec<u8> = self.buffer.drain(..=looked + at).collect();
                return serde_json::from_slice(&line).map_err(|e| format!("a line is not understood: {e}"));
            }
            looked = self.buffer.len();
            if looked > LINE {
                return Err(format!("a line is longer than {LINE} bytes"));
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) => return Err("the stream has ended".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}
