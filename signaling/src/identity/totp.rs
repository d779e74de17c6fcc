//! Codes that an authenticator shows: TOTP (RFC 6238) with HMAC-SHA-1, six digits and steps of 30 s, which is what all of them do.

use crate::error::SessionError;
use aws_lc_rs::{constant_time, hmac};
use std::fmt::Write as _;
use zeroize::Zeroizing;

/// A key shared with one authenticator: 160 bits, as RFC 4226 section 4 asks for.
#[derive(Clone)]
pub(super) struct Secret(Zeroizing<[u8; 20]>);

/// Seconds of a step.
const STEP_S: u64 = 30;
/// Alphabet of base32 (RFC 4648 section 6).
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

impl Secret {
    pub(super) fn new(bytes: [u8; 20]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A random one.
    pub(super) fn generate() -> Result<Self, SessionError> {
        let mut bytes = Zeroizing::new([0_u8; 20]);
        aws_lc_rs::rand::fill(bytes.as_mut()).map_err(|_| SessionError::Secret)?;
        Ok(Self(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// What an authenticator is enrolled with: an `otpauth://` address. `account` needs no escaping.
    pub(super) fn address(&self, account: &str) -> String {
        let mut out = format!("otpauth://totp/Trocar:{account}?secret=");
        // Five bits at a time: 20 bytes are 32 characters, so nothing is left over.
        for chunk in self.0.chunks(5) {
            let bits = chunk.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            let digits = (0..8).rev().filter_map(|i| BASE32.get(usize::try_from(bits >> (5 * i) & 31).ok()?));
            out.extend(digits.map(|b| char::from(*b)));
        }
        // Writing to a String cannot fail.
        let _ = write!(out, "&issuer=Trocar&algorithm=SHA1&digits=6&period={STEP_S}");
        out
    }

    /// The step that `code` belongs to, where it is the one of `now_s` or one beside it; each of them may be tried for a clock that is
    /// half a minute off.
    pub(super) fn step_of(&self, code: &str, now_s: u64) -> Option<u64> {
        let now = now_s / STEP_S;
        let near = [now, now.saturating_sub(1), now + 1];
        near.into_iter()
            .find(|step| constant_time::verify_slices_are_equal(self.code(*step).as_bytes(), code.as_bytes()).is_ok())
    }

    /// The code of a step (RFC 4226 section 5.3).
    pub(super) fn code(&self, step: u64) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, self.0.as_ref());
        let tag = hmac::sign(&key, &step.to_be_bytes());
        let tag = tag.as_ref();
        let offset = usize::from(tag.last().copied().unwrap_or_default() & 0xf);
        let four = tag.get(offset..offset + 4).and_then(|b| b.try_into().ok()).unwrap_or_default();
        format!("{:06}", (u32::from_be_bytes(four) & 0x7fff_ffff) % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new(*b"12345678901234567890")
    }

    #[test]
    fn codes_are_those_of_the_standard() {
        // RFC 6238 appendix B, the last six of the eight digits there.
        for (time, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(secret().code(time / STEP_S), code, "{time}");
        }
    }

    #[test]
    fn a_code_is_good_for_its_step_and_the_ones_beside_it() {
        let at = 1_111_111_111;
        assert_eq!(secret().step_of("050471", at), Some(at / STEP_S));
        assert_eq!(secret().step_of("050471", at + 30), Some(at / STEP_S));
        assert_eq!(secret().step_of("050471", at - 30), Some(at / STEP_S));
        for (code, now) in [("050471", at + 60), ("050471", at - 60), ("050472", at), ("", at), ("50471", at)] {
            assert_eq!(secret().step_of(code, now), None, "{code} at {now}");
        }
    }

    #[test]
    fn an_authenticator_is_told_the_secret_in_base32() {
        let want = "otpauth://totp/Trocar:ada?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Trocar\
                    &algorithm=SHA1&digits=6&period=30";
        assert_eq!(secret().address("ada"), want);
    }
}
