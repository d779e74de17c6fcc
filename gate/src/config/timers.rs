//! `[timers]`: every field of the handover's configuration under its own name, with its unit at the end of the key.

use serde::Deserialize;
use trocar_proto::handover::config::Config;

/// Longest time that can be asked for.
const MOST_MS: f64 = 3_600_000.0;

/// A timer or threshold that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("timers.{key} = {value}: must be {rule}")]
pub struct TimerError {
    /// Which.
    pub key: &'static str,
    /// What it is, where the file left it out its default.
    pub value: String,
    /// What would be right; names without a unit are those of other timers.
    pub rule: String,
}

/// How a key is written and what it becomes.
trait Unit {
    type Written: Copy;
    type Value;
    fn read(key: &'static str, written: Self::Written) -> Result<Self::Value, TimerError>;
    fn write(value: &Self::Value) -> String;
}

/// Milliseconds in the file, microseconds inside.
enum Ms {}
/// Degrees in the file, thousandths inside.
enum Degrees {}
/// A number that stays as it is.
enum Count {}
/// The same with 16 bits.
enum Number {}

impl Unit for Ms {
    type Written = f64;
    type Value = u64;

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
    fn read(key: &'static str, ms: f64) -> Result<u64, TimerError> {
        if (0.0..=MOST_MS).contains(&ms) {
            Ok((ms * 1_000.0).round() as u64)
        } else {
            Err(TimerError { key, value: ms.to_string(), rule: "0 to 3600000 ms".to_owned() })
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "at most an hour")]
    fn write(us: &u64) -> String {
        (*us as f64 / 1_000.0).to_string()
    }
}

impl Unit for Degrees {
    type Written = f64;
    type Value = u32;

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
    fn read(key: &'static str, degrees: f64) -> Result<u32, TimerError> {
        if (0.0..=180.0).contains(&degrees) {
            Ok((degrees * 1_000.0).round() as u32)
        } else {
            Err(TimerError { key, value: degrees.to_string(), rule: "0 to 180 degrees".to_owned() })
        }
    }

