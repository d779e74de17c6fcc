//! Keys out of a terminal's bytes. Small and our own, since two Esc in one read are two here (ESTOP), and the terminal's own answer to
//! "are you there" has to be told from a key.

/// One key, or the terminal's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    /// Control and this letter, lower case.
    Ctrl(char),
    /// F1 to F4.
    Function(u8),
    Enter,
    Backspace,
    Esc,
    /// The terminal answered a status request (DSR, ECMA-48 8.3.35): there is one, and it reads what is written to it.
    Present,
    /// Something that means nothing here.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Ground,
    Esc,
    /// `ESC O`.
    Single,
    /// `ESC [`.
    Control,
    /// `ESC [ [`: function keys of the Linux console.
    Console,
    /// Within a character of more than one byte; so many are missing.
    Utf8(usize),
}

/// Most parameters of a sequence that are kept; none that means something here has more.
const MOST: usize = 8;

/// Where in a sequence the bytes are.
#[derive(Debug, Default)]
pub(super) struct Keys {
    state: State,
    kept: Vec<u8>,
}

impl Keys {
    /// Takes what was read.
    pub(super) fn handle(&mut self, bytes: &[u8], each: &mut impl FnMut(Key)) {
        bytes.iter().for_each(|b| self.byte(*b, each));
    }

    /// Nothing more came for a while: an Esc that stands alone is the key.
    pub(super) fn idle(&mut self, each: &mut impl FnMut(Key)) {
        match std::mem::take(&mut self.state) {
            State::Ground => {}
            State::Esc => each(Key::Esc),
            State::Single => {
                each(Key::Esc);
                each(Key::Char('O'));
            }
            State::Control if self.kept.is_empty() => {
                each(Key::Esc);
                each(Key::Char('['));
            }
            State::Control | State::Console | State::Utf8(_) => each(Key::Other),
        }
        self.kept.clear();
    }

    /// Whether it waits for the rest of something.
    pub(super) fn is_within(&self) -> bool {
        self.state != State::Ground
    }

    fn byte(&mut self, byte: u8, each: &mut impl FnMut(Key)) {
        match self.state {
            State::Ground => self.ground(byte, each),
            State::Esc => match byte {
                0x1b => each(Key::Esc),
                b'[' => self.state = State::Control,
                b'O' => self.state = State::Single,
                _ => {
                    each(Key::Esc);
                    self.state = State::Ground;
                    self.ground(byte, each);
                }
            },
            State::Single | State::Console => {
                let first = if self.state == State::Single { b'P' } else { b'A' };
                each(byte.checked_sub(first).filter(|n| *n < 4).map_or(Key::Other, |n| Key::Function(n + 1)));
                self.state = State::Ground;
            }
            State::Control => self.control(byte, each),
            State::Utf8(missing) => self.continued(byte, missing, each),
        }
    }

    fn ground(&mut self, byte: u8, each: &mut impl FnMut(Key)) {
        match byte {
            0x1b => self.state = State::Esc,
            b'\r' | b'\n' => each(Key::Enter),
            0x7f | 0x08 => each(Key::Backspace),
            0x01..=0x1a => each(Key::Ctrl(char::from(byte + b'a' - 1))),
            b' '..=b'~' => each(Key::Char(char::from(byte))),
            0xc2..=0xf4 => {
                self.kept.clear();
                self.kept.push(byte);
                self.state = State::Utf8(if byte < 0xe0 {
                    1
                } else if byte < 0xf0 {
                    2
                } else {
                    3
                });
            }
            _ => each(Key::Other),
        }
    }

    fn control(&mut self, byte: u8, each: &mut impl FnMut(Key)) {
        match byte {
            0x1b => {
                self.kept.clear();
                self.state = State::Esc;
                each(Key::Other);
            }
            b'[' if self.kept.is_empty() => self.state = State::Console,
            0x40..=0x7e => {
                self.state = State::Ground;
                each(match (self.kept.as_slice(), byte) {
                    (b"0", b'n') => Key::Present,
                    (b"11", b'~') => Key::Function(1),
                    (b"12", b'~') => Key::Function(2),
                    _ => Key::Other,
                });
                self.kept.clear();
            }
            _ if self.kept.len() < MOST => self.kept.push(byte),
            _ => {}
        }
    }

    fn continued(&mut self, byte: u8, missing: usize, each: &mut impl FnMut(Key)) {
        if byte & 0xc0 != 0x80 {
            self.state = State::Ground;
            self.kept.clear();
            each(Key::Other);
            return self.ground(byte, each);
        }
        self.kept.push(byte);
        if missing > 1 {
            self.state = State::Utf8(missing - 1);
            return;
        }
        self.state = State::Ground;
        let sign = std::str::from_utf8(&self.kept).ok().and_then(|s| s.chars().next());
        self.kept.clear();
        each(sign.map_or(Key::Other, Key::Char));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8], piece: usize) -> Vec<Key> {
        let (mut keys, mut out) = (Keys::default(), Vec::new());
        bytes.chunks(piece).for_each(|c| keys.handle(c, &mut |k| out.push(k)));
        keys.idle(&mut |k| out.push(k));
        out
    }

    #[test]
    fn keys_are_the_same_in_pieces_of_any_length() {
        use Key::{Backspace, Char, Ctrl, Enter, Esc, Function, Other, Present};
        let cases: &[(&[u8], &[Key])] = &[
            (b"tE ", &[Char('t'), Char('E'), Char(' ')]),
            (b"\r\x7f\x03\x14", &[Enter, Backspace, Ctrl('c'), Ctrl('t')]),
            (b"\x1b\x1b", &[Esc, Esc]),
            (b"\x1be", &[Esc, Char('e')]),
            (b"\x1b[0n\x1b[3n", &[Present, Other]),
            (
                b"\x1bOP\x1bOQ\x1b[11~\x1b[12~\x1b[[A\x1b[[B",
                &[Function(1), Function(2), Function(1), Function(2), Function(1), Function(2)],
            ),
            (b"\x1b[A\x1b[1;5C\x1b\x1b[A", &[Other, Other, Esc, Other]),
            ("藤é".as_bytes(), &[Char('藤'), Char('é')]),
            (b"\xe8\x97e\xff", &[Other, Char('e'), Other]),
            (b"\x1b[", &[Esc, Char('[')]),
            (b"\x1bO", &[Esc, Char('O')]),
            (b"\x1b[1\x1b", &[Other, Esc]),
        ];
        for (bytes, expected) in cases {
            for piece in 1..=bytes.len() {
                assert_eq!(keys(bytes, piece), *expected, "{bytes:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn bytes_of_any_kind_keep_little_and_end() {
        let mut keys = Keys::default();
        let mut n = 0_u32;
        for seed in 0..50_000_u32 {
            let byte = seed.wrapping_mul(2_654_435_761).to_be_bytes()[0];
            keys.handle(&[byte], &mut |_| n += 1);
            assert!(keys.kept.len() <= MOST);
        }
        keys.idle(&mut |_| n += 1);
        assert!(n > 10_000 && !keys.is_within());
    }
}
