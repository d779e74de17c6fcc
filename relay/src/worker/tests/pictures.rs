//! VP8's picture numbers on their way through a leg: they go on where the leg changes the layer, and a packet that goes again has the
//! ones that it had.

use super::described::{Viewer, publish};
use super::*;

const RID: u8 = 10;
const VP8: u8 = 96;

/// A payload with PictureID, TL0PICIDX and a temporal layer; a key frame's header or another's.
fn payload(key: bool, picture: u16, base: u8) -> Vec<u8> {
    let frame =
        if key { [0x10, 0, 0, 0x9d, 0x01, 0x2a, 0xc0, 0x03, 0x1c, 0x02] } else { [0x11, 0, 0, 1, 2, 3, 4, 5, 6, 7] };
    [&[0x90, 0xe0][..], &(picture | 0x8000).to_be_bytes(), &[base, 0x20], &frame].concat()
}

/// A frame of one packet.
fn send(w: &mut World, peer: usize, rid: &str, seq: u16, payload: &[u8]) {
    let mut packet = vec![0; 128];
    let ssrc = Ssrc(u32::from(rid.as_bytes()[0]));
    let fields = HeaderFields { marker: true, payload_type: VP8, seq, timestamp: u32::from(seq) * 3_000, ssrc };
    let n = write_header(&mut packet, fields, &[(RID, rid.as_bytes())]).unwrap();
    packet.truncate(n);
    packet.extend_from_slice(payload);
    w.advance(33);
    w.core.handle_media(peer, w.now, &packet);
    w.core.send_on(w.now);
}

fn payloads(v: &mut Viewer) -> Vec<Vec<u8>> {
    v.packets().into_iter().map(|(_, _, payload)| payload).collect()
}

#[tokio::test]
async fn picture_numbers_go_on_over_a_change_of_layer_and_a_repeat_has_the_ones_that_it_had() {
    let mut w = World::new();
    let peer = publish(&mut w, &include_str!("../../webrtc/sdp/offers/chromium-whip.sdp").replace('\n', "\r\n"), "VP8");
    let offer = include_str!("../../webrtc/sdp/offers/chromium-whep.sdp").replace('\n', "\r\n");
    let mut v = Viewer::join(&mut w, "leg1", "scope", &offer);
    let mut stays = Viewer::join(&mut w, "leg2", "scope-half", &offer);
    send(&mut w, peer, "h", 10, &payload(true, 0x7ffe, 255));
    send(&mut w, peer, "h", 11, &payload(false, 0x7fff, 0));
    assert_eq!(payloads(&mut v), [payload(true, 0x7ffe, 255), payload(false, 0x7fff, 0)]);

    // The other layer's are lower: a receiver would take them for pictures of long ago.
    w.core.switch_leg(&v.id.clone(), &key("scope-half"), Vec::new(), w.now).unwrap();
    send(&mut w, peer, "m", 900, &payload(true, 500, 90));
    send(&mut w, peer, "m", 901, &payload(false, 501, 91));
    let came = v.packets();
    assert_eq!(came.iter().map(|(_, _, p)| p.clone()).collect::<Vec<_>>(), [payload(true, 0, 1), payload(false, 1, 2)]);
    // The control: who did not change has the publisher's numbers.
    assert_eq!(payloads(&mut stays), [payload(true, 500, 90), payload(false, 501, 91)]);

    w.advance(100);
    w.core.repair(v.leg, w.now, std::iter::once(came[0].0));
    let again = [&came[0].0.to_be_bytes()[..], &payload(true, 0, 1)].concat();
    assert_eq!(payloads(&mut v), [again.clone(), again], "a repeat goes twice");
}
