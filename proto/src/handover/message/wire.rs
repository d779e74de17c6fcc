//! Bytes out and in: big endian, explicit lengths, one encoding for one value, and an end that is the end.

use std::fmt;

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A version that this program does not speak.
    #[error("version {0}: this program speaks {ours}", ours = super::VERSION)]
    Version(u8),
    /// No message of this kind goes this way.
    #[error("kind {0:#04x}: no such message goes this way")]
    Kind(u8),
    /// Bytes are missing.
    #[error("ends within {field}")]
    Short {
        /// What was to be read.
        field: &'static str,
    },
    /// Bytes are left over.
    #[error("{0} bytes after the end")]
    Trailing(usize),
    /// A value that the field does not have.
    #[error("{field}: {value} is no value of it")]
    Value {
        /// Which field.
        field: &'static str,
        /// What was there.
        value: u64,
    },
    /// Longer than the field may be.
    #[error("{field}: {len} is more than {max}")]
    Long {
        /// Which field.
        field: &'static str,
        /// What it claims.
        len: usize,
        /// What it may be.
        max: usize,
    },
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    Text,
}

/// More bytes than the field may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes are more than the {max} that fit")]
pub struct TooLong {
    /// What was given.
    pub len: usize,
    /// What fits.
    pub max: usize,
}

/// At most `N` bytes of UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text<const N: usize>(String);

impl<const N: usize> Text<N> {
    /// Takes the text.
    ///
    /// # Errors
    /// [`TooLong`] where it has more than `N` bytes.
    pub fn new(text: impl Into<String>) -> Result<Self, TooLong> {
        let text = text.into();
        if text.len() > N { Err(TooLong { len: text.len(), max: N }) } else { Ok(Self(text)) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// At most `N` bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Bounded<const N: usize>(Vec<u8>);

impl<const N: usize> Bounded<N> {
    /// Takes the bytes.
    ///
    /// # Errors
    /// [`TooLong`] where there are more than `N`.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, TooLong> {
        let bytes = bytes.into();
        if bytes.len() > N { Err(TooLong { len: bytes.len(), max: N }) } else { Ok(Self(bytes)) }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What is still to be read.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Short { field })?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Short { field })?;
        self.0 = rest;
        Ok(*head)
    }

    /// A length of 16 bits, then so many bytes, at most `max`.
    fn counted(&mut self, max: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = usize::from(u16::get(self, field)?);
        if len > max {
            return Err(DecodeError::Long { field, len, max });
        }
        self.take(len, field)
    }

    pub(super) const fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.0.len())) }
    }
}

/// A value that has bytes.
pub(super) trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);
    /// `field` is for the error.
    fn get(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError>;
}

macro_rules! wire_int {
    ($($int:ty),*) => {$(
        impl Wire for $int {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
            fn get(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
                from.array(field).map(Self::from_be_bytes)
            }
        }
    )*};
}
wire_int!(u8, u16, u32, u64, u128);

impl Wire for [u8; 32] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn get(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        from.array(field)
    }
}

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn get(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        match u8::get(from, field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Value { field, value: other.into() }),
        }
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn get(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        if bool::get(from, field)? { T::get(from, field).map(Some) } else { Ok(None) }
    }
}

/// The length of a bounded field; more than 16 bits never fit into one.
fn put_len(len: usize, out: &mut Vec<u8>) {
    u16::try_from(len).unwrap_or(u16::MAX).put(out);
}

impl<const N: usize> Wire for Text<N> {
    fn put(&self, out: &mut Vec<u8>) {
        put_len(self.0.len(), out);
        out.extend_from_slice(self.0.as_bytes());
    }
    fn get(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        let bytes = from.counted(N, field)?;
        std::str::from_utf8(bytes).map(|s| Self(s.to_owned())).map_err(|_| DecodeError::Text)
    }
}

impl<const N: usize> Wire for Bounded<N> {
    fn put(&self, out: &mut Vec<u8>) {
        put_len(self.0.len(), out);
        out.extend_from_slice(&self.0);
    }
    fn get(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        from.counted(N, field).map(|bytes| Self(bytes.to_vec()))
    }
}
