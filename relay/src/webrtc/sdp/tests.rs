//! Offers in the shape that real clients send them, and offers that nobody should send.

use super::*;
use crate::webrtc::codec::{choose_for_viewer, choose_from_publisher, rtx_for};
use std::time::{Duration, Instant};
use trocar_proto::units::Bitrate;

const OFFERS: [(&str, &str); 7] = [
    ("chromium-whip", include_str!("offers/chromium-whip.sdp")),
    ("chromium-whep", include_str!("offers/chromium-whep.sdp")),
    ("firefox-whep", include_str!("offers/firefox-whep.sdp")),
    ("aiortc-whip", include_str!("offers/aiortc-whip.sdp")),
    ("gstreamer-whip", include_str!("offers/gstreamer-whip.sdp")),
    ("ffmpeg-whip", include_str!("offers/ffmpeg-whip.sdp")),
    ("obs-whip", include_str!("offers/obs-whip.sdp")),
];

fn text_of(name: &str) -> String {
    let (_, text) = OFFERS.iter().find(|(n, _)| *n == name).expect("an offer of that name");
    text.replace('\n', "\r\n")
}

fn offer(name: &str) -> Offer {
    Offer::parse(&text_of(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Accepts what the relay would: of a publisher the first video and audio, for a viewer H.264 and Opus.
fn answer_to(o: &Offer) -> String {
    let candidates = [
        CandidateAddress::udp("127.0.0.1:5000".parse().unwrap()),
        CandidateAddress::tcp("127.0.0.1:5001".parse().unwrap()),
    ];
    let mut media = Vec::new();
    for kind in ["video", "audio"] {
        let send = SendIds { ssrc: Ssrc(5), rtx_ssrc: None, cname: "c", stream: "scope", track: kind };
        if let Some((index, m)) = o.senders(kind).next() {
            let codec = choose_from_publisher(m, &["H264"]).expect("a codec that the relay takes");
            media.push(accepted(m, index, codec, None));
        } else if let Some((index, m)) = o.receivers(kind).next() {
            let codec = match kind {
                "video" => choose_for_viewer(m, "H264", "packetization-mode=1;profile-level-id=42e02a", 90_000),
                _ => choose_for_viewer(m, "opus", "", 48_000),
            };
            media.push(accepted(m, index, codec.expect("a codec that the viewer shows"), Some(send)));
        }
    }
    let answer = SessionAnswer {
        ufrag: "ours",
        password: "0123456789012345678901",
        fingerprint: &[0xab; 32],
        candidates: &candidates,
        session_id: 7,
        media: &media,
    };
    answer.render(o)
}

fn accepted<'a>(m: &'a Media, index: usize, codec: &'a Codec, send: Option<SendIds<'a>>) -> AcceptedMedia<'a> {
    m.check().unwrap();
    let rtx = rtx_for(m, codec.payload_type);
    let extensions = m.extension_id(TRANSPORT_CC_URI).map(|id| (id, TRANSPORT_CC_URI)).into_iter().collect();
    AcceptedMedia {
        index,
        direction: if send.is_some() { MediaDirection::SendOnly } else { MediaDirection::RecvOnly },
        codec,
        rtx,
        extensions,
        send: send.map(|s| SendIds { rtx_ssrc: rtx.map(|_| Ssrc(6)), ..s }),
        max_bitrate: if send.is_some() { None } else { Some(Bitrate(8_000_000)) },
        layers: Vec::new(),
        fec: None,
    }
}

/// The lines of the m-line `index` of an answer.
fn section(answer: &str, index: usize) -> String {
    format!("m={}", answer.split("\r\nm=").nth(index + 1).expect("that many m-lines")).replace("\r\n", "\n")
}

#[test]
fn every_real_offer_is_answered_line_by_line_in_lines_that_parse() {
    for (name, _) in OFFERS {
        let o = offer(name);
        let answer = answer_to(&o);
        let lines = parse::lines(&answer).unwrap_or_else(|e| panic!("{name}: {e}\n{answer}"));
        let m: Vec<&str> = lines.iter().filter(|l| l.1 == 'm').map(|l| l.2).collect();
        assert_eq!(m.len(), o.media.len(), "{name}");
        for (line, media) in m.iter().zip(&o.media) {
            assert!(line.starts_with(&format!("{} 9 ", media.kind)), "{name}: {line}");
        }
        let count = |what: &str| answer.lines().filter(|l| *l == what).count();
        assert_eq!(count("a=setup:passive"), o.media.len(), "{name}");
        assert_eq!(count("a=ice-lite"), 1, "{name}");
        assert_eq!(count("a=end-of-candidates"), 1, "{name}: candidates stand in the tagged m-line only");
        assert_eq!(count("a=ice-options:trickle"), usize::from(o.trickle), "{name}");
        for (i, media) in o.media.iter().enumerate() {
            let s = section(&answer, i);
            assert_eq!(s.contains("a=rtcp-rsize"), media.rtcp_rsize, "{name}");
            assert!(s.contains(&format!("a=mid:{}\n", media.mid)), "{name}");
            for feedback in s.lines().filter(|l| l.starts_with("a=rtcp-fb")) {
                assert!(text_of(name).contains(feedback), "{name}: {feedback} was not offered");
            }
        }
    }
}

#[test]
fn chromium_publishes_with_its_layers_names_and_feedback() {
    let o = offer("chromium-whip");
    assert_eq!((o.bundle.as_slice(), o.extmap_allow_mixed, o.trickle), ([0, 1].as_slice(), true, true));
    assert_eq!(o.candidates.len(), 2, "an mDNS name and a TCP candidate are tolerated");
    let v = &o.media[1];
    assert_eq!(v.rids, ["h", "m", "l"]);
    assert_eq!(v.msid, Some(("5f0c".to_owned(), "22bb".to_owned())));
    assert_eq!(o.media[0].ssrcs, [Ssrc(1_001)]);
    assert_eq!(v.codecs.len(), 25);
    assert_eq!(v.codec(96).unwrap().feedback.len(), 5);
    let text = answer_to(&o);
    let video = section(&text, 1);
    assert!(
        video.starts_with("m=video 9 UDP/TLS/RTP/SAVPF 103 104\nc=IN IP4 0.0.0.0\nb=AS:8000\nb=TIAS:8000000\na="),
        "{video}"
    );
    assert!(video.contains("profile-level-id=42001f;x-google-start-bitrate=2000\n"), "{video}");
    assert!(video.contains("a=recvonly\n") && video.contains("a=rtcp-fb:103 transport-cc\n"), "{video}");
    assert!(!text.contains("a=simulcast") && !text.contains("a=rid") && !text.contains("a=ssrc:"), "{text}");
    let audio = section(&text, 0);
    assert!(audio.contains("a=rtpmap:111 opus/48000/2\na=fmtp:111 minptime=10;useinbandfec=1\n"), "{audio}");
    assert!(!audio.contains("x-google"), "{audio}");
    assert!(text.contains("a=group:BUNDLE 0 1\r\na=ice-lite\r\n") && text.contains("\r\na=extmap-allow-mixed\r\n"));
}

#[test]
fn chromium_watches_with_repair() {
    let text = answer_to(&offer("chromium-whep"));
    let video = section(&text, 0);
    assert!(video.starts_with("m=video 9 UDP/TLS/RTP/SAVPF 109 114\n"), "{video}");
    assert!(video.contains("a=rtpmap:114 rtx/90000\na=fmtp:114 apt=109\n"), "{video}");
    assert!(video.contains("a=msid:scope video\na=ssrc-group:FID 5 6\na=ssrc:5 cname:c\n"), "{video}");
    assert!(video.contains("a=rtcp-fb:109 nack\n") && !video.contains("b=AS"), "{video}");
    assert!(video.contains("a=candidate:1 1 udp 2130706431 127.0.0.1 5000 typ host\n"), "{video}");
    assert!(video.contains("a=candidate:2 1 tcp 1520434943 127.0.0.1 5001 typ host tcptype passive\n"), "{video}");
}

#[test]
fn firefox_has_a_user_fragment_per_m_line_and_the_accepted_one_counts() {
    let o = offer("firefox-whep");
    assert_eq!(o.transport(&[1]).unwrap().ufrag, "9c3b77aa");
    assert_eq!(o.transport(&[1, 0]).unwrap().ufrag, "51d0a1f2", "the group's first");
    assert_eq!(o.transport(&[0]).unwrap().fingerprint.value[0], 99, "the session's fingerprint");
    assert_eq!(o.media[0].direction, "recvonly");
    assert!(
        o.media[1].extensions.contains(&(6, "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay".to_owned()))
    );
    assert!(!o.media[0].rtcp_rsize && o.media[1].rtcp_rsize);
}

#[test]
fn aiortc_shows_three_hashes_and_the_longest_is_taken() {
    let o = offer("aiortc-whip");
    let f = &o.transport(&[0, 1]).unwrap().fingerprint;
    assert_eq!((f.algorithm.as_str(), f.value.len()), ("sha-512", 64));
    assert_eq!(o.media[1].rtx_ssrcs, [(Ssrc(1_234_567_890), Ssrc(1_234_567_891))]);
    let text = answer_to(&o);
    assert!(!text.contains("transport-cc"), "it was not offered: {text}");
}

#[test]
fn an_m_line_of_port_0_is_accepted_where_it_is_bundle_only() {
    let text = text_of("gstreamer-whip");
    let o = Offer::parse(&text).unwrap();
    assert_eq!(o.bundle, [0, 1]);
    assert!(!o.media[1].disabled && section(&answer_to(&o), 1).starts_with("m=audio 9 "));
    let refused = Offer::parse(&text.replace("a=bundle-only\r\n", "")).unwrap();
    assert!(refused.media[1].disabled && refused.senders("audio").next().is_none());
    assert!(refused.media[1].check().unwrap_err().to_string().contains("port 0"));
    let answer = answer_to(&refused);
    assert!(section(&answer, 1).starts_with("m=audio 0 UDP/TLS/RTP/SAVPF 98\n"), "{answer}");
    assert!(answer.contains("a=group:BUNDLE video0\r\n"), "{answer}");
}

#[test]
fn ffmpeg_is_active_and_obs_says_everything_once_for_the_session() {
    assert_eq!(offer("ffmpeg-whip").transport(&[0, 1]).unwrap().setup, "active");
    let obs = offer("obs-whip");
    assert_eq!(obs.transport(&[1]).unwrap().ufrag, "Ab+1");
    assert!(
        answer_to(&obs)
            .contains("a=fmtp:111 minptime=10;maxaveragebitrate=96000;stereo=1;sprop-stereo=1;useinbandfec=1\r\n")
    );
}

#[test]
fn without_bundle_one_m_line_is_accepted_with_its_own_transport() {
    let text = text_of("firefox-whep").replace("a=group:BUNDLE 0 1\r\n", "");
    let o = Offer::parse(&text).unwrap();
    assert!(o.bundle.is_empty());
    assert!(o.share_transport(&[0]) && o.share_transport(&[1]) && !o.share_transport(&[0, 1]));
    assert_eq!(o.transport(&[1]).unwrap().ufrag, "9c3b77aa");
    assert_eq!(o.transport(&[0, 1]), None);
    let m = &o.media[1];
    let media = [accepted(m, 1, m.codec(126).unwrap(), None)];
    let candidates = [CandidateAddress::udp("127.0.0.1:5000".parse().unwrap())];
    let answer = SessionAnswer {
        ufrag: "u",
        password: "p",
        fingerprint: &[1; 32],
        candidates: &candidates,
        session_id: 1,
        media: &media,
    }
    .render(&o);
    assert!(!answer.contains("BUNDLE") && section(&answer, 0).starts_with("m=audio 0 UDP/TLS/RTP/SAVPF 109\n"));
    assert!(section(&answer, 1).contains("a=candidate:1 1 udp"), "{answer}");
    // Such a client may have no a=mid at all.
    let bare = Offer::parse(&text.replace("a=mid:0\r\n", "").replace("a=mid:1\r\n", "")).unwrap();
    assert_eq!(bare.media[1].mid, "");
    assert!(!answer_to_one(&bare).contains("a=mid"));
}

fn answer_to_one(o: &Offer) -> String {
    let media = [accepted(&o.media[1], 1, &o.media[1].codecs[0], None)];
    SessionAnswer { ufrag: "u", password: "p", fingerprint: &[1; 32], candidates: &[], session_id: 1, media: &media }
        .render(o)
}

#[test]
fn only_the_tagged_m_line_needs_the_transport_of_its_group() {
    let text = text_of("chromium-whep");
    let (head, tail) = text.split_once("m=audio").unwrap();
    let keep = |l: &&str| !["a=ice-", "a=fingerprint", "a=setup"].iter().any(|p| l.starts_with(p));
    let tail: Vec<&str> = tail.split("\r\n").filter(keep).collect();
    let o = Offer::parse(&format!("{head}m=audio{}", tail.join("\r\n"))).unwrap();
    assert_eq!(o.transport(&[1]).unwrap().ufrag, "q1Zx");
    assert_eq!(section(&answer_to(&o), 1).matches("a=ice-ufrag:ours").count(), 1);
}

#[test]
fn feedback_with_a_star_counts_for_every_payload_type_and_nack_needs_rtx() {
    let text = text_of("chromium-whep").replace("a=rtcp-fb:98 nack\r\n", "a=rtcp-fb:* nack\r\n");
    let mut o = Offer::parse(&text).unwrap();
    assert!(o.media[0].codec(97).unwrap().feedback.contains(&Feedback::Nack));
    for c in &mut o.media[0].codecs {
        c.fmtp = c.fmtp.replace("apt=", "x=");
    }
    let video = section(&answer_to(&o), 0);
    assert!(video.contains("nack pli\n") && !video.contains(" nack\n") && !video.contains("FID"), "{video}");
}

#[test]
fn data_channels_and_names_with_odd_characters_do_no_harm() {
    let text = text_of("chromium-whep").replace("a=group:BUNDLE 0 1", "a=group:BUNDLE 0 1 2")
        + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\na=sctp-port:5000\r\n";
    let o = Offer::parse(&text).unwrap();
    let answer = answer_to(&o);
    assert!(section(&answer, 2).starts_with("m=application 0 UDP/DTLS/SCTP webrtc-datachannel\n"), "{answer}");
    assert!(answer.contains("a=group:BUNDLE 0 1\r\n"), "{answer}");
    let m = &o.media[0];
    let ids = SendIds { ssrc: Ssrc(1), rtx_ssrc: None, cname: "", stream: "a\r\nb c", track: "\u{202e}x" };
    let media = [accepted(m, 0, &m.codecs[0], Some(ids))];
    let odd = SessionAnswer {
        ufrag: "u",
        password: "p",
        fingerprint: &[1; 32],
        candidates: &[],
        session_id: 1,
        media: &media,
    };
    assert!(odd.render(&o).contains("a=msid:a--b-c -x\r\n"));
}

#[test]
fn what_is_wrong_is_named() {
    let good = text_of("chromium-whep");
    let second = good.rfind("a=ice-pwd:").unwrap();
    let (a, b) = good.split_at(second);
    let two_identities = format!("{a}{}", b.replacen("a=ice-pwd:K", "a=ice-pwd:L", 1));
    let cases = [
        (good.replace("a=setup:actpass", "a=setup:passive"), "a=setup:passive"),
        (good.replace("a=setup:actpass", "a=setup:holdconn"), "actpass or active is right"),
        (good.replace("s=-\r\n", "s=-\r\na=ice-lite\r\n"), "a=ice-lite"),
        (good.replace("a=mid:0", "a=mid:0\r\na=ice-lite"), "a=ice-lite"),
        (two_identities, "two passwords or fingerprints"),
        (good.replacen("a=setup:actpass", "a=setup:actpass\r\na=setup:active", 1), "same value"),
        (good.replace("a=mid:1", "a=mid:0"), "a=mid:0 stands twice"),
        (good.replace("a=mid:1", "a=mid:a b"), "letters, digits"),
        (good.replace("BUNDLE 0 1", "BUNDLE 0 1 9"), "a=mid:9"),
        (good.replace("BUNDLE 0 1", "BUNDLE 0 1 1"), "a=mid:1"),
        (good.replace("a=fingerprint:sha-256", "a=fingerprint:sha-1"), "a=fingerprint:sha-1 is not accepted: sha-256"),
        (good.replace("a=fingerprint:sha-256", "a=fingerprint:md5"), "a=fingerprint:md5"),
        (good.replace("a=fingerprint:sha-256 01", "a=fingerprint:sha-256 1"), "bytes in hex"),
        (good.replace("a=fingerprint:sha-256 01:", "a=fingerprint:sha-256 "), "bytes in hex"),
        (good.replacen("a=fingerprint:sha-256 01", "a=fingerprint:sha-256 02", 1), "two passwords or fingerprints"),
        (good.replace("SAVPF 111", "SAVPF 128"), "payload types 0 to 127"),
        (good.replace("SAVPF 111", "SAVPF 63"), "different payload types"),
        (good.replace("m=audio 9", "m=audio 70000"), "m=<media> <port>"),
        (good.replace("a=mid:1", "a=mid:1\r\na=ptime:99999999999"), "milliseconds"),
        (good.replace("a=ice-pwd:Kq0b3mX2v7c8yT5nL1s9wE4r\r\n", ""), "lacks a=ice-pwd"),
        (good.replace("a=ice-ufrag:q1Zx", "a=ice-ufrag:q1"), "4 to 256"),
        (good.replace("a=ice-ufrag:q1Zx", "a=ice-ufrag:q1 x"), "letters, digits"),
        (good.replace("a=setup:actpass\r\n", ""), "lacks a=setup"),
        (
            good.lines().filter(|l| !l.starts_with("a=fingerprint")).collect::<Vec<_>>().join("\n"),
            "lacks a=fingerprint",
        ),
        (good.replace("a=mid:1", "a=mid:1\u{7}"), "control characters"),
        ("hello".to_owned(), "one letter"),
        (String::new(), "v=0"),
        ("v=0\r\n".to_owned(), "lacks an m-line"),
    ];
    for (sdp, want) in cases {
        let e = Offer::parse(&sdp).expect_err(want).to_string();
        assert!(e.contains(want), "{want:?} is not in {e:?}");
    }
}

#[test]
fn a_weak_hash_beside_a_strong_one_is_passed_over() {
    let line = "a=fingerprint:sha-256 01";
    let o =
        Offer::parse(&text_of("chromium-whep").replace(line, &format!("a=fingerprint:sha-1 00:11\r\n{line}"))).unwrap();
    assert_eq!(o.transport(&[0]).unwrap().fingerprint.algorithm, "sha-256");
}

#[test]
fn plain_rtp_and_rtp_without_rtcp_mux_are_named() {
    let text = text_of("chromium-whep");
    let plain = Offer::parse(&text.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP")).unwrap();
    assert!(plain.media[0].check().unwrap_err().to_string().contains("m=video: the protocol is UDP/TLS/RTP/SAVPF"));
    let two_ports = Offer::parse(&text.replace("a=rtcp-mux\r\n", "")).unwrap();
    assert!(two_ports.media[1].check().unwrap_err().to_string().contains("m=audio: a=rtcp-mux"));
}

/// The quickest of a few, so that a busy machine does not count against the parser.
fn parse_time(sdp: &str) -> Duration {
    let once = || {
        let begin = Instant::now();
        let _ = Offer::parse(sdp);
        begin.elapsed()
    };
    (0..5).map(|_| once()).min().unwrap()
}

/// Bad-input case 20: limits come before work, so that each of these takes milliseconds.
#[test]
fn offers_of_monstrous_size_are_refused_at_once() {
    let good = text_of("chromium-whep");
    let attribute = |n: usize, line: &str| format!("{good}{}", line.repeat(n));
    let widest: Vec<String> = (0..128).map(|p| p.to_string()).collect();
    let widest = format!("m=video 9 UDP/TLS/RTP/SAVPF {}\r\na=rtpmap:127 x/1\r\n", widest.join(" "));
    let cases = [
        ("10 MB", "x".repeat(10 << 20), "length"),
        ("10 MB in one line", format!("{good}a={}\r\n", "x".repeat(10 << 20)), "length"),
        ("100,000 lines", "v=0\r\n".repeat(100_000), "length"),
        ("100,000 empty lines", format!("{good}{}", "\n".repeat(MAX_SDP_LEN - good.len())), "number of lines"),
        ("1,000 lines too many", attribute(MAX_LINES, "a=x\r\n"), "number of lines"),
        ("1,000 m-lines", format!("v=0\r\n{}", "m=video 9 X 1\r\n".repeat(999)), "m-lines"),
        ("1,000 candidates", attribute(1_000, "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n"), "number of lines"),
        ("too many in a group", good.replace("BUNDLE 0 1", &format!("BUNDLE {}", "7 ".repeat(1_000))), "a=mid:7"),
        ("16 m-lines of 128 types", format!("v=0\r\n{}", widest.repeat(17)), "m-lines"),
    ];
    for (what, sdp, want) in cases {
        let e = Offer::parse(&sdp).expect_err(what).to_string();
        let took = parse_time(&sdp);
        assert!(e.contains(want), "{what}: {want:?} is not in {e:?}");
        assert!(took < Duration::from_millis(10), "{what}: {took:?}");
    }
}

#[test]
fn the_largest_offer_that_is_taken_is_parsed_within_its_time_and_kept_within_its_bounds() {
    let mut text = text_of("chromium-whip");
    let lines = [
        "a=rid:x send",
        "a=ssrc:1 cname:x",
        "a=extmap:9 urn:x",
        "a=candidate:1 1 udp 1 192.0.2.1 9 typ host",
        "a=rtcp-fb:* nack",
    ];
    let room = MAX_LINES - text.lines().count();
    for i in 0..room {
        let line = lines[i % lines.len()]
            .replace("a=ssrc:1", &format!("a=ssrc:{i}"))
            .replace("a=extmap:9", &format!("a=extmap:{}", i % 256));
        text.push_str(&line);
        text.push_str("\r\n");
    }
    let o = Offer::parse(&text).unwrap();
    let took = parse_time(&text);
    assert!(took < Duration::from_millis(10), "{took:?}");
    let v = &o.media[1];
    assert_eq!((v.rids.len(), v.ssrcs.len(), o.candidates.len()), (MAX_RIDS, MAX_SSRCS, MAX_CANDIDATES));
    assert!(v.extensions.len() <= MAX_EXTENSIONS);
}

#[test]
fn simulcast_is_read_as_it_was_offered_and_bounded() {
    let text = text_of("chromium-whip");
    let layers = |line: &str| {
        let o = Offer::parse(&text.replace("a=simulcast:send h;m;l", line)).unwrap();
        o.media[1].simulcast.clone()
    };
    assert_eq!(layers("a=simulcast:send h;m;l"), ["h", "m", "l"]);
    assert_eq!(layers("a=simulcast:recv x send ~l,m;h"), ["l", "h"], "of alternatives the first, paused or not");
    assert_eq!(layers("a=simulcast:send h;x;l"), ["h", "l"], "a layer without a=rid is none");
    for none in ["a=simulcast:recv h;m", "a=simulcast:send", "a=simulcast:", "a=simulcast"] {
        assert_eq!(layers(none), Vec::<String>::new(), "{none}");
    }
    let many = "a=simulcast:send h;m;l;h;m;l;h".to_owned() + &";h".repeat(500);
    assert_eq!(layers(&many).len(), MAX_RIDS);
}

#[test]
fn layers_and_flexfec_that_were_agreed_stand_in_the_answer() {
    let render = |o: &Offer, media: AcceptedMedia<'_>| {
        SessionAnswer {
            ufrag: "ours",
            password: "0123456789012345678901",
            fingerprint: &[0xab; 32],
            candidates: &[],
            session_id: 7,
            media: &[media],
        }
        .render(o)
    };
    let o = offer("chromium-whip");
    let codec = o.media[1].codec(96).unwrap();
    let layers = vec!["h", "l"];
    let text = render(&o, AcceptedMedia { layers, ..accepted(&o.media[1], 1, codec, None) });
    let video = section(&text, 1);
    assert!(video.contains("a=rid:h recv\na=rid:l recv\na=simulcast:recv h;l\n"), "{video}");

    let o = offer("chromium-whep");
    let (index, m) = o.receiving("video").unwrap();
    let codec = m.codecs.iter().find(|c| c.name == "VP8").unwrap();
    let send = SendIds { ssrc: Ssrc(5), rtx_ssrc: None, cname: "c", stream: "scope", track: "video" };
    let text = render(&o, AcceptedMedia { fec: Some((49, Ssrc(8))), ..accepted(m, index, codec, Some(send)) });
    let video = section(&text, index);
    for line in [
        " 49\n",
        "a=rtpmap:49 flexfec-03/90000\na=fmtp:49 repair-window=10000000\n",
        "a=ssrc-group:FEC-FR 5 8\n",
        "a=ssrc:8 cname:c\n",
    ] {
        assert!(video.contains(line), "{line} is not in {video}");
    }
    assert!(parse::lines(&text).is_ok());
    assert!(!section(&answer_to(&o), index).contains("flexfec"), "only where it was agreed");
}
