"""Models in folders and on the hub (a local server over real sockets)."""

from __future__ import annotations

import base64
import errno
import gc
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from safetensors import SafetensorError

from helpers.web import Web, use_as_hub, web_server
from stresnet.data.store import Store
from stresnet.errors import CheckpointError, StresnetError, UnreachableError
from stresnet.inference.recognizer import Recognizer
from stresnet.model import Checkpoint, STResNetConfig, load_checkpoint
from stresnet.training import Run
from stresnet.weights.model_card import model_card


@pytest.fixture(autouse=True)
def _here_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use no proxy and no token of this machine."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HF_TOKEN", "")
    yield
    huggingface_hub.close_session()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    with web_server() as web:
        use_as_hub(web.url, monkeypatch)
        yield web


@pytest.fixture(scope="module")
def folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a trained model that `save_pretrained` wrote; tests only read it."""
    place = tmp_path_factory.mktemp("saved") / "ein Modell"
    Recognizer(run.folder / "model.safetensors", device="cpu").save_pretrained(place)
    return place


def contents(place: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in place.iterdir()}


def assert_same(found: Checkpoint, expected: Checkpoint) -> None:
    for field in Checkpoint.model_fields:
        if field != "model":
            assert getattr(found, field) == getattr(expected, field)
    assert found.model.config == expected.model.config
    weights = expected.model.state_dict()
    assert list(found.model.state_dict()) == list(weights)
    assert all(torch.equal(value, weights[key]) for key, value in found.model.state_dict().items())


def load_error(repo: object, **options: Any) -> str:
    """Return the one-line error of loading a model."""
    with pytest.raises(StresnetError) as caught:
        Recognizer.from_pretrained(str(repo), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- folders


def test_folder_round_trip(folder: Path, run: Run, store: Store) -> None:
    original = Recognizer(run.folder / "model.safetensors", device="cpu")
    found = Recognizer.from_pretrained(folder, device="cpu")
    assert type(found) is Recognizer
    assert_same(found.checkpoint, original.checkpoint)
    for entry in store.select("test"):
        clip = store.video(entry.record.id)
        for stream in ("appearance", "motion", "fused"):
            assert np.array_equal(getattr(found.score(clip), stream), getattr(original.score(clip), stream))


def test_folder_contents(folder: Path, run: Run) -> None:
    files = contents(folder)
    assert set(files) == {"model.safetensors", "README.md", "config.json"}
    assert files["model.safetensors"] == (run.folder / "model.safetensors").read_bytes(), "copied byte for byte"
    checkpoint = load_checkpoint(folder / "model.safetensors")
    assert files["README.md"].decode() == model_card(checkpoint)
    config = json.loads(files["config.json"])
    assert STResNetConfig.from_dict(config.pop("config")) == checkpoint.model.config
    assert config == {
        "library_name": "stresnet",
        "library_version": checkpoint.version,
        "architecture": "ST-ResNet-26",
        "classes": list(checkpoint.classes),
    }


def test_saving_again_keeps_an_edited_card(folder: Path, tmp_path: Path) -> None:
    recognizer = Recognizer.from_pretrained(folder)
    (tmp_path / "README.md").write_text("mine", "utf-8")
    (tmp_path / "config.json").write_text("{}", "utf-8")
    recognizer.save_pretrained(tmp_path)
    files = contents(tmp_path)
    assert files.pop("README.md") == b"mine"
    assert files == {name: data for name, data in contents(folder).items() if name != "README.md"}
    recognizer.save_pretrained(tmp_path / "licensed", license="mit")
    assert ModelCard((tmp_path / "licensed" / "README.md").read_text("utf-8")).data.license == "mit"


def locked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make writes to a folder fail as without permission; root could write anywhere."""
    write = Path.write_bytes

    def fail(self: Path, data: bytes) -> int:
        if self.is_relative_to(place):
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", fail)


