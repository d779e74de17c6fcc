"""What schemathesis cannot know: how SDP is written, and which session its bearer is in."""

import os

import schemathesis

OFFER = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n"
    "c=IN IP4 0.0.0.0\r\na=ice-ufrag:abcdef\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 "
    + ":".join(["AB"] * 32)
    + "\r\na=setup:actpass\r\na=mid:0\r\na={direction}\r\na=rtcp-mux\r\na=rtpmap:96 H264/90000\r\n"
    "a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n"
)


def offers(value):
    """An offer that can be used, for half of what was generated; the other half as it is."""
    text = value if isinstance(value, str) else str(value)
    if len(text) % 2:
        return text
    return OFFER.format(direction="sendonly" if len(text) % 4 else "recvonly")


@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")
def as_text(ctx, value):
    return offers(value).encode("utf-8", "surrogatepass")


@schemathesis.hook
def map_path_parameters(ctx, path_parameters):
    """Most requests are about the bearer's own session: about any other one the answer is the same 403."""
    if path_parameters and "session" in path_parameters and len(str(path_parameters["session"])) != 1:
        path_parameters["session"] = os.environ["TROCAR_SESSION"]
    return path_parameters
