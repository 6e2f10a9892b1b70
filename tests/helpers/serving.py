"""A service in a thread, its decoders, and requests to it."""

from __future__ import annotations

import asyncio
import http.client
import json
import multiprocessing.forkserver
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import uvicorn

from helpers.tiny import SPEC, tiny_recipe
from stresnet.inference.recognizer import Recognizer
from stresnet.model import Checkpoint, Preprocessing, STResNet
from stresnet.serving.app import create_app
from stresnet.serving.settings import Settings

CLASSES = ("wave", "<img src=x onerror=alert(1)>", "jump \x1b[31m")
_BOUNDARY = "----boundary"


def checkpoint(**config: object) -> Checkpoint:
    """Return a tiny network with random weights, whose classes have names that would do harm."""
    recipe = tiny_recipe({"st-resnet": {"starts_from": [], "network": {"dropout": 0.0}}})
    torch.manual_seed(0)
    model = STResNet(recipe.stages[0].network.with_classes(len(CLASSES)).replace(**config))
    return Checkpoint(
        model=model.eval(),
        classes=CLASSES,
        preprocessing=Preprocessing(rgb_mean=(110.0,) * 3, rgb_std=(60.0,) * 3, flow_std=40.0, crop_px=32, mirror=True),
        store_spec=SPEC.to_dict(),
        stage="st-resnet",
        recipe=recipe.to_dict(),
    )


class Reply(NamedTuple):
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON values."""
        return json.loads(self.body)


class Service:
    """A running service."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.url = f"http://{host}:{port}"

    def ask(self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, **headers: str) -> Reply:
        """Send a request and return the answer; underscores in the names of headers stand for hyphens."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        """Send a GET request."""
        return self.ask("GET", path, **headers)

    def predict(self, video: Path | bytes, query: str = "", *, name: str = "", **headers: str) -> Reply:
        """Upload a video."""
        data = video if isinstance(video, bytes) else video.read_bytes()
        name = name or ("x.mp4" if isinstance(video, bytes) else video.name)
        return self.ask("POST", f"/v1/predict{query}", form(data, name), **FORM, **headers)

    def begin(self, video: Path, query: str = "", **headers: str) -> str:
        """Upload a video without waiting for the result, and return the path of its job."""
        reply = self.predict(video, query, Prefer="respond-async", **headers)
        assert reply.status == 202, reply
        return reply.headers["location"]

    def ended(self, job: str) -> Any:
        """Return the state of a job when it has ended."""
        return until(lambda: (state := self.get(job).json())["state"] in ("done", "failed", "cancelled") and state)

    def measure(self, name: str) -> float:
        """Return a measure; 0 if it has not been taken."""
        lines = self.get("/metrics").body.decode().splitlines()
        return next((float(line.split(" ")[-1]) for line in lines if line.rpartition(" ")[0] == name), 0.0)


FORM = {"Content_Type": f"multipart/form-data; boundary={_BOUNDARY}"}


def form(data: bytes, name: str, field: str = "video") -> bytes:
    """Return the body of a form with one file."""
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode() + data + f"\r\n--{_BOUNDARY}--\r\n".encode()


@contextmanager
def service(recognizers: Mapping[str, Recognizer], **settings: Any) -> Iterator[Service]:
    """Run a service in a thread for the duration of the block."""
    app = create_app(recognizers, Settings(**{"workers": 2, **settings}))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="websockets-sansio"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        try:
            running = Service(*listener.getsockname())
            until(lambda: server.started)
            yield running
        finally:
            server.should_exit = True
            thread.join()


def decoders() -> list[int]:
    """Return the process ids of the decoders that run."""
    parent = multiprocessing.forkserver._forkserver._forkserver_pid
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(folder.name))
        except OSError:  # it has ended
            continue
    return found


def descriptors() -> int:
    """Return how many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Return what a condition gives as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)
    return found
