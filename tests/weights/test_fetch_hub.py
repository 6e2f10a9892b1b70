"""Fetching from the Hugging Face hub, over real sockets."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.fetching import DATA, OTHER, SHA256, fetch_error
from helpers.web import COMMIT, Web, use_as_hub, web_server
from stresnet.errors import UnreachableError
from stresnet.weights.fetch import fetch

pytestmark = pytest.mark.usefixtures("isolated")


@pytest.fixture
def hub(web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Web]:
    """Return the server as the hub, with an empty cache."""
    import huggingface_hub

    use_as_hub(web.url, monkeypatch, tmp_path / "hub")
    yield web
    huggingface_hub.close_session()


def test_weights_of_a_repository(hub: Web, tmp_path: Path) -> None:
    hub.put_repo("timm/resnet50.tv_in1k", {"model.safetensors": DATA, "pytorch_model.bin": OTHER, "README.md": b"#"})
    seen: list[tuple[str, int, int]] = []
    path = fetch("timm/resnet50.tv_in1k", progress=lambda *now: seen.append(now))
    assert (path.name, path.read_bytes()) == ("model.safetensors", DATA)
    assert path.is_relative_to(tmp_path / "hub")
    assert seen[-1] == ("downloading timm/resnet50.tv_in1k (MB)", 3, 3)
    assert fetch("hf://timm/resnet50.tv_in1k", sha256=SHA256) == path
    assert [a.path for a in hub.asked if a.method == "GET" and "resolve" in a.path] == [
        "/timm/resnet50.tv_in1k/resolve/main/model.safetensors"
    ]


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["a.safetensors", "pytorch_model.bin", "other.bin"], "a.safetensors"),
        (["a.safetensors", "b.safetensors", "pytorch_model.bin"], "pytorch_model.bin"),
        (["pytorch_model.bin", "x.pth"], "pytorch_model.bin"),
        (["sub/net.mat", "config.json"], "sub/net.mat"),
    ],
)
def test_choice_of_a_file_of_weights(hub: Web, files: list[str], chosen: str) -> None:
    hub.put_repo("me/net", {f: f.encode() for f in files})
    assert fetch("me/net").read_bytes() == chosen.encode()


def test_file_and_revision(hub: Web) -> None:
    hub.put_repo("me/net", {"sub/a.pth": b"new", "b.pth": b"b"})
    hub.put_repo("me/net", {"sub/a.pth": b"old"}, revision="v1", commit="f" * 40)
    assert fetch("hf://me/net/sub/a.pth").read_bytes() == b"new"
    assert fetch("hf://me/net/sub/a.pth@v1").read_bytes() == b"old"
    assert fetch("hf://me/net@v1/sub/a.pth").read_bytes() == b"old"
    assert fetch("me/net@v1").read_bytes() == b"old"


def test_hub_errors(hub: Web) -> None:
    hub.put_repo("me/two", {"a.pth": b"a", "b.pth": b"b"})
    hub.put_repo("me/none", {"README.md": b"#"})
    one_of = "me/two: expected one file of weights, found a.pth, b.pth: choose one, such as hf://me/two/a.pth"
    assert fetch_error("me/two") == one_of
    assert fetch_error("me/none") == "me/none: expected one file of weights, found none"
    assert fetch_error("hf://me/two/c.pth") == "me/two has no c.pth; its files of weights: a.pth, b.pth"
    assert fetch_error("hf://me") == "hf://me: expected hf://owner/name[/file][@revision]"
    assert fetch_error("hf://me/t--o").startswith("me/t--o: not a folder, and not a name on the hub: expected")

    def answer(path: str, status: int, code: str) -> None:
        hub.put(path, b"{}", status=status)
        hub.pages[path].headers = {"X-Error-Code": code}

    answer("/api/models/me/gone", 401, "RepoNotFound")
    line = fetch_error("me/gone")
    assert line.startswith("me/gone: not found on the hub, or private (401): check the name, or log in")
    answer("/api/models/me/two/revision/v9", 404, "RevisionNotFound")
    assert (
        fetch_error("me/two@v9")
        == "me/two: the repository has no revision v9: choose one of its branches, tags or commits"
    )
    hub.put_repo("me/gated", {"model.safetensors": DATA})
    answer("/me/gated/resolve/main/model.safetensors", 403, "GatedRepo")
    line = fetch_error("me/gated")
    assert line.startswith(
        f"me/gated: access to the repository is gated: accept its terms at {hub.url}/me/gated, then log"
    )
    assert "hf auth login" in line
    answer("/api/models/me/secret", 403, "")
    assert fetch_error("me/secret").startswith("me/secret: the hub denies access (403): log in with")
    answer("/api/models/me/odd", 418, "")
    assert fetch_error("me/odd").startswith("me/odd: the hub answers with status 418: ")


def test_cached_copy_is_used_without_a_network(hub: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put_repo("me/net", {"only.safetensors": DATA})
    path = fetch("me/net")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    assert fetch("me/net") == fetch("hf://me/net/only.safetensors") == fetch(f"me/net@{COMMIT}") == path
    unreachable = f"the hub at {hub.url} cannot be reached, and the file is not in the cache: check the network and"
    assert fetch_error("me/other").startswith(f"me/other: {unreachable}")
    assert fetch_error("hf://me/net/b.pth").startswith(f"me/net/b.pth: {unreachable}")
    assert len(hub.asked) == asked
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hub.pages["/api/models/me/net"].status = 503
    assert fetch("me/net") == path
    hub.put("/api/models/me/other", b"", status=503)
    assert fetch_error("me/other").startswith(f"me/other: {unreachable}")
    with web_server() as gone:
        use_as_hub(gone.url, monkeypatch)
    assert fetch("me/net") == path
    began = time.perf_counter()
    with pytest.raises(UnreachableError) as caught:
        fetch("me/other")
    assert time.perf_counter() - began < 10  # the hub's client alone would try for 23 s
    assert str(caught.value).startswith(f"me/other: the hub at {gone.url} cannot be reached")


def test_digest_on_the_hub(hub: Web) -> None:
    hub.put_repo("me/net", {"model.safetensors": DATA, "net-0676ba61.pth": DATA})
    path = fetch("me/net", sha256=SHA256[:16])
    blob = path.resolve()
    assert fetch_error("me/net", sha256="0" * 64) == f"me/net: expected sha256 {'0' * 64}, found {SHA256}"
    assert not path.exists()
    assert not blob.exists()
    assert fetch_error("hf://me/net/net-0676ba61.pth").startswith(
        f"hf://me/net/net-0676ba61.pth: expected sha256 0676ba61, found {SHA256[:16]}"
    )
    assert fetch("me/net").read_bytes() == DATA


def test_full_disk_of_the_hub_cache(hub: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    hub.put_repo("me/net", {"model.safetensors": DATA})
    monkeypatch.setattr("huggingface_hub.HfApi.hf_hub_download", full)
    assert fetch_error("me/net") == "me/net: no space left on the disk: free some, or set HF_HOME to a folder with more"
