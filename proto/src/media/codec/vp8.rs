//! VP8 in RTP (RFC 7741).

use super::{Malformed, Seen, believable};

/// Start code of a key frame (RFC 6386 section 9.1).
const START_CODE: [u8; 3] = [0x9d, 0x01, 0x2a];

pub(super) fn inspect(payload: &[u8]) -> Result<Seen, Malformed> {
    let (&first, mut rest) = payload.split_first().ok_or(Malformed("VP8 payload is empty"))?;
    if first & 0x80 != 0 {
        let (&bits, tail) = rest.split_first().ok_or(Malformed("VP8 descriptor ends in its extension"))?;
        rest = tail;
        let mut more = 0;
        if bits & 0x80 != 0 {
            let &id = rest.first().ok_or(Malformed("VP8 descriptor has no picture id"))?;
            more += if id & 0x80 != 0 { 2 } else { 1 };
        }
        more += usize::from(bits & 0x40 != 0) + usize::from(bits & 0x30 != 0);
        rest = rest.get(more..).ok_or(Malformed("VP8 descriptor is longer than its packet"))?;
    }
    let &header = rest.first().ok_or(Malformed("VP8 packet has a descriptor and nothing else"))?;
    let start = first & 0x10 != 0 && first & 0x07 == 0;
    let key = start && header & 0x01 == 0;
    Ok(Seen {
        start,
        independent: key,
        discardable: first & 0x20 != 0,
        size: key.then(|| picture_size(rest)).flatten(),
        ..Seen::default()
    })
}

/// Of a key frame's header: tag, start code, then 14 bits of size and 2 of scale for each side, least byte first.
fn picture_size(frame: &[u8]) -> Option<(u32, u32)> {
    if frame.get(3..6)? != START_CODE {
        return None;
    }
    let side = |at: usize| {
        let b: [u8; 2] = frame.get(at..at + 2)?.try_into().ok()?;
        Some(u32::from(u16::from_le_bytes(b) & 0x3fff))
    };
    believable(side(6)?, side(8)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 10] = [0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0xe0, 0x41];

    fn packet(descriptor: &[u8], frame: &[u8]) -> Vec<u8> {
        [descriptor, frame].concat()
    }

    #[test]
    fn a_key_frame_shows_its_size_without_the_scale() {
        let want = Seen { start: true, independent: true, size: Some((640, 480)), ..Seen::default() };
        for descriptor in [&[0x10][..], &[0x90, 0x80, 0x11], &[0x90, 0x80, 0x80, 0x11], &[0x90, 0xf0, 0x80, 1, 2, 3]] {
            assert_eq!(inspect(&packet(descriptor, &KEY)).unwrap(), want, "{descriptor:02x?}");
        }
    }

    #[test]
    fn other_partitions_later_packets_and_delta_frames_are_told_apart() {
        assert_eq!(inspect(&packet(&[0x11], &KEY)).unwrap(), Seen::default(), "partition 1");
        assert_eq!(inspect(&packet(&[0x00], &KEY)).unwrap(), Seen::default());
        assert_eq!(inspect(&[0x10, 0x31]).unwrap(), Seen { start: true, ..Seen::default() });
        assert_eq!(inspect(&[0x30, 0x31]).unwrap(), Seen { start: true, discardable: true, ..Seen::default() });
    }

    #[test]
    fn a_key_frame_cut_short_or_without_its_start_code_has_no_size() {
        for n in 1..KEY.len() {
            assert_eq!(inspect(&packet(&[0x10], &KEY[..n])).unwrap().size, None);
        }
        let mut wrong = KEY;
        wrong[4] = 2;
        assert_eq!(inspect(&packet(&[0x10], &wrong)).unwrap().size, None);
    }

    #[test]
    fn a_descriptor_that_runs_past_its_packet_is_malformed() {
        for p in [
            &[][..],
            &[0x10],
            &[0x80],
            &[0x80, 0x80],
            &[0x80, 0x80, 0x80],
            &[0x80, 0x80, 0x80, 1],
            &[0x80, 0xf0, 0x80, 1, 2],
            &[0x80, 0xf0, 0x80, 1, 2, 3],
            &[0x80, 0x00],
            &[0x80, 0x20],
        ] {
            assert!(inspect(p).is_err(), "{p:02x?}");
        }
    }
}