    fn write(thousandths: &u32) -> String {
        (f64::from(*thousandths) / 1_000.0).to_string()
    }
}

impl Unit for Count {
    type Written = u64;
    type Value = u64;
    fn read(_: &'static str, count: u64) -> Result<u64, TimerError> {
        Ok(count)
    }
    fn write(count: &u64) -> String {
        count.to_string()
    }
}

impl Unit for Number {
    type Written = u16;
    type Value = u16;
    fn read(_: &'static str, number: u16) -> Result<u16, TimerError> {
        Ok(number)
    }
    fn write(number: &u16) -> String {
        number.to_string()
    }
}

/// The list of all of them: field, key, unit. The compiler refuses it when a field of [`Config`] is left out.
macro_rules! timers {
    ($($field:ident $key:literal $unit:ty,)*) => {
        /// As written; what is left out has its default.
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct Timers {
            $(#[serde(rename = $key)] $field: Option<<$unit as Unit>::Written>,)*
        }

        impl Timers {
            fn apply(&self) -> Result<Config, TimerError> {
                let default = Config::default();
                Ok(Config {
                    $($field: match self.$field {
                        Some(written) => <$unit as Unit>::read($key, written)?,
                        None => default.$field,
                    },)*
                })
            }
        }

        /// The key of a field, and its value as the file would have it.
        fn key(field: &str, config: &Config) -> Option<(&'static str, String)> {
            $(if field == stringify!($field) {
                return Some(($key, <$unit as Unit>::write(&config.$field)));
            })*
            None
        }

        /// Those that have another value than their default: key, value and default as the file would have them.
        pub(super) fn changed(config: &Config) -> Vec<(&'static str, String, String)> {
            let default = Config::default();
            let mut changed = Vec::new();
            $(if config.$field != default.$field {
                let written = |of: &Config| <$unit as Unit>::write(&of.$field);
                changed.push(($key, written(config), written(&default)));
            })*
            changed
        }

        #[cfg(test)]
        pub(super) const KEYS: &[&str] = &[$($key),*];
    };
}

timers! {
    beacon "beacon_ms" Ms,
    heartbeat "heartbeat_ms" Ms,
    gap "gap_ms" Ms,
    lease "lease_ms" Ms,
    station_silence "station_silence_ms" Ms,
    command_age "command_age_ms" Ms,
    grant_green "grant_green_ms" Ms,
    grant_amber "grant_amber_ms" Ms,
    withdraw_age "withdraw_age_ms" Ms,
    withdraw_time "withdraw_time_ms" Ms,
    withdraw_at_once "withdraw_at_once_ms" Ms,
    hysteresis "hysteresis_ms" Ms,
    window_time "window_time_ms" Ms,
    jitter_green "jitter_green_ms" Ms,
    loss_green_ppm "loss_green_ppm" Count,
    loss_red_ppm "loss_red_ppm" Count,
    frame_stop "frame_stop_ms" Ms,
    frame_hold "frame_hold_ms" Ms,
    frame_time "frame_time_ms" Ms,
    frames_missing "frames_missing" Count,
    control_source "control_source" Number,
    offer_time "offer_time_ms" Ms,
    ready_time "ready_time_ms" Ms,
    grant_time "grant_time_ms" Ms,
    orientation "orientation_degrees" Degrees,
    stop_hold "stop_hold_ms" Ms,
    pedal "pedal_ms" Ms,
    console "console_ms" Ms,
    status "status_ms" Ms,
    status_age "status_age_ms" Ms,
    keep_alive "keep_alive_ms" Ms,
    watchdog "watchdog_ms" Ms,
    device_report "device_report_ms" Ms,
    estop_every "estop_every_ms" Ms,
    command_rate "command_rate" Count,
    beat_rate "beat_rate" Count,
    window "window" Count,
    epoch_block "epoch_block" Count,
    burst "burst_ms" Ms,
}

impl Timers {
    /// All of them, as far as they fit together.
    ///
    /// # Errors
    /// [`TimerError`] names the first that does not fit, and the rule.
    pub(super) fn resolve(&self) -> Result<Config, TimerError> {
        let config = self.apply()?;
        // A block is asked for again before it runs out; a huge one wastes numbers that never come back.
        if config.epoch_block > 1 << 32 {
            let value = config.epoch_block.to_string();
            return Err(TimerError { key: "epoch_block", value, rule: "at most 4294967296".to_owned() });
        }
        config.check().map_err(|e| {
            let (key, value) = key(e.field, &config).unwrap_or((e.field, String::new()));
            TimerError { key, value, rule: e.rule.to_owned() }
        })?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<Config, String> {
        let timers: Timers = toml::from_str(text).map_err(|e| e.to_string())?;
        timers.resolve().map_err(|e| e.to_string())
    }

    #[test]
    fn nothing_written_is_the_default() {
        assert_eq!(resolve(""), Ok(Config::default()));
    }

    #[test]
    fn a_value_is_written_with_its_unit_and_may_have_a_fraction() {
        let config =
            resolve("lease_ms = 600\nframe_time_ms = 16.667\norientation_degrees = 2.5\ncontrol_source = 3").unwrap();
        let want =
            Config { lease: 600_000, frame_time: 16_667, orientation: 2_500, control_source: 3, ..Config::default() };
        assert_eq!(config, want);
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_value_and_the_rule() {
        for (text, want) in [
            ("lease_ms = 200", "timers.station_silence_ms = 250: must be below lease"),
            ("lease_ms = 5000", "timers.lease_ms = 5000: must be at most 1 s"),
            ("gap_ms = -1", "timers.gap_ms = -1: must be 0 to 3600000 ms"),
            ("gap_ms = nan", "timers.gap_ms = NaN: must be 0 to 3600000 ms"),
            ("orientation_degrees = 181", "timers.orientation_degrees = 181: must be 0 to 180 degrees"),
            ("epoch_block = 3", "timers.epoch_block = 3: must be at least 4"),
            ("epoch_block = 99999999999", "timers.epoch_block = 99999999999: must be at most 4294967296"),
            ("command_rate = 2000", "timers.command_rate = 2000: must be 1 to 1000"),
        ] {
            assert_eq!(resolve(text).unwrap_err(), want, "{text}");
        }
        assert!(resolve("lease = 600").unwrap_err().contains("unknown field `lease`"));
        assert!(resolve("window = -1").unwrap_err().contains("window"));
        assert!(resolve("control_source = 65536").unwrap_err().contains("control_source"));
    }
}
