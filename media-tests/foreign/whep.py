"""aiortc as a WHEP viewer that says what it saw and heard of the test card."""

import asyncio

from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

import card
import httpside


async def main(args):
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    picture, sound, readers = card.Picture(), card.Sound(), []
    if args.video:
        t = pc.addTransceiver("video", direction="recvonly")
        wanted = [c for c in RTCRtpReceiver.getCapabilities("video").codecs if c.name.upper() == args.video.upper()]
        if not wanted:
            raise ValueError(f"aiortc has no {args.video}")
        t.setCodecPreferences(wanted)
    if args.audio:
        pc.addTransceiver("audio", direction="recvonly")

    @pc.on("track")
    def track(track):
        readers.append(asyncio.ensure_future(watch(track, picture) if track.kind == "video" else listen(track, sound)))

    pc.on("connectionstatechange", lambda: httpside.say("state", state=pc.connectionState))
    resource = httpside.Resource(args.url, args.token)
    try:
        await pc.setLocalDescription(await pc.createOffer())
        httpside.keep(args.sdp, "offer", pc.localDescription.sdp)
        answer = await resource.post(pc.localDescription.sdp)
        httpside.keep(args.sdp, "answer", answer)
        await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await asyncio.sleep(args.seconds)
        httpside.say("result", video=picture.report(), audio=sound.report(), connection=pc.connectionState)
    finally:
        httpside.say("deleted", status=await resource.delete())
        await pc.close()
        for r in readers:
            r.cancel()


async def watch(track, picture: card.Picture):
    try:
        while True:
            frame = await track.recv()
            picture.see(frame.reformat(format="yuv420p").to_ndarray()[: frame.height, : frame.width])
    except MediaStreamError:
        return


async def listen(track, sound: card.Sound):
    try:
        while True:
            frame = await track.recv()
            channels = len(frame.layout.channels)
            sound.hear(frame.to_ndarray().reshape(-1, channels).mean(axis=1), frame.sample_rate)
    except MediaStreamError:
        return


httpside.run(main)
