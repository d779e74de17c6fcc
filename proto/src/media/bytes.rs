//! Reading big-endian numbers from untrusted bytes, without a way to panic.

/// Two bytes at `at`, network order.
#[must_use]
pub fn be16(b: &[u8], at: usize) -> Option<u16> {
    let s = b.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(s.try_into().ok()?))
}

/// Four bytes at `at`, network order.
#[must_use]
pub fn be32(b: &[u8], at: usize) -> Option<u32> {
    let s = b.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(s.try_into().ok()?))
}

/// Eight bytes at `at`, network order.
#[must_use]
pub fn be64(b: &[u8], at: usize) -> Option<u64> {
    let s = b.get(at..at.checked_add(8)?)?;
    Some(u64::from_be_bytes(s.try_into().ok()?))
}

/// Writes `value` at `at`; false where it does not fit.
#[must_use]
pub fn put(b: &mut [u8], at: usize, value: &[u8]) -> bool {
    let Some(end) = at.checked_add(value.len()) else { return false };
    b.get_mut(at..end).is_some_and(|s| {
        s.copy_from_slice(value);
        true
    })
}
