"""Recognisers on the hub: folders for real, a hub of this machine over real sockets, and what the model card says."""

from __future__ import annotations

import base64
import errno
import gc
import json
import shutil
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

from helpers.web import Web, web_server
from stresnet.data.store import Store
from stresnet.errors import CheckpointError
from stresnet.evaluation import evaluate
from stresnet.inference.recognizer import Recognizer
from stresnet.model import Checkpoint, Preprocessing, STResNet, STResNetConfig, load_checkpoint
from stresnet.training import Run
from stresnet.weights.hub import model_card

SCORE = {
    "store": "park|1",
    "split": "test",
    "protocol": "dense25",
    "videos": 48,
    "top1": [0.8125, 0.6875, 0.9167],
    "mean_class": [0.8, 0.67, 0.9],
}


@pytest.fixture(autouse=True)
def _here_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No proxy and no token of the machine's."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HF_TOKEN", "")
    yield
    huggingface_hub.close_session()


def stand_in(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the hub's client ask a server of this machine, as HF_ENDPOINT would if set before the client is loaded."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    with web_server() as web:
        stand_in(web.url, monkeypatch)
        yield web


@pytest.fixture(scope="module")
def folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model as `save_pretrained` lays it out; to be read only."""
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


def refusal(repo: object, **options: Any) -> str:
    """The one line that loading ends with."""
    with pytest.raises(CheckpointError) as caught:
        Recognizer.from_pretrained(str(repo), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- folders


def test_a_folder_gives_the_recogniser_back(folder: Path, run: Run, store: Store) -> None:
    original = Recognizer(run.folder / "model.safetensors", device="cpu")
    found = Recognizer.from_pretrained(folder, device="cpu")
    assert type(found) is Recognizer
    assert_same(found.checkpoint, original.checkpoint)
    for entry in store.select("test"):
        clip = store.video(entry.record.id)
        for stream in ("appearance", "motion", "fused"):
            assert np.array_equal(getattr(found.score(clip), stream), getattr(original.score(clip), stream))


def test_what_is_in_the_folder(folder: Path, run: Run) -> None:
    files = contents(folder)
    assert set(files) == {"model.safetensors", "README.md", "config.json"}
    assert files["model.safetensors"] == (run.folder / "model.safetensors").read_bytes(), "the checkpoint as it is"
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


def test_saving_again_spares_an_edited_card(folder: Path, tmp_path: Path) -> None:
    recognizer = Recognizer.from_pretrained(folder)
    (tmp_path / "README.md").write_text("mine", "utf-8")
    (tmp_path / "config.json").write_text("{}", "utf-8")
    recognizer.save_pretrained(tmp_path)
    files = contents(tmp_path)
    assert files.pop("README.md") == b"mine"
    assert files == {name: data for name, data in contents(folder).items() if name != "README.md"}
    recognizer.save_pretrained(tmp_path / "licensed", model_card_kwargs={"license": "mit", "repo": "me/net"})
    card = ModelCard((tmp_path / "licensed" / "README.md").read_text("utf-8"))
    assert card.data.license == "mit"
    assert 'from_pretrained("me/net")' in card.text


def locked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing new be written to a folder, as if without permission; root may write anywhere."""
    write = Path.write_bytes

    def refuse(self: Path, data: bytes) -> int:
        if self.is_relative_to(place):
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)


def full(tensors: object, file: Path, metadata: object) -> None:
    """A disk that takes the first bytes of a model."""
    file.write_bytes(b"half")
    raise SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("before", [True, False])
