//! One type for each kind of number, so that two of them cannot be mixed up. None of them turns into an integer by itself.

use serde::{Deserialize, Serialize};

/// A point on a monotonic clock, in microseconds since an origin that the caller chose. Never compared across processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Micros(pub u64);

impl Micros {
    /// Time from `earlier` to `self` in microseconds; 0 where `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This point moved forward by `us` microseconds.
    #[must_use]
    pub const fn plus(self, us: u64) -> Self {
        Self(self.0.saturating_add(us))
    }
}

/// A point of the wall clock: microseconds since the Unix epoch. For tokens, audit, capture times and display only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct WallMicros(pub u64);

/// Seconds between the NTP epoch (1900) and the Unix epoch (1970), RFC 868.
const NTP_UNIX_OFFSET_S: u64 = 2_208_988_800;

impl WallMicros {
    /// The same point as a 64-bit NTP timestamp, UQ32.32 seconds since 1900 (RFC 5905 section 6).
    #[must_use]
    pub const fn to_ntp(self) -> u64 {
        let secs = self.0 / 1_000_000 + NTP_UNIX_OFFSET_S;
        let frac = ((self.0 % 1_000_000) << 32) / 1_000_000;
        (secs << 32) | frac
    }

    /// From a 64-bit NTP timestamp of era 0; times before 1970 give 0. Rounded to the nearest microsecond.
    #[must_use]
    pub const fn from_ntp(ntp: u64) -> Self {
        let secs = (ntp >> 32).saturating_sub(NTP_UNIX_OFFSET_S);
        let micros = ((ntp & 0xffff_ffff) * 1_000_000 + (1 << 31)) >> 32;
        Self(secs * 1_000_000 + micros)
    }

    /// This point moved by a signed number of microseconds; never before the epoch.
    #[must_use]
    pub const fn offset(self, us: i64) -> Self {
        Self(self.0.saturating_add_signed(us))
    }

    /// Signed microseconds from `earlier` to `self`.
    #[must_use]
    pub const fn signed_since(self, earlier: Self) -> i64 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }
}

/// RTP synchronisation source (RFC 3550 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ssrc(pub u32);

/// An RTP sequence number widened to 64 bits, so that it never wraps (RFC 3550 appendix A.1, RFC 3711 section 3.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqNo(pub u64);

impl SeqNo {
    /// The 16 bits that travel in the packet.
    #[must_use]
    pub const fn low16(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// The roll-over counter of SRTP (RFC 3711 section 3.3.1).
    #[must_use]
    pub const fn roc(self) -> u32 {
        (self.0 >> 16) as u32
    }
}

/// An RTP media time: 32 bits of the feed's clock rate, wrapping (RFC 3550 section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MediaTime(pub u32);

/// A RoQ flow identifier, a QUIC variable-length integer of at most 62 bits (draft-ietf-avtcore-rtp-over-quic).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct FlowId(pub u64);

/// Bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Bitrate(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_round_trip_is_exact_to_the_microsecond() {
        for us in [0, 1, 999_999, 1_700_000_000_123_456, 2_000_000_000_999_999] {
            assert_eq!(WallMicros::from_ntp(WallMicros(us).to_ntp()), WallMicros(us));
        }
    }

    #[test]
    fn sequence_number_splits_into_roc_and_low_bits() {
        let s = SeqNo(0x0001_0002_fffe);
        assert_eq!((s.roc(), s.low16()), (0x0001_0002, 0xfffe));
    }
}
