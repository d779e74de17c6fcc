"""aiortc as a WHIP publisher of the test card."""

import asyncio
import time
from fractions import Fraction

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription

import card
import httpside


class Video(MediaStreamTrack):
    kind = "video"

    def __init__(self):
        super().__init__()
        self.began, self.count = None, 0

    async def recv(self):
        self.began = self.began or time.monotonic()
        await asyncio.sleep(max(0.0, self.began + self.count / card.FPS - time.monotonic()))
        y = card.luma(self.count / card.FPS)
        planes = np.concatenate([y, np.full((card.HEIGHT // 2, card.WIDTH), 128, np.uint8)])
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = self.count * 90_000 // card.FPS, Fraction(1, 90_000)
        self.count += 1
        return frame


class Audio(MediaStreamTrack):
    kind = "audio"

    def __init__(self, hz: float):
        super().__init__()
        self.hz, self.began, self.samples = hz, None, 0

    async def recv(self):
        self.began = self.began or time.monotonic()
        await asyncio.sleep(max(0.0, self.began + self.samples / card.RATE - time.monotonic()))
        samples = card.tone(self.hz, self.samples, card.RATE // 50)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.pts, frame.sample_rate, frame.time_base = self.samples, card.RATE, Fraction(1, card.RATE)
        self.samples += card.RATE // 50
        return frame


async def main(args):
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    if args.video:
        t = pc.addTransceiver(Video(), direction="sendonly")
        wanted = [c for c in RTCRtpSender.getCapabilities("video").codecs if c.name.upper() == args.video.upper()]
        if not wanted:
            raise ValueError(f"aiortc has no {args.video}")
        t.setCodecPreferences(wanted)
    if args.audio:
        pc.addTransceiver(Audio(args.hz), direction="sendonly")
    connected = asyncio.Event()

    @pc.on("connectionstatechange")
    def changed():
        httpside.say("state", state=pc.connectionState)
        if pc.connectionState in ("connected", "failed", "closed"):
            connected.set()

    resource = httpside.Resource(args.url, args.token)
    try:
        await pc.setLocalDescription(await pc.createOffer())
        httpside.keep(args.sdp, "offer", pc.localDescription.sdp)
        answer = await resource.post(pc.localDescription.sdp)
        httpside.keep(args.sdp, "answer", answer)
        await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await asyncio.wait_for(connected.wait(), 15)
        if pc.connectionState != "connected":
            raise ConnectionError(f"the connection is {pc.connectionState}")
        httpside.say("publishing", location=resource.location)
        await asyncio.sleep(args.seconds)
        httpside.say("result", sent=await sent(pc))
    finally:
        httpside.say("deleted", status=await resource.delete())
        await pc.close()


async def sent(pc) -> dict:
    """Packets sent and what the receiver reported, by kind."""
    found = {}
    for sender in pc.getSenders():
        for s in (await sender.getStats()).values():
            if s.type == "outbound-rtp":
                found.setdefault(s.kind, {})["packets"] = s.packetsSent
            elif s.type == "remote-inbound-rtp":
                found.setdefault(s.kind, {})["reported_lost"] = s.packetsLost
    return found


httpside.run(main)
