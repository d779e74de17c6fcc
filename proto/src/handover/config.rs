//! Every timer and threshold, in one block. It is shown on every screen and written to the audit log when a session starts.

use super::message::Timers;

/// Durations are microseconds. [`Config::default`] has the values of HANDOVER.md; each field says where its number comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Config {
    /// Time between two BEACONs: 50 Hz.
    pub beacon: u64,
    /// Time between two HBs of the station: 50 Hz.
    pub heartbeat: u64,
    /// Nothing fresh from the holder for so long stops motion. Teleoperated driving stops on a command gap of 150 ms.
    pub gap: u64,
    /// No valid HB for so long ends REMOTE. RAVEN II waited 5 s, which is the warning.
    pub lease: u64,
    /// The station stops sending when no BEACON came for so long: it gives up before the gate takes.
    pub station_silence: u64,
    /// A command older than this, by its loop age, is refused. Simulator studies call up to 200 ms ideal.
    pub command_age: u64,
    /// Loop age p95 up to this is green for a grant (Nankaku 2022: 100 ms).
    pub grant_green: u64,
    /// Loop age p95 up to this is amber for a grant (hinotori: 125 to 150 ms).
    pub grant_amber: u64,
    /// Loop age above this for [`Self::withdraw_time`] ends REMOTE. Same basis as `command_age`.
    pub withdraw_age: u64,
    /// How long loop age may stay above `withdraw_age`.
    pub withdraw_time: u64,
    /// Loop age above this in one newest HB ends REMOTE.
    pub withdraw_at_once: u64,
    /// Link gates become better only after so long without a worse value.
    pub hysteresis: u64,
    /// How much of the past a link gate looks at.
    pub window_time: u64,
    /// Jitter p95 up to this is green (industry key figure).
    pub jitter_green: u64,
    /// Loss up to this is green, in parts per million (5G series: 0.1 %).
    pub loss_green_ppm: u64,
    /// Loss above this is red, in parts per million (1 %).
    pub loss_red_ppm: u64,
    /// Frame age above this stops motion: a frozen picture with a live command channel kills quietly.
    pub frame_stop: u64,
    /// Frame age above this ends REMOTE.
    pub frame_hold: u64,
    /// Time between two frames of the control source: 30 frames per second unless the feed says otherwise.
    pub frame_time: u64,
    /// So many frame times without a new frame stop motion.
    pub frames_missing: u64,
    /// The source whose picture the holder must see.
    pub control_source: u16,
    /// T_offer: how long an offer waits for ACCEPT.
    pub offer_time: u64,
    /// T_ready: measuring, alignment and CONFIRM.
    pub ready_time: u64,
    /// T_grant: intent to durable.
    pub grant_time: u64,
    /// Greatest difference of orientation for alignment, in thousandths of a degree (dVRK: 5°).
    pub orientation: u32,
    /// A stop other than an open clutch that lasts longer becomes HOLD.
    pub stop_hold: u64,
    /// Energy acts only while its pedal is held in an HB that came within this: three HBs.
    pub pedal: u64,
    /// Local's console is lost when it was not heard for so long.
    pub console: u64,
    /// Time between two STATUS: 10 Hz.
    pub status: u64,
    /// A STATUS older than this is "control unknown, hands off".
    pub status_age: u64,
    /// Time between two keep-alives to the device.
    pub keep_alive: u64,
    /// The device holds when it got no keep-alive for so long while remote is selected.
    pub watchdog: u64,
    /// A device report older than this is none.
    pub device_report: u64,
    /// One ESTOP per sender in this time.
    pub estop_every: u64,
    /// Commands per second and holder.
    pub command_rate: u64,
    /// HBs per second and holder: twice what a station sends.
    pub beat_rate: u64,
    /// Greatest step of a counter (RAVEN II: a forward jump hijacked the sequence; Bonaci 2015).
    pub window: u64,
    /// Epochs reserved with one write.
    pub epoch_block: u64,
    /// Refused datagrams with no pause longer than this are one burst in the audit log.
    pub burst: u64,
}

const MS: u64 = 1_000;
const SECOND: u64 = 1_000_000;

impl Default for Config {
    fn default() -> Self {
        Self {
            beacon: 20 * MS,
            heartbeat: 20 * MS,
            gap: 150 * MS,
            lease: 500 * MS,
            station_silence: 250 * MS,
            command_age: 200 * MS,
            grant_green: 100 * MS,
            grant_amber: 150 * MS,
            withdraw_age: 200 * MS,
            withdraw_time: SECOND,
            withdraw_at_once: 500 * MS,
            hysteresis: 5 * SECOND,
            window_time: 5 * SECOND,
            jitter_green: 10 * MS,
            loss_green_ppm: 1_000,
            loss_red_ppm: 10_000,
            frame_stop: 300 * MS,
            frame_hold: SECOND,
            frame_time: 33_334,
            frames_missing: 5,
            control_source: 1,
            offer_time: 30 * SECOND,
            ready_time: 30 * SECOND,
            grant_time: SECOND,
            orientation: 5_000,
            stop_hold: SECOND,
            pedal: 60 * MS,
            console: SECOND,
            status: 100 * MS,
            status_age: 500 * MS,
            keep_alive: 20 * MS,
            watchdog: 150 * MS,
            device_report: 500 * MS,
            estop_every: 10 * SECOND,
            command_rate: 1_000,
            beat_rate: 100,
            window: 1_024,
            epoch_block: 16,
            burst: SECOND,
        }
    }
}

