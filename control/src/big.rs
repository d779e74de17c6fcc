//! Words on terminals that are read from two metres: letters three lines high, of half blocks. For the gate's console and `trocar top`.

/// Six rows of five dots from the top, the leftmost in bit 4; blank for a letter that no word here needs.
const fn letter(sign: char) -> [u8; 6] {
    match sign {
        'A' => [0b01110, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001],
        'B' => [0b11110, 0b10001, 0b11110, 0b10001, 0b10001, 0b11110],
        'C' => [0b01111, 0b10000, 0b10000, 0b10000, 0b10000, 0b01111],
        'D' => [0b11110, 0b10001, 0b10001, 0b10001, 0b10001, 0b11110],
        'E' => [0b11111, 0b10000, 0b11110, 0b10000, 0b10000, 0b11111],
        'K' => [0b10001, 0b10010, 0b11100, 0b10010, 0b10001, 0b10001],
        'L' => [0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b11111],
        'M' => [0b10001, 0b11011, 0b10101, 0b10001, 0b10001, 0b10001],
        'N' => [0b10001, 0b11001, 0b10101, 0b10101, 0b10011, 0b10001],
        'O' => [0b01110, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110],
        'P' => [0b11110, 0b10001, 0b10001, 0b11110, 0b10000, 0b10000],
        'R' => [0b11110, 0b10001, 0b10001, 0b11110, 0b10010, 0b10001],
        'S' => [0b01111, 0b10000, 0b01110, 0b00001, 0b10001, 0b01110],
        'T' => [0b11111, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100],
        'U' => [0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110],
        'W' => [0b10001, 0b10001, 0b10001, 0b10101, 0b11011, 0b10001],
        'Y' => [0b10001, 0b10001, 0b01010, 0b00100, 0b00100, 0b00100],
        '-' => [0, 0, 0b01110, 0b01110, 0, 0],
        _ => [0; 6],
    }
}

/// The word as three lines, each letter six columns wide.
#[must_use]
pub fn lines(word: &str) -> [String; 3] {
    let mut out = [const { String::new() }; 3];
    for sign in word.chars() {
        let [a, b, c, d, e, f] = letter(sign);
        for (line, (top, bottom)) in out.iter_mut().zip([(a, b), (c, d), (e, f)]) {
            for bit in (0..5).rev() {
                line.push(match (top >> bit & 1, bottom >> bit & 1) {
                    (0, 0) => ' ',
                    (1, 0) => '▀',
                    (0, _) => '▄',
                    _ => '█',
                });
            }
            line.push(' ');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_in_use_has_all_its_letters_and_fits_a_narrow_terminal() {
        for word in ["LOCAL", "REMOTE", "NOBODY", "E-STOP", "CLOSED", "UNKNOWN"] {
            assert!(word.chars().all(|c| letter(c) != [0; 6]), "{word}");
            assert!(lines(word).iter().all(|l| l.chars().count() <= 44), "{word}");
        }
        assert_eq!(lines("L"), ["█     ", "█     ", "█▄▄▄▄ "]);
    }

    #[test]
    fn the_word_of_a_relay_that_is_silent_has_all_its_letters_and_fits_a_narrow_terminal() {
        let word = "NO ANSWER";
        assert!(word.chars().all(|c| c == ' ' || letter(c) != [0; 6]));
        assert!(lines(word).iter().all(|l| l.chars().count() <= 78));
        assert_eq!(lines("N"), ["█▄  █ ", "█ █ █ ", "█  ▀█ "]);
    }
}
