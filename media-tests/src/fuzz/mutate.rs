//! Mutations, from a generator that a seed repeats.

/// Values at which code tends to go wrong.
const EDGES: [u8; 10] = [0, 1, 0x7f, 0x80, 0xff, 0xbe, 0xde, 16, 32, 64];

/// xorshift64*: repeatable, and of no use for secrets.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// Below `n`; 0 of 0.
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % (n.max(1) as u64)).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        (self.next() & 0xff) as u8
    }
}

/// One of the corpus, changed a few times.
pub(super) fn mutated(dice: &mut Dice, corpus: &[Vec<u8>], max_len: usize) -> Vec<u8> {
    let pick = |dice: &mut Dice| corpus.get(dice.below(corpus.len())).cloned().unwrap_or_default();
    let mut bytes = pick(dice);
    for _ in 0..1 + dice.below(8) {
        let (at, len) = (dice.below(bytes.len()), 1 + dice.below(16));
        let end = (at + len).min(bytes.len());
        match dice.below(10) {
            0 | 1 => set(&mut bytes, at, |b| b ^ 1 << (len & 7)),
            2 => {
                let value = EDGES.get(dice.below(EDGES.len())).copied().unwrap_or(0);
                set(&mut bytes, at, |_| value);
            }
            3 => {
                let value = dice.byte();
                set(&mut bytes, at, |_| value);
            }
            4 => drop(bytes.drain(at.min(bytes.len())..end)),
            5 => {
                let piece = bytes.get(at..end).unwrap_or(&[]).to_vec();
                drop(bytes.splice(at..at, piece));
            }
            6 => {
                let piece: Vec<u8> = (0..len).map(|_| dice.byte()).collect();
                drop(bytes.splice(at..at, piece));
            }
            7 => bytes.truncate(at),
            8 => {
                let other = pick(dice);
                let from = dice.below(other.len());
                bytes.truncate(at);
                bytes.extend(other.get(from..).unwrap_or(&[]));
            }
            _ => {
                // A number of two bytes that lies a little.
                let value =
                    u16::from_be_bytes([bytes.get(at).copied().unwrap_or(0), bytes.get(at + 1).copied().unwrap_or(0)]);
                let [high, low] = value.wrapping_add((len as u16).wrapping_sub(8)).to_be_bytes();
                set(&mut bytes, at, |_| high);
                set(&mut bytes, at + 1, |_| low);
            }
        }
    }
    bytes.truncate(max_len);
    bytes
}

fn set(bytes: &mut [u8], at: usize, change: impl Fn(u8) -> u8) {
    if let Some(b) = bytes.get_mut(at) {
        *b = change(*b);
    }
}
