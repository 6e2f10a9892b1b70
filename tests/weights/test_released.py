"""Released weights: the list, mirrors and digests, and the commands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError

import stresnet.weights.released
from helpers.tiny import Command, one_line
from helpers.web import Web, use_as_hub, web_server
from stresnet.errors import DownloadError, UnreachableError
from stresnet.weights.released import Release, _Template, get_released, release, releases

ST_RES = "/pub/feichtenhofer/st-res"
STAR = "st-resnet-star-ucf101-1"
STAR_FILE = f"{ST_RES}/stage2/ucf101ST-ResNet50-final-split=1.mat"
DATA = b"weights" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Web]:
    """Return a server that all releases are on; the cache and the working folder are temporary."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("STRESNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("STRESNET_MIRRORS", raising=False)
    monkeypatch.setattr("stresnet.weights.fetch.WAIT_SEC", 0.0)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with web_server() as server:
        move(server.url, monkeypatch)
        yield server


def move(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Move all releases to another server."""
    here = tuple(r.model_copy(update={"urls": tuple(base + urlsplit(u).path for u in r.urls)}) for r in LISTED)
    monkeypatch.setattr(stresnet.weights.released, "releases", lambda: here)


LISTED = releases()


def get_error(name: str, **options: object) -> str:
    """Return the one-line error of getting a release."""
    with pytest.raises(DownloadError) as caught:
        get_released(name, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_list() -> None:
    assert len(LISTED) == 66
    assert len({r.name for r in LISTED}) == 66
    assert sum(r.dataset == "imagenet" for r in LISTED) == 6
    named = {r.name: r for r in LISTED}
    star = named["st-resnet-star-hmdb51-3"]
    assert (star.dataset, star.split, star.classes, star.top1, star.top1_of) == ("hmdb51", 3, 51, None, "")
    star = named["st-resnet-star-ucf101-3"]
    assert (star.classes, star.top1, star.top1_of) == (101, 93.4, "mean of three splits")
    assert star.sha256 == ""
    for r in LISTED:
        assert r.urls[0].startswith(("http://ftp.tugraz.at/pub/feichtenhofer/st-", "http://www.vlfeat", "hf://timm/"))
        assert {"ucf101": 101, "hmdb51": 51, "imagenet": 1000}[r.dataset] == r.classes
        assert not any(c in url for c in "{} " for url in r.urls)
        assert (r.top1 is None) == (r.top1_of == "")
        assert r.name == f"{r.name.removesuffix(f'-{r.split}')}" + (f"-{r.split}" if r.split else "")


@pytest.mark.parametrize(
    ("name", "files"),
    [  # composed by hand from the authors' scripts
        ("appearance-ucf101-1", ["st-res/ts-base/ucf101-img-resnet50-split1-dr0.mat"]),
        (
            "motion-hmdb51-2",
            [
                "st-res/ts-base/hmdb51-resnet50-split2-dr0.8.mat",
                "st-res/ts-base/hmdb51-flow-resnet50-split2-dr0.8.mat",
            ],
        ),
        ("st-resnet-ucf101-3", ["st-res/stage1/ucf101-ST-ResNet50-split=3.mat"]),
        (
            "st-resnet-star-ucf101-1",
            [
                "st-res/stage2/ucf101ST-ResNet50-final-split=1.mat",
                "st-res/stage2/ucf101-ST-ResNet50-final-split=1.mat",
            ],
        ),
        ("st-mulnet-appearance-152-ucf101-1", ["st-mul/ts-base/ucf101-img-resnet152-split1-dr0.mat"]),
        ("st-mulnet-motion-50-ucf101-1", ["st-mul/ts-base/ucf101-flow-resnet50-split1-dr0.8.mat"]),
        ("st-mulnet-motion-152-ucf101-1", ["st-mul/ts-base/ucf101-flow-resnet152-split1-dr0.8.mat"]),
        ("st-mulnet-motion-152-hmdb51-1", ["st-mul/ts-base/hmdb51-flow-resnet152-split1-dr0.9.mat"]),
        (
            "st-mulnet-ucf101-1",
            [
                "st-mul/final/ucf101ST-MulNet-img50-flow152-split=1.mat",
                "st-mul/final/ucf101-ST-MulNet-img50-flow152-split=1.mat",
            ],
        ),
    ],
)
def test_file_names(name: str, files: list[str]) -> None:
    assert list(release(name).urls) == [f"http://ftp.tugraz.at/pub/feichtenhofer/{file}" for file in files]


def test_unknown_names() -> None:
    line = "there are no released weights named 'st-resnet-ucf101': did you mean st-resnet-ucf101-3 or"
    with pytest.raises(DownloadError, match=line):
        release("st-resnet-ucf101")
    with pytest.raises(DownloadError, match=r"'Zebra': `stresnet weights list` lists them all$"):
        release("Zebra")
    for name in ("https://x.org/a.mat", "released.mat"):
        with pytest.raises(DownloadError, match=r"; for a file or a URL, use `stresnet convert`$"):
            release(name)


@pytest.mark.parametrize(
    "wrong",
    [{"datasets": ["kinetics"]}, {"folder": "http://x.org/a"}, {"files": []}, {"sha256": "xyz"}, {"colour": 1}],
)
def test_invalid_entries_of_the_list(wrong: dict[str, object]) -> None:
    good = {"name": "a", "title": "A", "datasets": ["imagenet"], "folder": "http://x.org/", "files": ["a"]}
    values = {**good, "source": "here"}
    assert [r.name for r in _Template.model_validate(values).releases()] == ["a"]
    with pytest.raises(ValidationError):
        _Template.model_validate({**values, **wrong})


# ---------------------------------------------------------------- getting one


def test_candidates_are_tried_in_turn(web: Web) -> None:
    dashed = STAR_FILE.replace("ucf101ST", "ucf101-ST")
    web.put(dashed, DATA)
    assert release(STAR).fetched is None
    path = get_released(STAR)
    assert path.read_bytes() == DATA
    assert list(dict.fromkeys(a.path for a in web.asked)) == [STAR_FILE, dashed]
    assert release(STAR).fetched == path
    web.pages.clear()
    asked = len(web.asked)
    assert get_released(STAR) == path  # the first candidate is not requested again
    assert len(web.asked) == asked


def test_file_that_no_server_has(web: Web) -> None:
    line = get_error(STAR)
    assert line.startswith(f"{STAR}: {web.url}{STAR_FILE}: no such file on the server: check the address; ")
    assert line.count("no such file on the server") == 2
    assert line.endswith("if you have the file, give its folder with --mirror")


def test_unreachable_server_is_tried_once(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server() as gone:
        move(gone.url, monkeypatch)
    with pytest.raises(UnreachableError) as caught:
        get_released(STAR)
    assert str(caught.value).count("cannot be reached") == 1


def test_mirrors_come_first(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "Spiegel [1]"
    name = STAR_FILE.rpartition("/")[2]
    url = web.put(f"/mirror/st-res/stage2/{name}", DATA)
    folder.mkdir()
    path = get_released(STAR, mirrors=[str(folder), f"{web.url}/mirror/"])
    assert path.read_bytes() == DATA
    assert {a.path for a in web.asked} == {urlsplit(url).path}
    asked = len(web.asked)
    assert get_released(STAR) == path  # from the cache
    motion = release("motion-ucf101-1").urls[0].rpartition("/")[2]
    (folder / motion).write_bytes(DATA)
    monkeypatch.setenv("STRESNET_MIRRORS", f" {web.url}/none , {folder},")
    assert get_released("motion-ucf101-1") == folder / motion
    paths = list(dict.fromkeys(a.path for a in web.asked[asked:]))
    assert paths == [  # each candidate, in its folder and by its bare name
        f"/none/st-res/ts-base/{motion}",
        f"/none/{motion}",
        f"/none/st-res/ts-base/{motion.replace('101-', '101-flow-')}",
        f"/none/{motion.replace('101-', '101-flow-')}",
    ]
    below = folder / "st-res" / "ts-base" / "ucf101-img-resnet50-split1-dr0.mat"
    below.parent.mkdir(parents=True)
    below.write_bytes(DATA)
    assert get_released("appearance-ucf101-1") == below


def test_invalid_mirrors(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web.put(STAR_FILE, DATA)
    (tmp_path / "file").write_bytes(DATA)
    line = "expected a folder or base URL, found no such folder: check its name"
    assert get_error(STAR, mirrors=["no/folder"]) == f"mirror 'no/folder': {line}"
    assert get_error(STAR, mirrors=["owner/name"]) == f"mirror 'owner/name': {line}"  # not a hub name here
    assert get_error(STAR, mirrors=[""]) == f"mirror '': {line}"
    assert "expected a folder or base URL, found a file" in get_error(STAR, mirrors=[str(tmp_path / "file")])
    assert get_error(STAR, sha256="xyz") == "sha256: expected 8 to 64 hex digits, found 'xyz'"
    assert not web.asked
    monkeypatch.setenv("STRESNET_MIRRORS", "no/folder")  # it may be a disk that is not always mounted
    assert get_released(STAR).read_bytes() == DATA


def test_mirror_of_a_hub_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the hub all weights are called model.safetensors, so the folder identifies them."""
    monkeypatch.setenv("STRESNET_CACHE", str(tmp_path / "cache"))
    use_as_hub("http://127.0.0.1:9", monkeypatch, tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "model.safetensors").write_bytes(DATA)
    line = get_error("torchvision-resnet-50", mirrors=[str(tmp_path)])
    place = release("torchvision-resnet-50").urls[0].removeprefix("hf://")
    assert f"mirror {tmp_path}: has no {place}; " in line
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_bytes(DATA)
    assert get_released("torchvision-resnet-50", mirrors=[str(tmp_path)]) == tmp_path / place


def test_error_lists_the_mirrors(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, name = tmp_path / "mirror", STAR_FILE.rpartition("/")[2]
    folder.mkdir()
    monkeypatch.setenv("STRESNET_MIRRORS", "no/folder")
    line = get_error(STAR, mirrors=[str(folder), f"{web.url}/mirror"])
    assert line.startswith(
        f"{STAR}: mirror {folder}: has no {name} or {name.replace('101', '101-')}; mirror no/folder: "
    )
    assert (
        f"mirror no/folder: no such folder; {web.url}/mirror/st-res/stage2/{name}: no such file on the server" in line
    )
    with web_server() as gone:
        move(gone.url, monkeypatch)
    with pytest.raises(UnreachableError, match=r"mirror no/folder: no such folder; .*cannot be reached \("):
        get_released(STAR)


def test_first_digest_is_recorded(web: Web) -> None:
    web.put(STAR_FILE, DATA)
    path = get_released(STAR)
    path.unlink()
    other = b"other" + DATA
    web.put(STAR_FILE, other)
    found = hashlib.sha256(other).hexdigest()
    line = get_error(STAR)
    assert f"expected sha256 {SHA256}, found {found}" in line
    assert line.endswith(f"(the expected digest is that of the first download, see {record_of(STAR)})")
    assert not path.exists()
    assert get_released(STAR, sha256=found).read_bytes() == other  # an explicit digest takes precedence
    path.unlink()
    assert get_released(STAR).read_bytes() == other


def record_of(name: str) -> Path:
    return stresnet.weights.released._Record.place(name)


def test_damaged_record_is_ignored(web: Web) -> None:
    web.put(STAR_FILE, DATA)
    path = get_released(STAR)
    record_of(STAR).write_text("[]")
    assert release(STAR).fetched == path
    assert get_released(STAR) == path
    assert json.loads(record_of(STAR).read_text()) == {"file": str(path), "sha256": SHA256}


def test_published_digests(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.put("/resnet50.tv_in1k/model.safetensors", DATA)
    known = tuple(r.model_copy(update={"sha256": "0676ba61"}) for r in stresnet.weights.released.releases())
    with monkeypatch.context() as patched:
        patched.setattr(stresnet.weights.released, "releases", lambda: known)
        assert "expected sha256 0676ba61, found" in get_error("torchvision-resnet-50")
    web.put("/matconvnet/models/imagenet-resnet-50-dag.mat", DATA)
    published = release("imagenet-resnet-50").md5
    found = hashlib.md5(DATA).hexdigest()
    line = get_error("imagenet-resnet-50")
    assert f"expected the published MD5 {published[0]} or {published[1]}, found {found}; if you are sure" in line
    assert line.endswith(f"give its sha256, {SHA256}")
    assert get_error("imagenet-resnet-50") == line  # it was not recorded
    right = tuple(r.model_copy(update={"md5": (*r.md5, found)}) for r in stresnet.weights.released.releases())
    with monkeypatch.context() as patched:
        patched.setattr(stresnet.weights.released, "releases", lambda: right)
        assert get_released("imagenet-resnet-50").read_bytes() == DATA
    record_of("imagenet-resnet-50").unlink()
    assert get_released("imagenet-resnet-50", sha256=SHA256[:8]).read_bytes() == DATA


# ---------------------------------------------------------------- the commands


def test_list(command: Command, web: Web) -> None:
    web.put(STAR_FILE, DATA)
    get_released(STAR)
    code, out, err = command("weights", "list")
    assert code == 0
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert len(lines) == 1 + 26
    assert lines["st-resnet-star-ucf101-N"] == ["ST-ResNet*", "ucf101", "93.4", "0", "1"]
    assert lines["st-resnet-ucf101-N"] == ["ST-ResNet", "ucf101"]
    assert lines["torchvision-resnet-101"] == ["torchvision's", "V1", "imagenet", "77.4"]
    assert "mean of three splits" in one_line(err)
    code, out, err = command("weights", "list", "--json")
    assert (code, err) == (0, "")
    rows = {row["name"]: row for row in json.loads(out)}
    assert len(rows) == 66
    assert rows[STAR]["fetched"] == str(release(STAR).fetched)
    assert rows["motion-ucf101-1"]["fetched"] is None
    assert set(rows[STAR]) == {*Release.model_fields, "fetched"}


def test_get_a_released_network(command: Command, web: Web, tmp_path: Path) -> None:
    from helpers import dagnn_files, dagnn_surgery
    from stresnet.model import load_checkpoint

    streams = dagnn_surgery.appearance(26, 4, 101), dagnn_surgery.motion(26, 4, 101)
    net = dagnn_surgery.pool_time(dagnn_surgery.st_resnet(*streams))
    data = dagnn_files.write(tmp_path / "net.mat", net, nested=True).read_bytes()
    web.put(STAR_FILE, data)
    names = tmp_path / "classInd.txt"
    names.write_text("".join(f"{k} action {k}\n" for k in range(1, 102)))
    code, out, err = command("weights", "get", STAR, "--classes", names)
    assert code == 0, err
    lines = err.splitlines()
    assert lines[0].startswith("downloading ucf101ST-ResNet50-final-split=1.mat (MB): 0/")
    digest = hashlib.sha256(data).hexdigest()
    assert lines[-1].startswith(
        f"{release(STAR).fetched}: {len(data) / 1e6:.1f} MB, sha256 {digest}; no digest is published"
    )
    assert out.splitlines()[-1] == f"written: {STAR}.safetensors"
    found = load_checkpoint(Path(f"{STAR}.safetensors"))
    assert found.classes == tuple(f"action {k}" for k in range(1, 102))
    assert found.model.config.temporal_pool == (5, 2)
    code, out, err = command("weights", "get", STAR)
    assert (code, out) == (1, "")
    assert one_line(err).endswith(f"{STAR}.safetensors already exists; remove it, or name another file with --out")
    other = tmp_path / "new" / "b.safetensors"
    code, out, err = command("weights", "get", STAR, "--out", other, "--json")
    assert code == 0, err
    assert json.loads(out)["out"] == str(other)
    assert (json.loads(out)["sha256"], other.is_file()) == (digest, True)
    assert "no digest" not in one_line(err)  # its digest is recorded by now


def test_wrong_file_is_not_recorded(command: Command, web: Web, tmp_path: Path) -> None:
    from helpers import dagnn_files, dagnn_surgery

    streams = dagnn_surgery.appearance(26, 2, 51), dagnn_surgery.motion(26, 2, 51)
    wrong = dagnn_files.write(tmp_path / "wrong.mat", dagnn_surgery.st_resnet(*streams)).read_bytes()
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    file = mirror / STAR_FILE.rpartition("/")[2]
    for content, said in ((wrong[:5000], "truncated"), (wrong, "has 51 classes, expected 101")):
        file.write_bytes(content)
        code, _, err = command("weights", "get", STAR, "--mirror", mirror)
        assert code == 1
        assert said in err.splitlines()[-1]
        assert not Path(f"{STAR}.safetensors").exists()
    streams = dagnn_surgery.appearance(26, 2, 101), dagnn_surgery.motion(26, 2, 101)
    dagnn_files.write(file, dagnn_surgery.st_resnet(*streams))
    code, _, err = command("weights", "get", STAR, "--mirror", mirror)
    assert code == 0, err


def test_output_errors_are_reported_before_the_download(command: Command, web: Web, tmp_path: Path) -> None:
    web.put(STAR_FILE, DATA)
    (tmp_path / "names.txt").write_text("1 one\n2 two\n")
    for options, said in (
        (["--out", "model.onnx"], "--out model.onnx: expected a file ending in .safetensors"),
        (["--out", "model.mat"], "--out model.mat: expected a file ending in .safetensors"),
        (["--out", tmp_path / "names.txt" / "m.safetensors"], "is not a folder"),
        (["--classes", tmp_path / "none.txt"], "none.txt cannot be read: No such file or directory"),
        (["--classes", tmp_path / "names.txt"], "names.txt has 2 class names, but the network has 101 classes"),
        (["--classes", "101"], "--classes 101: the network already has its classes: give a file of their names"),
    ):
        code, out, err = command("weights", "get", STAR, *options)
        assert (code, out) == (1, "")
        assert said in one_line(err)
    assert not web.asked


def test_get_errors(command: Command, web: Web, tmp_path: Path) -> None:
    assert command("weights", "get", "st-resnet")[:2] == (1, "")
    code, _, err = command("weights", "get", "torchvision-resnet-50")
    assert code == 2
    assert "torchvision-resnet-50 is an image network; give the class names with --classes" in one_line(err)
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "imagenet-resnet-50-dag.mat").write_bytes(DATA)
    code, _, err = command("weights", "get", "imagenet-resnet-50", "--classes", "5", "--mirror", tmp_path / "mirror")
    assert code == 1
    assert "imagenet-resnet-50-dag.mat: expected the published MD5" in one_line(err)
    assert not list(Path().iterdir())
    code, _, err = command(
        *("weights", "get", "imagenet-resnet-50", "--classes", "5"),
        *("--mirror", tmp_path / "mirror", "--sha256", SHA256),
    )
    assert code == 1
    assert err.splitlines()[-1].startswith("stresnet: ")  # the file is not a net
    assert not list(Path().iterdir())
