"""An RTSP server that is not ours (gst-rtsp-server): rtsp.py PORT FILE CODEC serves the file's pictures at /card."""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

ENCODE = {
    "H264": "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 bitrate=400"
    " ! video/x-h264,profile=constrained-baseline ! rtph264pay name=pay0 config-interval=-1 mtu=1200",
    "H265": "x265enc tune=zerolatency speed-preset=ultrafast key-int-max=15 bitrate=400"
    " ! h265parse ! rtph265pay name=pay0 config-interval=-1 mtu=1200",
}

Gst.init(None)
port, file, codec = sys.argv[1:4]
server = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
factory = GstRtspServer.RTSPMediaFactory(shared=True)
factory.set_launch(f"( filesrc location={file} ! qtdemux ! avdec_h264 ! {ENCODE[codec]} )")
server.get_mount_points().add_factory("/card", factory)
server.attach(None)
print("serving", flush=True)
GLib.MainLoop().run()
