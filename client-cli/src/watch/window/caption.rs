//! What stands on the picture: how old it is, in words that nobody takes for live when it is not.

use crate::watch::origin::Origin;
use std::time::Duration;
use trocar_proto::session::api::FeedState;
use trocar_proto::units::WallMicros;

/// A picture that stands still for longer is called frozen. As in the page.
const FROZEN_AFTER: Duration = Duration::from_millis(400);
/// An age from here on is amber, and red: the handover's telementoring row, as in the page.
const AMBER_US: i64 = 600_000;
const RED_US: i64 = 1_300_000;
/// One refresh of a 60 Hz screen: the moment of presentation is not known better.
const DISPLAY_US: u64 = 16_000;

/// How loud it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// In a corner.
    Good,
    /// In a corner, amber.
    Late,
    /// Large, red, in the middle.
    Alarm,
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caption {
    pub(super) text: String,
    pub(super) level: Level,
}

/// The picture on the screen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    /// How long it has been there.
    pub(super) since: Duration,
    /// When it was captured, where that is known.
    pub(super) origin: Option<Origin>,
}

/// The caption at `now` by this machine's clock.
pub(super) fn caption(now: WallMicros, shown: Option<Shown>, feed: Option<FeedState>) -> Caption {
    let alarm = |text: String| Caption { text, level: Level::Alarm };
    let Some(shown) = shown else {
        // Frames may be coming already: until one comes that can be shown by itself, nothing is.
        let may_come = matches!(feed, None | Some(FeedState::Live));
        let why = if may_come { "NO PICTURE YET\nwaiting for a whole one" } else { "NO PICTURE\nwaiting for the feed" };
        return alarm(why.to_owned());
    };
    let still = shown.since > FROZEN_AFTER;
    let Some(age) = shown.origin.map(|o| o.age(now)) else {
        // How long it has stood is the least that its age can be.
        return alarm(if still {
            format!("FROZEN {:.1} s", shown.since.as_secs_f64())
        } else {
            "AGE UNKNOWN".to_owned()
        });
    };
    let seconds = age.age_us.max(0) as f64 / 1e6;
    let uncertain_us = age.uncertainty_us.saturating_add(DISPLAY_US);
    if still {
        let word = if feed == Some(FeedState::Live) { "FROZEN" } else { "STALLED" };
        return alarm(format!("{word} {:.1} s", seconds.max(shown.since.as_secs_f64())));
    }
    if age.age_us < 0 && age.age_us.unsigned_abs() > uncertain_us {
        return alarm("AGE UNKNOWN\nthe clocks do not agree".to_owned());
    }
    if age.age_us >= RED_US {
        return alarm(format!("TOO OLD {seconds:.1} s"));
    }
    let text = format!("AGE {:.0} ± {:.0} ms", seconds * 1e3, (uncertain_us as f64 / 1e3).ceil());
    if age.age_us >= AMBER_US {
        return Caption { text: format!("{text}  LATE"), level: Level::Late };
    }
    Caption { text, level: Level::Good }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallMicros = WallMicros(100_000_000);

    fn at(age_us: i64, since_ms: u64, feed: FeedState) -> Caption {
        let origin = Some(Origin { at: NOW.offset(-age_us), uncertainty_us: 500 });
        caption(NOW, Some(Shown { since: Duration::from_millis(since_ms), origin }), Some(feed))
    }

    #[test]
    fn a_young_picture_shows_its_age_and_an_old_one_shouts() {
        let live = |age| at(age, 30, FeedState::Live);
        assert_eq!(live(48_000), Caption { text: "AGE 48 ± 17 ms".to_owned(), level: Level::Good });
        assert_eq!(live(-1_000).text, "AGE 0 ± 17 ms");
        assert_eq!((live(600_000).level, live(599_999).level), (Level::Late, Level::Good));
        assert_eq!(live(1_300_000), Caption { text: "TOO OLD 1.3 s".to_owned(), level: Level::Alarm });
        assert!(live(-20_000_000).text.starts_with("AGE UNKNOWN"));
    }

    #[test]
    fn a_picture_that_stands_still_is_never_shown_as_live_whatever_is_known_of_it() {
        for (feed, word) in
            [(FeedState::Live, "FROZEN"), (FeedState::Stalled, "STALLED"), (FeedState::Waiting, "STALLED")]
        {
            let c = at(1_230_000, 401, feed);
            assert_eq!((c.text.as_str(), c.level), (&*format!("{word} 1.2 s"), Level::Alarm));
        }
        let unknown =
            |ms| caption(NOW, Some(Shown { since: Duration::from_millis(ms), origin: None }), Some(FeedState::Live));
        assert_eq!(unknown(2_000), Caption { text: "FROZEN 2.0 s".to_owned(), level: Level::Alarm });
        assert_eq!(unknown(20), Caption { text: "AGE UNKNOWN".to_owned(), level: Level::Alarm });
        // A clock that was set back makes no still picture young.
        assert_eq!(at(-5_000_000, 3_000, FeedState::Live).text, "FROZEN 3.0 s");
    }

    #[test]
    fn without_a_picture_that_is_said() {
        assert_eq!(caption(NOW, None, None).level, Level::Alarm);
        assert!(caption(NOW, None, Some(FeedState::Waiting)).text.contains("waiting for the feed"));
        assert_eq!(caption(NOW, None, Some(FeedState::Live)).text, "NO PICTURE YET\nwaiting for a whole one");
    }
}
