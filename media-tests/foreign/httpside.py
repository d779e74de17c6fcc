"""What the Python clients share: the command line, the lines that they print, and the HTTP side of WHIP and WHEP."""

import argparse
import asyncio
import json
import signal
import sys
from urllib.parse import urljoin

import aiohttp


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser()
    p.add_argument("--url", required=True, help="the WHIP or WHEP endpoint")
    p.add_argument("--token", default="", help="bearer")
    p.add_argument("--video", default="", help="codec: H264, VP8 …; none where left out")
    p.add_argument("--audio", action="store_true", help="Opus as well")
    p.add_argument("--hz", type=float, default=440.0, help="the tone")
    p.add_argument("--seconds", type=float, default=6.0, help="how long")
    p.add_argument("--sdp", default="", help="folder to keep offer and answer in")
    p.add_argument("--page-port", type=int, default=0, help="where a browser's page is served")
    return p.parse_args()


def say(event: str, **more):
    print(json.dumps({"event": event, **more}), flush=True)


class Refused(Exception):
    """The server's answer was not 201."""

    def __init__(self, status: int, body: str):
        super().__init__(f"{status} {body[:400]}")
        self.status = status


class Resource:
    """A WHIP or WHEP resource."""

    def __init__(self, url: str, token: str):
        self.url, self.location = url, None
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def post(self, offer: str) -> str:
        headers = {**self.headers, "Content-Type": "application/sdp"}
        async with aiohttp.ClientSession() as http, http.post(self.url, data=offer, headers=headers) as answer:
            body = await answer.text()
            if answer.status != 201:
                raise Refused(answer.status, body)
            self.location = urljoin(self.url, answer.headers["Location"])
            return body

    async def delete(self) -> int | None:
        if self.location is None:
            return None
        async with aiohttp.ClientSession() as http, http.delete(self.location, headers=self.headers) as answer:
            return answer.status


def keep(folder: str, name: str, text: str):
    """Keeps an SDP for whoever must find out why something did not work."""
    if folder:
        with open(f"{folder}/{name}.sdp", "w", newline="") as f:
            f.write(text)


def run(main):
    """Runs a client: 0 and a result, or 1 and an error with its reason."""

    async def guarded() -> int:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            await main(arguments())
            return 0
        except Refused as e:
            say("error", status=e.status, reason=str(e))
        except asyncio.CancelledError:
            say("error", reason="stopped from outside")
        except Exception as e:  # noqa: BLE001: whatever it is, it is this cell's reason
            say("error", reason=f"{type(e).__name__}: {e}")
        return 1

    sys.exit(asyncio.run(guarded()))