def full(tensors: object, file: Path, metadata: object) -> None:
    """Fail like a disk that is full after the first bytes of a model."""
    file.write_bytes(b"half")
    raise SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("before", [True, False])
def test_unwritable_folder_stays_unchanged(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    recognizer = Recognizer.from_pretrained(folder, device="cpu")
    place = tmp_path / "place"
    if before:
        place.mkdir()
        for name in ("model.safetensors", "config.json"):
            (place / name).write_bytes(b"precious")
    for breaks, said in (
        (lambda patch: locked(place, patch), f"{place} cannot be written (Permission denied): fix that"),
        (lambda patch: patch.setattr("stresnet.model.checkpoint.save_file", full), "No space left on device"),
    ):
        with monkeypatch.context() as patch:
            breaks(patch)
            with pytest.raises(CheckpointError) as caught:
                recognizer.save_pretrained(place)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
        assert contents(place) == (dict.fromkeys(("model.safetensors", "config.json"), b"precious") if before else {})
    recognizer.save_pretrained(place)
    assert contents(place) == contents(folder)


def test_saving_to_a_file_raises(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    recognizer = Recognizer.from_pretrained(folder, device="cpu")
    for place in (file, file / "below"):
        with pytest.raises(CheckpointError) as caught:
            recognizer.save_pretrained(place)
        assert str(caught.value).startswith(f"{place} cannot be written (not a folder): fix that")
    assert file.read_text() == "precious"


def test_class_names_that_are_not_valid_unicode(folder: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(folder / "model.safetensors")
    odd = checkpoint.replace(classes=("caf\udce9", *checkpoint.classes[1:]))
    Recognizer(odd, device="cpu").save_pretrained(tmp_path / "odd")
    assert json.loads((tmp_path / "odd" / "config.json").read_text("utf-8"))["classes"][0] == "caf\udce9"
    assert Recognizer.from_pretrained(tmp_path / "odd").classes == odd.classes


def test_config_json_is_not_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    for text in ('{"device": "toaster", "model": 3}', "[]", "no JSON"):
        (tmp_path / "config.json").write_text(text, "utf-8")
        assert Recognizer.from_pretrained(tmp_path, device="cpu").device.type == "cpu"
    (tmp_path / "config.json").unlink()
    assert Recognizer.from_pretrained(tmp_path).classes == Recognizer.from_pretrained(folder).classes


def test_folders_without_a_model_raise(tmp_path: Path, run: Run) -> None:
    assert load_error(tmp_path) == (
        f"{tmp_path} has no model.safetensors: expected a checkpoint, or the folder of a run with a trained stage"
    )
    (tmp_path / "model.safetensors").write_bytes(b"not a model")
    assert "is not a model, or is truncated" in load_error(tmp_path)
    assert Recognizer.from_pretrained(run.folder).checkpoint.stage == "st-resnet"


# ---------------------------------------------------------------- the hub


def test_load_from_the_hub(hub: Web, folder: Path, tmp_path: Path) -> None:
    hub.put_repo("me/net", contents(folder))
    found = Recognizer.from_pretrained("me/net", cache_dir=tmp_path, device="cpu")
    assert_same(found.checkpoint, load_checkpoint(folder / "model.safetensors"))
    assert list(tmp_path.rglob("model.safetensors")), "in the given folder"
    files = [a.path.rpartition("/")[2] for a in hub.asked if a.method == "GET" and "resolve" in a.path]
    assert files == ["config.json", "model.safetensors"]  # the hub counts requests of config.json
    asked = len(hub.asked)
    assert Recognizer.from_pretrained("me/net", cache_dir=tmp_path, local_files_only=True).classes == found.classes
    assert len(hub.asked) == asked
    Recognizer.from_pretrained("me/net", cache_dir=tmp_path)
    assert not [a for a in hub.asked[asked:] if a.method == "GET" and "resolve" in a.path], "downloaded twice"
    Recognizer.from_pretrained("me/net", cache_dir=tmp_path, force_download=True)
    assert len(hub.ranges("/me/net/resolve/main/model.safetensors")) == 2


def test_revision_and_token(hub: Web, folder: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put_repo("me/net", contents(folder))
    motion = run.folder / "motion" / "model.safetensors"
    hub.put_repo("me/net", {"model.safetensors": motion.read_bytes()}, revision="v1", commit="f" * 40)
    tokens: list[object] = []

    class Spy(HfApi):
        def __init__(self, *, token: object) -> None:
            tokens.append(token)
            super().__init__(token=token)  # type: ignore[arg-type]

    monkeypatch.setattr("huggingface_hub.HfApi", Spy)
    old = Recognizer.from_pretrained("me/net", revision="v1", cache_dir=tmp_path, token=False)
    assert old.checkpoint.stage == "motion"
    assert Recognizer.from_pretrained("me/net", cache_dir=tmp_path, token="mine").checkpoint.stage == "st-resnet"
    assert tokens == [False, "mine"]


def test_hub_errors(hub: Web, folder: Path, tmp_path: Path) -> None:
    hub.put_repo("me/other", {"README.md": b"#", "a.bin": b"", "b.bin": b"", "c.bin": b""})
    assert load_error("me/other", cache_dir=tmp_path) == (
        "me/other has no model.safetensors; its files of weights: a.bin, b.bin, c.bin"
    )
    hub.put_repo("me/empty", {})
    assert load_error("me/empty", cache_dir=tmp_path).endswith("its files of weights: none")
    for path, code, status in (
        ("/api/models/me/gone", "RepoNotFound", 401),
        ("/api/models/me/net/revision/v9", "RevisionNotFound", 404),
        ("/me/gated/resolve/main/model.safetensors", "GatedRepo", 403),
        ("/api/models/me/secret", "", 403),
        ("/api/models/me/odd", "", 418),
    ):
        if "gated" in path:
            hub.put_repo("me/gated", {"model.safetensors": b""})
        hub.put(path, b"{}", status=status)
        hub.pages[path].headers = {"X-Error-Code": code} if code else {}
    gone = load_error("me/gone", cache_dir=tmp_path)
    assert gone.startswith("me/gone: not found on the hub, or private (401): check the name, or log in with `hf auth")
    assert load_error("me/net", revision="v9", cache_dir=tmp_path).startswith(
        "me/net: the repository has no revision v9:"
    )
    gated = load_error("me/gated", cache_dir=tmp_path)
    assert gated.startswith(
        f"me/gated: access to the repository is gated: accept its terms at {hub.url}/me/gated, then log"
    )
    assert load_error("me/secret", cache_dir=tmp_path).startswith("me/secret: the hub denies access (403): log in")
    assert load_error("me/odd", cache_dir=tmp_path).startswith("me/odd: the hub answers with status 418: ")
    for name in ("no/such/folder", "run 1", "me/n--t"):
        expected = "not a folder, and not a name on the hub: expected a folder or owner/name"
        assert load_error(name) == f"{name}: {expected}"


def test_without_network(hub: Web, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put_repo("me/net", contents(folder))
    Recognizer.from_pretrained("me/net", cache_dir=tmp_path)
    hub.put("/api/models/me/net", b"", status=503)
    assert Recognizer.from_pretrained("me/net", cache_dir=tmp_path).checkpoint.stage == "st-resnet"  # the copy
    nowhere = "http://127.0.0.1:9"  # where nothing listens
    use_as_hub(nowhere, monkeypatch)
    assert Recognizer.from_pretrained("me/net", cache_dir=tmp_path).checkpoint.stage == "st-resnet"
    message = f"me/new/model.safetensors: the hub at {nowhere} cannot be reached, and the file is not in the cache"
    assert load_error("me/new", cache_dir=tmp_path).startswith(message)
    with pytest.raises(UnreachableError):
        Recognizer.from_pretrained("me/new", cache_dir=tmp_path)
    assert "is not in the cache" in load_error("me/new", cache_dir=tmp_path, local_files_only=True)
    anew = load_error("me/net", cache_dir=tmp_path, force_download=True)
    assert anew.startswith(f"me/net: the hub at {nowhere} cannot be reached (")
    with pytest.raises(CheckpointError, match=r"^me/net: the hub at .* cannot be reached"):
        Recognizer.from_pretrained(folder).push_to_hub("me/net", token="mine")


class PushServer:
    """The parts of the hub that a push needs: create repositories and branches, accept files within a commit."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.status = 200
        self.complaint = ""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _push_handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        if path.startswith("/api/models/me/net/commit/"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return {"success": True, "commitUrl": f"{self.url}/me/net/commit/{'a' * 40}", "commitOid": "a" * 40}
        if path.startswith("/api/models/me/net/preupload/"):
            wanted = json.loads(body)["files"]
            return {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in wanted]}
        return {"url": f"{self.url}/me/net"}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _push_handler(server: PushServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0]
            server.asked.append((path, self.headers.get("Authorization", ""), body))
            status, answer = server.status, server.answer(path, body) if server.status == 200 else {}
            if path == "/api/validate-yaml" and server.complaint:
                status, answer = 400, {"errors": [{"message": server.complaint}]}
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def taking(monkeypatch: pytest.MonkeyPatch) -> Iterator[PushServer]:
    server = PushServer()
    use_as_hub(server.url, monkeypatch)
    yield server
    server.close()


def test_push_round_trip(taking: PushServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = Recognizer.from_pretrained(folder, device="cpu")
    address = recognizer.push_to_hub("me/net", token="mine", private=True, license="mit")
    assert address == f"{taking.url}/me/net/commit/{'a' * 40}"
    pushed = contents(folder)
    card = model_card(recognizer.checkpoint, repo="me/net", license="mit")
    assert taking.files == pushed | {"README.md": card.encode()}
    assert {token for path, token, _ in taking.asked if "models" in path or "repos" in path} == {"Bearer mine"}
    created = json.loads(next(body for path, _, body in taking.asked if path == "/api/repos/create"))
    assert (created["name"], created["organization"]) == ("net", "me")
    with web_server() as web:
        use_as_hub(web.url, monkeypatch)
        web.put_repo("me/net", taking.files)
        assert_same(Recognizer.from_pretrained("me/net", cache_dir=tmp_path).checkpoint, recognizer.checkpoint)


def test_push_to_a_branch(taking: PushServer, folder: Path) -> None:
    Recognizer.from_pretrained(folder).push_to_hub("me/net", token="mine", branch="v2", commit_message="Retrained")
    paths = [path for path, _, _ in taking.asked]
    assert "/api/models/me/net/branch/v2" in paths
    commit = next(body for path, _, body in taking.asked if path == "/api/models/me/net/commit/v2")
    assert json.loads(commit.splitlines()[0])["value"]["summary"] == "Retrained"


def test_push_without_permission_raises(taking: PushServer, folder: Path) -> None:
    taking.status = 401
    with pytest.raises(CheckpointError, match=r"^me/net: .*log in with `hf auth login`, or set HF_TOKEN$"):
        Recognizer.from_pretrained(folder).push_to_hub("me/net", token="expired")


# The hub's client leaves its temporary folder to the garbage collector when a push fails.
@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")
def test_push_of_a_rejected_card_raises(taking: PushServer, folder: Path) -> None:
    taking.complaint = '"license" must be one of [mit, …]'
    with pytest.raises(CheckpointError) as caught:
        Recognizer.from_pretrained(folder).push_to_hub("me/net", token="mine", license="my own")
    message = f"me/net: the hub rejects it: Invalid metadata in README.md. - {taking.complaint}"
    assert str(caught.value) == message
    assert not taking.files
    del caught
    gc.collect()
