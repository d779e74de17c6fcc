//! Profiles that come with the program, by name: the files in configs/link-profiles.

use anyhow::bail;
use std::path::Path;
use trocar_proto::link::Profile;

/// What lists them in place of a name.
const LIST: &str = "list";

/// A file that is compiled in, by its name without `.toml`.
macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../configs/link-profiles/", $name, ".toml")))),*]
    };
}

/// From the best to the worst.
const BUILT_IN: &[(&str, &str)] = built_in![
    "clean-lan",
    "sinet",
    "ip-vpn-best-effort",
    "shortage-145-of-150",
    "bufferbloat",
    "policer",
    "packet-balancing",
    "lossy-bursts",
    "intercontinental",
    "5g-good",
    "5g-busy",
    "5g-handover",
    "lte",
    "leo-satellite",
    "hospital-wifi",
];

/// The profile of a name, or of a file: what has a dot or a slash in it is a file.
pub(super) fn read(name: &str) -> anyhow::Result<Profile> {
    if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
        return super::parse_profile(text, Path::new(""));
    }
    if name == LIST {
        bail!("--profile takes one of these names, or a file:\n{}", list());
    }
    let path = Path::new(name);
    if !name.contains(['.', '/']) && !path.exists() {
        bail!("--profile {name}: nothing of that name; a file is right, or one of\n{}", list());
    }
    super::read_profile(path)
}