def test_a_folder_that_cannot_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    recognizer = Recognizer.from_pretrained(folder, device="cpu")
    place = tmp_path / "place"
    if before:
        place.mkdir()
        for name in ("model.safetensors", "config.json"):
            (place / name).write_bytes(b"precious")
    for breaks, said in (
        (lambda patch: locked(place, patch), f"{place} cannot be written (Permission denied): mend that"),
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


def test_a_file_where_the_folder_should_be(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    recognizer = Recognizer.from_pretrained(folder, device="cpu")
    for place in (file, file / "below"):
        with pytest.raises(CheckpointError) as caught:
            recognizer.save_pretrained(place)
        assert str(caught.value).startswith(f"{place} cannot be written (it is no folder): mend that")
    assert file.read_text() == "precious"


def test_names_that_are_no_text_are_written(folder: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(folder / "model.safetensors")
    odd = checkpoint.replace(classes=("caf\udce9", *checkpoint.classes[1:]))
    Recognizer(odd, device="cpu").save_pretrained(tmp_path / "odd")
    assert json.loads((tmp_path / "odd" / "config.json").read_text("utf-8"))["classes"][0] == "caf\udce9"
    assert Recognizer.from_pretrained(tmp_path / "odd").classes == odd.classes


def test_the_mixin_keeps_no_second_network(folder: Path) -> None:
    checkpoint = load_checkpoint(folder / "model.safetensors")
    assert Recognizer(checkpoint, device="cpu")._hub_mixin_config == {}
    assert Recognizer(checkpoint, device="cpu").checkpoint is checkpoint


def test_config_json_is_not_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    for text in ('{"device": "toaster", "model": 3}', "[]", "no JSON"):
        (tmp_path / "config.json").write_text(text, "utf-8")
        assert Recognizer.from_pretrained(tmp_path, device="cpu").device.type == "cpu"
    (tmp_path / "config.json").unlink()
    assert Recognizer.from_pretrained(tmp_path).classes == Recognizer.from_pretrained(folder).classes


def test_folders_that_hold_no_model(tmp_path: Path, run: Run) -> None:
    assert refusal(tmp_path) == (
        f"{tmp_path} holds no model.safetensors: give a folder that save_pretrained or training wrote"
    )
    model = run.folder / "model.safetensors"
    assert refusal(model) == f"{model} is a file: give its folder, or load the file with Recognizer({str(model)!r})"
    (tmp_path / "model.safetensors").write_bytes(b"not a model")
    assert "is not a model, or is truncated" in refusal(tmp_path)
    assert Recognizer.from_pretrained(run.folder).checkpoint.stage == "st-resnet"  # the folder of a run is one too


# ---------------------------------------------------------------- the hub


def test_a_repository(hub: Web, folder: Path, tmp_path: Path) -> None:
    hub.put_repo("me/net", contents(folder))
    found = Recognizer.from_pretrained("me/net", cache_dir=tmp_path, device="cpu")
    assert_same(found.checkpoint, load_checkpoint(folder / "model.safetensors"))
    assert list(tmp_path.rglob("model.safetensors")), "in the folder that was named"
    files = [a.path.rpartition("/")[2] for a in hub.asked if a.method == "GET" and "resolve" in a.path]
    assert files == ["config.json", "model.safetensors"]  # the hub counts downloads by the first
    asked = len(hub.asked)
    assert Recognizer.from_pretrained("me/net", cache_dir=tmp_path, local_files_only=True).classes == found.classes
    assert len(hub.asked) == asked
    Recognizer.from_pretrained("me/net", cache_dir=tmp_path)
    assert not [a for a in hub.asked[asked:] if a.method == "GET" and "resolve" in a.path], "fetched twice"
    Recognizer.from_pretrained("me/net", cache_dir=tmp_path, force_download=True)
    assert len(hub.ranges("/me/net/resolve/main/model.safetensors")) == 2


def test_a_revision_and_a_token(
    hub: Web, folder: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put_repo("me/net", contents(folder))
    motion = run.folder / "motion" / "model.safetensors"
    hub.put_repo("me/net", {"model.safetensors": motion.read_bytes()}, revision="v1", commit="f" * 40)
    tokens: list[object] = []

    class Spy(HfApi):
        def __init__(self, *, token: object) -> None:
            tokens.append(token)
            super().__init__(token=token)  # type: ignore[arg-type]

    monkeypatch.setattr("stresnet.weights.hub.HfApi", Spy)
    old = Recognizer.from_pretrained("me/net", revision="v1", cache_dir=tmp_path, token=False)
    assert old.checkpoint.stage == "motion"
    assert Recognizer.from_pretrained("me/net", cache_dir=tmp_path, token="mine").checkpoint.stage == "st-resnet"
    assert tokens == [False, "mine"]


def test_what_the_hub_refuses(hub: Web, folder: Path, tmp_path: Path) -> None:
    hub.put_repo("me/other", {"README.md": b"#", "a.bin": b"", "b.bin": b"", "c.bin": b""})
    assert refusal("me/other", cache_dir=tmp_path) == (
        "me/other holds no model.safetensors but README.md, a.bin, b.bin …: give a repository that push_to_hub made"
    )
    hub.put_repo("me/empty", {})
    assert "holds no model.safetensors but nothing:" in refusal("me/empty", cache_dir=tmp_path)
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
    no_repository = "no folder here, and no repository on the hub or a private one: check the name, or log in with"
    assert refusal("me/gone", cache_dir=tmp_path).startswith(f"me/gone: {no_repository} `hf auth login`")
    assert refusal("me/net", revision="v9", cache_dir=tmp_path).startswith("me/net: the repository has no revision v9:")
    gated = refusal("me/gated", cache_dir=tmp_path)
    assert gated.startswith(f"me/gated: the repository is gated: accept its terms at {hub.url}/me/gated, then log in")
    assert refusal("me/secret", cache_dir=tmp_path).startswith("me/secret: the hub refuses access (403): log in")
    assert refusal("me/odd", cache_dir=tmp_path).startswith("me/odd: the hub answers with status 418: ")
    for name in ("no/such/folder", "run 1", "me/n--t"):
        assert refusal(name) == f"{name}: no folder here, and no name on the hub: give a folder, or owner/name"


def test_without_network(hub: Web, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put_repo("me/net", contents(folder))
    Recognizer.from_pretrained("me/net", cache_dir=tmp_path)
    hub.put("/api/models/me/net", b"", status=503)
    assert Recognizer.from_pretrained("me/net", cache_dir=tmp_path).checkpoint.stage == "st-resnet"  # the copy
    nowhere = "http://127.0.0.1:9"  # where nothing listens
    stand_in(nowhere, monkeypatch)
    assert Recognizer.from_pretrained("me/net", cache_dir=tmp_path).checkpoint.stage == "st-resnet"
    message = f"me/new: the hub at {nowhere} was not reached, and no copy is here: connect once to fetch it"
    assert refusal("me/new", cache_dir=tmp_path) == message
    assert refusal("me/new", cache_dir=tmp_path, local_files_only=True) == message
    anew = refusal("me/net", cache_dir=tmp_path, force_download=True)
    assert anew.startswith(f"me/net: the hub at {nowhere} cannot be reached (")
    with pytest.raises(CheckpointError, match=r"^me/net: the hub at .* cannot be reached"):
        Recognizer.from_pretrained(folder).push_to_hub("me/net", token="mine")


class PushServer:
    """As much of the hub as a push needs: repositories are made, all files are taken within the commit."""

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
    stand_in(server.url, monkeypatch)
    yield server
    server.close()


def test_a_push_and_back(taking: PushServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = Recognizer.from_pretrained(folder, device="cpu")
    address = recognizer.push_to_hub("me/net", token="mine", private=True, model_card_kwargs={"license": "mit"})
    assert address == f"{taking.url}/me/net/commit/{'a' * 40}"
    pushed = contents(folder)
    card = model_card(recognizer.checkpoint, repo="me/net", license="mit")
    assert taking.files == pushed | {"README.md": card.encode()}
    assert {token for path, token, _ in taking.asked if "models" in path or "repos" in path} == {"Bearer mine"}
    created = json.loads(next(body for path, _, body in taking.asked if path == "/api/repos/create"))
    assert (created["name"], created["organization"]) == ("net", "me")
    with web_server() as web:
        stand_in(web.url, monkeypatch)
        web.put_repo("me/net", taking.files)
        assert_same(Recognizer.from_pretrained("me/net", cache_dir=tmp_path).checkpoint, recognizer.checkpoint)


def test_a_push_that_spares_the_card(taking: PushServer, folder: Path) -> None:
    Recognizer.from_pretrained(folder).push_to_hub("me/net", token="mine", ignore_patterns="README.md")
    assert set(taking.files) == {"model.safetensors", "config.json"}


def test_a_push_that_is_refused(taking: PushServer, folder: Path) -> None:
    taking.status = 401
    with pytest.raises(CheckpointError, match=r"^me/net: .*log in with `hf auth login`, or give a token$"):
        Recognizer.from_pretrained(folder).push_to_hub("me/net", token="expired")


# The hub's client leaves its temporary folder to the garbage collector when a push fails.
@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")
def test_a_card_that_is_refused(taking: PushServer, folder: Path) -> None:
    taking.complaint = '"license" must be one of [mit, …]'
    with pytest.raises(CheckpointError) as caught:
        Recognizer.from_pretrained(folder).push_to_hub("me/net", token="mine", model_card_kwargs={"license": "my own"})
    message = f"me/net: the hub does not take it: Invalid metadata in README.md. - {taking.complaint}"
    assert str(caught.value) == message
    assert not taking.files
    del caught
    gc.collect()


# ---------------------------------------------------------------- the model card


def section(card: str, name: str) -> str:
    return card.split(f"\n## {name}\n\n")[1].split("\n\n## ")[0].strip()


def described(**changes: Any) -> Checkpoint:
    """A model whose description says everything."""
    config = STResNetConfig(num_classes=3, depth=26, width=0.0625, temporal_pool=(5, 2))
    recipe = {"name": "own_recipe", "stages": [{"name": "motion"}, {"name": "both"}]}
    flow = {"method": "tvl1", "preset": "default", "short_side": 128, "bound_px": 20.0}
    found = Checkpoint(
        model=STResNet(config).eval(),
        classes=("TurnLeft", "wave_hand", "jump"),
        preprocessing=Preprocessing(crop_px=112),
        store_spec={"flow": flow, "flow_digest": "of another version", "jpeg_quality": 95},
        stage="both",
        recipe=recipe,
        training={"store": "park|1", "videos": 132, "steps": 3120, "minutes": 12.34},
        test_groups=("anna", "ben"),
        scores=(SCORE, SCORE | {"protocol": "center", "top1": [0.75, 0.6, 0.85]}),
        version="0.1.0",
    )
    return found.replace(**changes)


def test_a_card_for_the_hub() -> None:
    text = model_card(described(), repo="me/net", license="mit")
    card = ModelCard(text)
    assert str(card) == text, "as the hub's client writes it"
    assert card.data.library_name == "stresnet"
    assert card.data.pipeline_tag == "video-classification"
    assert card.data.license == "mit"
    assert {"action-recognition", "st-resnet"} <= set(card.data.tags)
    assert card.data.metrics == ["accuracy"]
    assert card.data.model_name == "ST-ResNet*-26 trained on park|1"
    found = [(r.dataset_name, r.dataset_split, r.metric_name, r.metric_value) for r in card.data.eval_results]
    assert found == [
        ("park|1", "test", "top-1 accuracy, dense25", 0.8125),
        ("park|1", "test", "mean class accuracy, dense25", 0.8),
        ("park|1", "test", "top-1 accuracy, center", 0.75),
        ("park|1", "test", "mean class accuracy, center", 0.8),
    ]


def test_a_card_for_people() -> None:
    card = model_card(described(), repo="me/net")
    assert "\n# ST-ResNet\\*-26 trained on park\\|1\n" in card
    assert 'from_pretrained("me/net")' in section(card, "Use")
    assert "stresnet predict model.safetensors" in section(card, "Use")
    network = section(card, "Network")
    assert "| Motion | ResNet-26 over stacks of 10 optical-flow fields |" in network
    assert "| Link | motion to appearance, added where" in network
    assert "span three time steps, in conv2, conv3, conv4, conv5 |" in network
    assert "| Pool | max over 5 time steps, stride 2, before the classifier |" in network
    assert section(card, "Actions") == "TurnLeft, wave\\_hand, jump."
    assert section(card, "Training").splitlines()[2:] == [
        "| Videos | 132 of park\\|1 |",
        "| Held out | anna, ben |",
        "| Recipe | own\\_recipe: motion, then both |",
        "| This stage | both, 3120 steps, 12.3 minutes |",
        "| Frames | short side 128 px, crops of 112 px |",
        "| Flow | tvl1 (default), clipped at ±20 px |",
        "| Software | stresnet 0.1.0 |",
    ]
    scores = section(card, "Scores")
    assert "| 48 of park\\|1, test | dense25 | 81.2 (68.8 – 91.7) | 80.0 (67.0 – 90.0) |" in scores
    assert scores.endswith("As far as names tell, none of these videos was trained on.")
    limits = section(card, "Limits")
    for limit in ("do not trust it on TurnLeft", "at least 11 frames", "132 videos, 44 an action", "±12 points"):
        assert limit in limits
    assert section(card, "Licence") == "The authors of these weights have not named one here."
    assert "\nlicense:" not in card
    assert "1611.02155" in section(card, "Citation")


def test_a_card_of_a_model_of_which_little_is_known() -> None:
    source = {"source": "net_1.mat", "sha256": "ab" * 32}
    card = model_card(
        described(scores=(), training=source, recipe={}, store_spec={}, test_groups=(), stage="", version="")
    )
    assert "model-index" not in card
    assert "# ST-ResNet\\*-26\n" in card
    assert section(card, "Scores") == "Not evaluated: this checkpoint holds no scores."
    assert section(card, "Training").splitlines()[2:] == [
        "| Videos | unknown |",
        "| Recipe | unknown |",
        f"| Converted from | net\\_1.mat, SHA-256 {'ab' * 32} |",
        "| Flow | unknown |",
    ]
    assert "learnt from" not in section(card, "Limits")
    assert str(ModelCard(card)) == card


def test_limits_follow_the_description() -> None:
    unmirrored = described(preprocessing=Preprocessing(mirror=False), scores=(SCORE | {"top1": [0.9] * 3},))
    limits = section(model_card(unmirrored), "Limits")
    assert "left from right" not in limits
    assert "uncertain" not in limits
    neutral = section(model_card(described(classes=("Cleft", "upright bow", "copyrighting"))), "Limits")
    assert "it cannot tell left from right." in neutral
    sided = described(classes=("wave right", "turn_clockwise", "spinCounterclockwise"))
    assert "do not trust it on wave right, turn\\_clockwise, spinCounterclockwise." in model_card(sided)
    trained_on = model_card(described(scores=(SCORE, SCORE | {"split": "train"})))
    assert "As far as names tell, but for split train, none" in trained_on


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"link": None, "temporal": None}, "| Link | none; the logits of the streams are averaged |"),
        ({"link": None, "streams": ("motion",)}, "| Motion | ResNet-26 over stacks of 10 optical-flow fields |"),
        ({"link": "multiply", "temporal": "inject"}, "| Over time | a further convolution in second units spans"),
        ({"link_direction": "both", "link_scale": 0.1}, "each stream to the other, added where the residual branch"),
        (
            {"motion_temporal_layers": (2, 5)},
            "in conv2, conv3, conv4, conv5 of appearance and conv2, conv5 of motion |",
        ),
        ({"motion_depth": 50}, "| Motion | ResNet-50 over"),
    ],
)
def test_a_network_in_words(changes: dict[str, Any], expected: str) -> None:
    config = STResNetConfig(num_classes=3, depth=26, width=0.0625).replace(**changes)
    card = model_card(described(model=STResNet(config).eval()))
    assert expected in section(card, "Network")
    assert ("Multiplier" in section(card, "Citation")) is (config.link == "multiply")
    assert ("Flow has to be computed" in card) is ("motion" in config.streams)


def test_names_cannot_break_the_card() -> None:
    classes = ("a|b", "--- x", "*bold*\n# heading")
    card = model_card(described(classes=classes, training={"store": "a: b\n---\n# c", "videos": 3}, scores=()))
    assert ModelCard(card).data.library_name == "stresnet"
    assert card.count("\n# ") == 1
    assert "a\\|b, --- x, \\*bold\\* # heading." in card
    many = model_card(
        described(
            classes=tuple(f"c{k}" for k in range(101)),
            model=STResNet(STResNetConfig(num_classes=101, depth=26, width=0.0625)),
        )
    )
    assert section(many, "Actions").endswith("c11 and 89 more; config.json names them all.")


def test_evaluation_fills_the_card(run: Run, store: Store, tmp_path: Path) -> None:
    own = tmp_path / "run"
    shutil.copytree(run.folder, own)
    evaluate(own, store, tmp_path / "report", examples=1)
    recognizer = Recognizer(own / "model.safetensors")
    (score,) = recognizer.checkpoint.scores
    assert score["store"] == "Vidéos à moi [1]"
    card = str(recognizer.generate_model_card())
    assert f"| {score['videos']} of Vidéos à moi \\[1\\], test | dense25 | " in card
    assert "trained on Vidéos à moi [1]\n" in card.split("---")[1]
