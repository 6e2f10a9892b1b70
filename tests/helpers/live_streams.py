"""Servers on the loopback interface that push pictures in real time: MJPEG and MPEG-TS over HTTP, and RTSP."""

from __future__ import annotations

import io
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer

import av
import numpy as np
import simplejpeg
from numpy.typing import NDArray

Pictures = list[NDArray[np.uint8]]
Timed = list[tuple[float, bytes]]
"""Bytes to send, each with its time in seconds."""


def wandering(count: int, height: int = 48, width: int = 64, seed: int = 0) -> Pictures:
    """Return pictures of a window that moves over a texture."""
    cells = (height // 8 + 12, width // 8 + 64, 3)
    texture = np.random.default_rng(seed).integers(0, 255, cells, np.uint8).repeat(8, 0).repeat(8, 1)
    tops = (int(45 + 40 * np.sin(t / 7)) for t in range(count))
    return [texture[top : top + height, t % 500 : t % 500 + width].copy() for t, top in enumerate(tops)]


def mpegts(pictures: Pictures, fps: int, *, key_every: int = 5, codec: str = "libx264") -> Timed:
    """Return the pictures as an MPEG transport stream, in the pieces that each frame adds."""
    sink = io.BytesIO()
    pieces: Timed = []
    with av.open(sink, "w", format="mpegts", options={"mpegts_flags": "resend_headers", "flush_packets": "1"}) as ts:
        stream = ts.add_stream(codec, rate=fps, options={"tune": "zerolatency", "g": str(key_every)})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            for packet in stream.encode(frame):
                ts.mux(packet)
            pieces.append((number / fps, sink.getvalue()))
            sink.seek(0)
            sink.truncate()
    return [(second, piece) for second, piece in pieces if piece]


def mjpeg(pictures: Pictures, fps: int) -> Timed:
    """Return the pictures as the parts of a multipart answer, as network cameras send them."""
    jpegs = [simplejpeg.encode_jpeg(picture, 95, "RGB", "420") for picture in pictures]
    head = "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
    return [(n / fps, head.format(len(jpeg)).encode() + jpeg + b"\r\n") for n, jpeg in enumerate(jpegs)]


@dataclass
class Page:
    """What is sent for a path.

    Attributes:
        kind: the content type.
        pieces: what is sent, in real time.
        authorization: the header that must be given.
        ends: whether the answer states its length.
        hangs: whether the connection stays open, silent, after the last piece.
        redirect: another URL, sent instead.
    """

    kind: str
    pieces: Timed
    authorization: str | None = None
    ends: bool = False
    hangs: bool = False
    redirect: str = ""


class Pages(dict[str, Page]):
    """The pages of a server by path; `url` is where it is, `asked` are the paths that were asked for."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.asked: list[str] = []
        self.closing = threading.Event()


MJPEG_TYPE = "multipart/x-mixed-replace; boundary=frame"


def send(write: Callable[[bytes], object], pieces: Timed) -> None:
    """Write each piece when it is due."""
    began = time.monotonic()
    for due, piece in pieces:
        time.sleep(max(0.0, began + due - time.monotonic()))
        write(piece)


@contextmanager
def http_pages() -> Iterator[Pages]:
    """Run an HTTP server for the duration of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            pages.asked.append(self.path)
            page = pages.get(self.path)
            if page is None:
                return self.send_error(404)
            if page.authorization and self.headers.get("Authorization") != page.authorization:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                return self.end_headers()
            self.send_response(302 if page.redirect else 200)
            self.send_header("Content-Type", page.kind)
            if page.redirect:
                self.send_header("Location", page.redirect)
            if page.ends:
                self.send_header("Content-Length", str(sum(len(piece) for _, piece in page.pieces)))
            self.end_headers()
            with suppress(OSError):  # the other end may have had enough
                send(self.wfile.write, page.pieces)
            if page.hangs:
                pages.closing.wait(20)

        def log_message(self, *_: object) -> None:
            pass

    with _serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        pages = Pages(f"http://127.0.0.1:{port}")
        try:
            yield pages
        finally:
            pages.closing.set()


@contextmanager
def rtsp_server(pieces: Timed) -> Iterator[str]:
    """Serve a transport stream by RTSP, as RTP within its connection (RFC 2326, 10.12), and yield the URL."""

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline().decode().strip():
                method, headers = line.split()[0], {}
                while header := self.rfile.readline().decode().strip():
                    name, _, value = header.partition(": ")
                    headers[name.lower()] = value
                self.answer(method, headers["cseq"])
                if method == "PLAY":
                    self.play()
                    return

        def answer(self, method: str, number: str) -> None:
            body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"
            extra = {
                "OPTIONS": "Public: DESCRIBE, SETUP, PLAY\r\n\r\n",
                "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}",
                "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n\r\n",
            }.get(method, "Session: 1\r\n\r\n")
            self.wfile.write(f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{extra}".encode())

        def play(self) -> None:
            packets = [(due, data[k : k + 1316]) for due, data in pieces for k in range(0, len(data), 1316)]
            framed = []
            for number, (due, payload) in enumerate(packets):
                header = struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, round(due * 90000), 1)
                framed.append((due, struct.pack(">cBH", b"$", 0, 12 + len(payload)) + header + payload))
            with suppress(OSError):  # the other end may have had enough
                send(self.wfile.write, framed)

    server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with _serving(server) as port:
        yield f"rtsp://127.0.0.1:{port}/camera"


@contextmanager
def _serving(server: ThreadingTCPServer) -> Iterator[int]:
    """Run a server in a thread and yield its port."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