impl From<&Config> for Timers {
    /// What STATUS carries. Beyond 71 minutes it is cut off.
    fn from(cfg: &Config) -> Self {
        let us = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            heartbeat: us(cfg.heartbeat),
            station_silence: us(cfg.station_silence),
            status_age: us(cfg.status_age),
            ready_time: us(cfg.ready_time),
            grant_time: us(cfg.grant_time),
        }
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self::from(&Config::default())
    }
}

impl Timers {
    /// The station's configuration with the gate's numbers.
    ///
    /// # Errors
    /// [`ConfigError`] names the first number that no station can go by.
    pub fn apply(self, cfg: &Config) -> Result<Config, ConfigError> {
        let Self { heartbeat, station_silence, status_age, ready_time, grant_time } = self;
        let second = 1_000_000;
        let rules = [
            (heartbeat >= 1_000, "heartbeat", "at least 1 ms"),
            (station_silence / 3 >= heartbeat, "station_silence", "at least three times heartbeat"),
            (station_silence < second, "station_silence", "below 1 s"),
            ((1..=5 * second).contains(&status_age), "status_age", "above 0 and at most 5 s"),
        ];
        match rules.into_iter().find(|(fits, ..)| !fits) {
            Some((_, field, rule)) => Err(ConfigError { field, rule }),
            None => Ok(Config {
                heartbeat: heartbeat.into(),
                station_silence: station_silence.into(),
                status_age: status_age.into(),
                ready_time: ready_time.into(),
                grant_time: grant_time.into(),
                ..cfg.clone()
            }),
        }
    }
}

/// A configuration whose parts contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field}: must be {rule}")]
pub struct ConfigError {
    /// The field that is wrong.
    pub field: &'static str,
    /// What would be right.
    pub rule: &'static str,
}

impl Config {
    /// Whether the parts fit together: what stops must come before what takes, and nothing may be switched off by a zero.
    ///
    /// # Errors
    /// [`ConfigError`] names the first field that does not fit, and the rule.
    pub fn check(&self) -> Result<(), ConfigError> {
        let rules = [
            (self.beacon > 0 && self.beacon <= self.gap / 3, "beacon", "above 0 and at most a third of gap"),
            (self.heartbeat > 0 && self.heartbeat <= self.gap / 3, "heartbeat", "above 0 and at most a third of gap"),
            (self.gap < self.station_silence, "gap", "below station_silence"),
            (self.station_silence < self.lease, "station_silence", "below lease"),
            (self.lease <= SECOND, "lease", "at most 1 s"),
            (self.command_age <= self.withdraw_age, "command_age", "at most withdraw_age"),
            (self.withdraw_age < self.withdraw_at_once, "withdraw_age", "below withdraw_at_once"),
            (self.withdraw_at_once <= 64 * self.beacon, "withdraw_at_once", "within the 64 nonces that are kept"),
            (self.grant_green <= self.grant_amber, "grant_green", "at most grant_amber"),
            (self.grant_amber <= self.command_age, "grant_amber", "at most command_age"),
            (self.frame_stop < self.frame_hold, "frame_stop", "below frame_hold"),
            (self.frame_time > 0 && self.frames_missing > 0, "frame_time", "above 0, and frames_missing too"),
            (self.loss_green_ppm <= self.loss_red_ppm, "loss_green_ppm", "at most loss_red_ppm"),
            (self.keep_alive > 0 && self.keep_alive <= self.watchdog / 3, "keep_alive", "at most a third of watchdog"),
            (self.watchdog <= self.lease, "watchdog", "at most lease"),
            (self.pedal <= self.gap, "pedal", "at most gap"),
            (self.status > 0 && 2 * self.status <= self.status_age, "status", "at most half of status_age"),
            ((1..=1_000).contains(&self.command_rate), "command_rate", "1 to 1000"),
            (self.beat_rate > 0 && self.window > 0, "beat_rate", "above 0, and window too"),
            (self.epoch_block >= 4, "epoch_block", "at least 4"),
        ];
        match rules.into_iter().find(|(fits, ..)| !fits) {
            Some((_, field, rule)) => Err(ConfigError { field, rule }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_together() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn a_station_takes_over_the_gates_timers_and_refuses_those_that_it_cannot_go_by() {
        // HO-T-014
        let gates = Config { heartbeat: 10_000, station_silence: 200_000, ..Config::default() };
        let taken = Timers::from(&gates).apply(&Config::default()).unwrap();
        assert_eq!(taken, gates);
        let bad = Timers { heartbeat: 0, ..Timers::from(&gates) };
        assert_eq!(bad.apply(&gates).unwrap_err().field, "heartbeat");
        let bad = Timers { station_silence: 2_000_000, ..Timers::from(&gates) };
        assert_eq!(bad.apply(&gates).unwrap_err().to_string(), "station_silence: must be below 1 s");
    }

    #[test]
    fn a_lease_that_ends_before_the_station_gives_up_is_refused_by_name() {
        let bad = Config { lease: 200_000, ..Config::default() };
        assert_eq!(bad.check().unwrap_err().to_string(), "station_silence: must be below lease");
        assert_eq!(Config { keep_alive: 0, ..Config::default() }.check().unwrap_err().field, "keep_alive");
    }
}