/// One line for each: name and title.
fn list() -> String {
    let width = BUILT_IN.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let title = |text| super::parse_profile(text, Path::new("")).map_or_else(|e| e.to_string(), |p| p.title);
    let lines: Vec<String> = BUILT_IN.iter().map(|(name, text)| format!("  {name:width$}  {}", title(text))).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::link::config::{Blackout, Delay};
    use trocar_proto::link::loss::GilbertElliott;
    use trocar_proto::link::{Direction, Link, LinkConfig};
    use trocar_proto::units::Micros;

    const LEN: u32 = 1_200;
    const PACKETS: u64 = 200_000;
    /// So far apart that no packet waits for another, and in no step with a blackout.
    const APART_US: u64 = 197_003;

    fn profiles() -> impl Iterator<Item = (&'static str, Profile)> {
        BUILT_IN.iter().map(|(name, _)| (*name, read(name).unwrap()))
    }

    /// Share that is lost and mean delay in ms of packets that come one by one.
    fn measured(config: &LinkConfig, seed: u64) -> (f64, f64) {
        let mut link = Link::new(config, seed).unwrap();
        let (mut arrived, mut delay_us) = (0_u64, 0_u64);
        for n in 0..=PACKETS {
            let now = Micros(n * APART_US);
            while let Some(out) = link.poll_departure(now) {
                let trocar_proto::link::Fate::Delivered { at, .. } = out.entry.fate else { panic!("{out:?}") };
                (arrived, delay_us) = (arrived + 1, delay_us + (at.0 - out.entry.arrived.0));
            }
            while link.poll_drop().is_some() {}
            if n < PACKETS {
                link.handle_packet(now, LEN, ());
            }
        }
        (1.0 - arrived as f64 / PACKETS as f64, delay_us as f64 / arrived as f64 / 1_000.0)
    }

    /// The same by what the profile says; `se` is the standard error of the loss.
    struct Said {
        loss: f64,
        se: f64,
        delay_ms: f64,
    }

    fn said(config: &LinkConfig) -> Said {
        let chain = config.loss.as_ref().map_or(GilbertElliott::NONE, GilbertElliott::from);
        let dark: f64 = config.blackout.iter().map(|b: &Blackout| b.length_ms / b.every_ms.unwrap()).sum();
        let lost = chain.mean_loss();
        let line = config.line.as_ref().unwrap();
        let sending_ms = f64::from(8 * (LEN + line.overhead_bytes)) / (line.mbit_s.unwrap() * 1_000.0);
        // What is put back waits for its hold: nothing comes that could overtake it.
        let held_ms = config.reorder.as_ref().map_or(0.0, |r| r.percent / 100.0 * r.hold_ms);
        Said {
            loss: dark + (1.0 - dark) * lost,
            se: chain.standard_error(PACKETS as f64) + (dark * (1.0 - dark) / PACKETS as f64).sqrt(),
            delay_ms: mean_ms(&config.delay) + sending_ms + held_ms,
        }
    }

    fn mean_ms(delay: &Delay) -> f64 {
        match *delay {
            Delay::Constant { ms } => ms,
            Delay::Uniform { min_ms, max_ms } => f64::midpoint(min_ms, max_ms),
            // The cuts of these profiles are far out.
            Delay::Normal { mean_ms, .. } => mean_ms,
            Delay::Pareto { base_ms, scale_ms, alpha, max_ms } => {
                // The mean of an excess cut at x: the integral of the tail, less what the cut takes away.
                let (x, a) = (max_ms - base_ms, alpha);
                let tail = |v: f64| (1.0 + v / scale_ms).powf(-a);
                let integral = scale_ms / (a - 1.0) * (1.0 - (1.0 + x / scale_ms).powf(1.0 - a));
                base_ms + (integral - x * tail(x)) / (1.0 - tail(x))
            }
        }
    }

    #[test]
    fn every_built_in_profile_does_on_a_clock_that_jumps_what_it_says() {
        assert!(BUILT_IN.len() >= 12);
        for (name, profile) in profiles() {
            profile.check().unwrap();
            assert!(!profile.title.is_empty() && profile.source.len() > 30, "{name} has no title or source");
            for (way, config) in [(Direction::Up, &profile.up), (Direction::Down, &profile.down)] {
                let (said, (loss, delay_ms)) = (said(config), measured(config, way.seed(7)));
                let bound = 5.0 * said.se + 1e-5;
                assert!((loss - said.loss).abs() <= bound, "{name} {way:?}: loss {loss}, {} ± {bound} said", said.loss);
                let off = (delay_ms - said.delay_ms).abs();
                assert!(off <= 0.01 * said.delay_ms + 0.05, "{name} {way:?}: {delay_ms} ms, {} said", said.delay_ms);
                // The control: a line with two per cent more loss, or a tenth more delay, is another one.
                assert!((loss + 0.02 - said.loss).abs() > bound, "{name}: the bound {bound} sees nothing");
                assert!(0.1 * said.delay_ms + off > 0.01 * said.delay_ms + 0.05 || said.delay_ms < 0.6, "{name}");
            }
        }
    }

    #[test]
    fn at_145_of_150_mbit_s_is_lost_what_was_published() {
        let config = read("shortage-145-of-150").unwrap().up;
        let lost_at = |mbit_s: f64| {
            let mut link = Link::new(&config, 1).unwrap();
            let apart_us = f64::from(LEN * 8) / mbit_s;
            for n in 0..300_000 {
                let now = Micros((f64::from(n) * apart_us) as u64);
                link.handle_packet(now, LEN, ());
                while link.poll_departure(now).is_some() || link.poll_drop().is_some() {}
            }
            100.0 * link.tally().queue_dropped as f64 / link.tally().offered as f64
        };
        let lost = lost_at(150.0);
        assert!((3.0..=7.0).contains(&lost), "{lost} %: 3 to 7 % are published");
        assert_eq!(lost_at(140.0), 0.0, "the control");
    }

    #[test]
    fn each_file_of_the_directory_is_built_in_and_names_are_listed() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/link-profiles");
        let mut files: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|f| f.unwrap().path())
            .map(|p| p.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        let mut names: Vec<String> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
        files.sort();
        names.sort();
        assert_eq!(files, names);
        for asked in ["list", "6g-perfect"] {
            let answer = read(asked).unwrap_err().to_string();
            assert!(names.iter().all(|n| answer.contains(n)), "{answer}");
        }
        assert!(read("./5g-busy").unwrap_err().to_string().contains("cannot read ./5g-busy"), "a slash is a file");
    }
}
