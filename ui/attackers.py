"""Attackers of the load test: `python -m ui.attackers URL flood|hang|bombs`, until they are killed."""

import io
import itertools
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import numpy as np
from PIL import Image

_CONNECTIONS = 200


def main(url: str, name: str) -> None:
    """Attack for ever."""
    with suppress(AttributeError):
        os.nice(10)  # attackers have machines of their own
    {"flood": flood, "hang": hang, "bombs": send_bombs}[name](url)


def flood(url: str) -> None:
    """Ask as fast as possible: pages, sessions with long names, and completions."""
    photo = png(np.zeros((64, 64, 3), dtype=np.uint8))
    with _client(url, "10.9.0.1") as client:
        file = _uploaded(client, photo)
        for number in itertools.count():
            with suppress(httpx.HTTPError):
                client.get("/config")
                session = f"{number}" * 20_000
                client.post("/gradio_api/queue/join", json={"data": [], "fn_index": 0, "session_hash": session})
                client.post("/gradio_api/call/complete", json={"data": _inputs(file)})


def hang(url: str) -> None:
    """Hold connections open, and send the body of an upload byte by byte."""
    head = "POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\n"
    head += "X-Forwarded-For: 10.9.0.2\r\nContent-Length: 9999\r\n\r\n"
    address = httpx.URL(url)
    held: list[socket.socket] = []
    while True:
        with suppress(OSError):
            while len(held) < _CONNECTIONS:
                held.append(socket.create_connection((address.host, address.port or 80)))
                held[-1].sendall(head.encode() if len(held) % 2 else b"GET / HT")
        for each in held[:]:
            try:
                each.sendall(b"x")
            except OSError:
                held.remove(each)
        time.sleep(1)


def send_bombs(url: str) -> None:
    """Upload files that take long to decode or to search, and have them completed."""
    with _client(url, "10.9.0.3") as client:
        for content in itertools.cycle(bombs()):
            with suppress(httpx.HTTPError, KeyError, ValueError):
                event = client.post("/gradio_api/call/complete", json={"data": _inputs(_uploaded(client, content))})
                client.get(f"/gradio_api/call/complete/{event.json()['event_id']}")
            time.sleep(0.1)


def bombs() -> Iterator[bytes]:
    """Small files that would take gigabytes or minutes, and the largest photos that are allowed."""
    body = b"\0\2\0\xff\0\1"  # "up 255 rows" of 16 million pixels
    header = struct.pack("<IiiHHIIiiII", 40, 16_000_000, 1, 1, 8, 1, len(body), 0, 0, 256, 256) + bytes(1024)
    yield b"BM" + struct.pack("<IHHI", 1084, 0, 0, 1078) + header + body
    file = io.BytesIO()
    Image.new("L", (3900, 3900), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    start, end = (data.rfind(b"\xff\xc4", 0, scan) for scan in scans[1:3])
    yield data[:end] + data[start:end] * 20_000 + data[end:]
    yield png(np.zeros((8, 8, 3), dtype=np.uint8))[:33] + (b"\0\0\0\0IDAT" + b"5\xaf\x06\x1e") * 1_000_000
    yield png(np.full((4000, 4000, 4), 128, dtype=np.uint8))
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    yield png(noise)


def png(pixels: Any) -> bytes:
    """A PNG of pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _client(url: str, address: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"x-forwarded-for": address}, timeout=120)


def _uploaded(client: httpx.Client, content: bytes) -> dict[str, Any]:
    [path] = client.post("/gradio_api/upload", files={"files": ("a.png", content)}).raise_for_status().json()
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def _inputs(photo: dict[str, Any]) -> list[Any]:
    return [photo, "center", None, "fast", 1, "poisson", 0, None, True, None]


if __name__ == "__main__":
    main(*sys.argv[1:])
