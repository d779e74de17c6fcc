"""Firefox as WHIP publisher or WHEP viewer: firefox.py publish|view --url … (as httpside.py). Runs the same page as
chromium.mjs. Driven by WebDriver BiDi, which Firefox speaks itself: no geckodriver is needed."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import aiohttp
from aiohttp import web

import httpside

BINARY = os.environ.get("TROCAR_FIREFOX", "firefox-esr")
PREFERENCES = {
    "media.autoplay.default": 0,
    "media.autoplay.blocking_policy": 0,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    # Its own decoders (FFmpeg of the system) instead of the OpenH264 plug-in, which is a download.
    "media.navigator.mediadatadecoder_h264_enabled": True,
    "media.navigator.mediadatadecoder_vpx_enabled": True,
    "media.webrtc.hw.h264.enabled": True,
    "gfx.blacklist.webrtc.hw.acceleration.h264": 1,
    "media.cubeb.force_mock_context": True,
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.enabled": False,
}
START_SECONDS = 90


class Bidi:
    """One WebDriver BiDi session."""

    def __init__(self, socket):
        self.socket, self.next, self.waiting = socket, 0, {}
        self.reader = asyncio.ensure_future(self.read())

    async def read(self):
        async for message in self.socket:
            answer = json.loads(message.data)
            if answer.get("id") in self.waiting:
                self.waiting.pop(answer["id"]).set_result(answer)
            elif answer.get("method") == "script.message":
                httpside.say(**json.loads(answer["params"]["data"]["value"]))
        for w in self.waiting.values():
            w.cancel()

    async def call(self, method: str, **params) -> dict:
        self.next += 1
        self.waiting[self.next] = answer = asyncio.get_running_loop().create_future()
        await self.socket.send_json({"id": self.next, "method": method, "params": params})
        got = await asyncio.wait_for(answer, 120)
        if got["type"] == "error":
            raise RuntimeError(f"{method}: {got['error']}: {got['message']}")
        return got["result"]


async def page_server(port: int) -> tuple[web.AppRunner, str]:
    script = Path(__file__).with_name("page.js").read_text()
    html = f"<!doctype html><title>foreign client</title><body><script>{script}</script>"

    async def page(_):
        return web.Response(text=html, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/"


async def drive(args, do: str, address: str, page: str):
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{address}/session", max_msg_size=0) as socket:
        bidi = Bidi(socket)
        capabilities = (await bidi.call("session.new", capabilities={}))["capabilities"]
        httpside.say("client", name="Firefox", version=capabilities["browserVersion"])
        await bidi.call("session.subscribe", events=["script.message"])
        context = (await bidi.call("browsingContext.getTree"))["contexts"][0]["context"]
        await bidi.call("browsingContext.navigate", context=context, url=page, wait="complete")
        wanted = {"url": args.url, "token": args.token, "video": args.video, "audio": args.audio}
        wanted |= {"hz": args.hz, "seconds": args.seconds}
        told = {"type": "channel", "value": {"channel": "tell"}}
        code = f"async (c) => {{ tell = (o) => c(JSON.stringify(o)); return JSON.stringify(await {do}({json.dumps(wanted)})); }}"
        result = await bidi.call(
            "script.callFunction", functionDeclaration=code, awaitPromise=True, arguments=[told], target={"context": context}
        )
        if result["type"] == "exception":
            raise RuntimeError(result["exceptionDetails"]["text"])
        got = json.loads(result["result"]["value"])
        for name, text in (got.pop("sdp", None) or {}).items():
            httpside.keep(args.sdp, name, text)
        failed = got.pop("error", False)
        httpside.say(**got)
        if failed:
            sys.exit(1)


async def main(args):
    if shutil.which(BINARY) is None:
        raise FileNotFoundError(f"{BINARY} is not installed")
    profile = tempfile.mkdtemp(prefix="trocar-firefox-")
    lines = (f"user_pref({json.dumps(k)}, {json.dumps(v)});\n" for k, v in PREFERENCES.items() if v != "")
    Path(profile, "user.js").write_text("".join(lines))
    runner, page = await page_server(args.page_port)
    command = [BINARY, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0", "about:blank"]
    firefox = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    said = []
    try:
        address = await asyncio.wait_for(ready(firefox, said), START_SECONDS)
        drain = asyncio.ensure_future(firefox.stderr.read())
        await drive(args, DO, address, page)
        drain.cancel()
    except TimeoutError:
        raise TimeoutError(f"Firefox did not open its debugging port: {' | '.join(said[-5:])}") from None
    finally:
        if firefox.returncode is None:
            firefox.terminate()
            try:
                await asyncio.wait_for(firefox.wait(), 10)
            except TimeoutError:
                firefox.kill()
        await runner.cleanup()
        shutil.rmtree(profile, ignore_errors=True)


async def ready(firefox, said: list[str]) -> str:
    async for line in firefox.stderr:
        said.append(line.decode(errors="replace").strip())
        if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", said[-1]):
            return found[1]
    raise RuntimeError(f"Firefox ended: {' | '.join(said[-5:])}")


DO = sys.argv.pop(1)
httpside.run(main)
