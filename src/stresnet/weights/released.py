"""The authors' released networks, and the ImageNet networks they started from, by short names.

The list is `released.yaml`. The file names of ST-ResNet and ST-MulNet are put together as the authors' public MATLAB
scripts do it; whether their server has each of them has not been confirmed (users reported in 2017 and 2018 that the
folders were out of reach), hence the second candidates, and mirrors. Nobody has published digests of these files: the
one found at the first download is remembered in the cache, and every later download is compared with it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, AnyUrl, BaseModel, ConfigDict, Field

from stresnet.atomic import replacing
from stresnet.errors import DownloadError
from stresnet.weights.checksum import normalized, sha256_of
from stresnet.weights.download import Progress, UnreachableError
from stresnet.weights.fetch import cache_folder, cached, fetch, is_remote, local
from stresnet.weights.opening import require_host

Dataset = Literal["ucf101", "hmdb51", "imagenet"]

CLASSES: dict[Dataset, int] = {"ucf101": 101, "hmdb51": 51, "imagenet": 1000}
SPLITS: dict[Dataset, tuple[int | None, ...]] = {"ucf101": (1, 2, 3), "hmdb51": (1, 2, 3), "imagenet": (None,)}
TOP1_OF: dict[Dataset, str] = {
    "ucf101": "mean of three splits",
    "hmdb51": "mean of three splits",
    "imagenet": "validation images, one centred crop",
}
MIRRORED = "/feichtenhofer/"
"""What of a URL comes after this is where a mirror has it too."""


class Release(BaseModel):
    """A published file of weights.

    Attributes:
        name: the short name.
        title: what it is.
        dataset: what it was trained on.
        split: the official split; None for ImageNet.
        classes: that it tells apart.
        urls: where it may be, to be tried in turn.
        sha256: its digest or the beginning of it; "" where nobody has published one.
        md5: published digests of that kind, of any of which it may be; mostly none.
        megabytes: its size, 10^6 bytes; None where unknown.
        source: where the file's name and its facts are from.
        top1: published top-1 accuracy in %; None where unpublished.
        top1_of: what that is the accuracy of: this very file's only for ImageNet.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    dataset: Dataset
    split: int | None
    classes: int
    urls: tuple[str, ...] = Field(min_length=1)
    sha256: str
    md5: tuple[str, ...]
    megabytes: float | None
    source: str
    top1: float | None
    top1_of: str

    @property
    def fetched(self) -> Path | None:
        """Its file, if it is here already."""
        known = _Memory.read(self.name)
        places = [known.file if known else None, *map(cached, self.urls)]
        return next((place for place in places if place and place.is_file()), None)


def _folder(url: AnyUrl) -> str:
    if not str(url).endswith("/"):
        raise ValueError("must end in /")
    return str(url)


class _Template(BaseModel):
    """An entry of the list: releases that differ in data set, split and depth."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    datasets: tuple[Dataset, ...] = Field(min_length=1)
    depths: tuple[int, ...] = (50,)
    folder: Annotated[AnyUrl, AfterValidator(_folder)]
    files: tuple[str, ...] = Field(min_length=1)
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{8,64})?$")
    md5: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")], ...] = ()
    megabytes: float | None = Field(default=None, gt=0)
    top1: dict[Dataset, Annotated[float, Field(gt=0, lt=100)]] = {}
    source: str

    def releases(self) -> Iterator[Release]:
        """Each of them."""
        for depth, dataset in product(self.depths, self.datasets):
            for split in SPLITS[dataset]:
                fill = {"dataset": dataset, "split": split, "depth": depth}
                yield Release(
                    name=self.name.format(**fill),
                    title=self.title.format(**fill),
                    dataset=dataset,
                    split=split,
                    classes=CLASSES[dataset],
                    urls=tuple(f"{self.folder}{file.format(**fill)}" for file in self.files),
                    sha256=self.sha256,
                    md5=self.md5,
                    megabytes=self.megabytes,
                    source=self.source,
                    top1=self.top1.get(dataset),
                    top1_of=TOP1_OF[dataset] if dataset in self.top1 else "",
                )


@cache
def releases() -> tuple[Release, ...]:
    """All released files, in the order of the list."""
    text = resources.files("stresnet.weights").joinpath("released.yaml").read_text("utf-8")
    found = tuple(r for values in yaml.safe_load(text) for r in _Template.model_validate(values).releases())
    if len({r.name for r in found}) != len(found):
        raise ValueError("released.yaml: a name stands for two files")
    return found


def release(name: str) -> Release:
    """The release of a short name.

    Raises:
        DownloadError: there is none; the message names those that look like it.
    """
    named = {r.name: r for r in releases()}
    if name not in named:
        close = get_close_matches(name.lower(), named, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "`stresnet weights list` names them all"
        if "/" in name or "." in name:
            hint += "; of a file or an address, `stresnet convert` makes a model"
        raise DownloadError(f"no released weights are called {name!r}; {hint}")
    return named[name]


def get_released(name: str, *, mirrors: Sequence[str] = (), sha256: str = "", progress: Progress | None = None) -> Path:
    """The local copy of a released file, fetched if it is not here.

    A copy in the cache is taken before anything else; then the mirrors are tried in turn, those of $STRESNET_MIRRORS
    (separated by commas) after the given ones; then the places where it was published.

    Args:
        name: its short name.
        mirrors: folders, which must be there, or base URLs. The path that the authors' server has below
            `feichtenhofer/` is looked for there, then the file's bare name; of one on the hub, owner/name/file.
        sha256: its digest or 8 or more of its first digits, which then decides alone; default: the published one, else
            the one found at the first download.
        progress: told bytes done, and bytes in all (0 where unknown).

    Raises:
        DownloadError: a mirror is no folder, nobody has the file, or it is not the one it was; UnreachableError if no
            server answers.
    """
    wanted = release(name)
    for mirror in mirrors:
        _require_mirror(mirror)
    seen = _Memory.read(name)
    bases = [*mirrors, *(m.strip() for m in os.environ.get("STRESNET_MIRRORS", "").split(",") if m.strip())]
    expected = normalized(sha256) or wanted.sha256 or (seen.sha256 if seen else "")
    try:
        path = _first_of(wanted, bases, expected, progress)
    except DownloadError as error:
        if not seen or expected != seen.sha256 or isinstance(error, UnreachableError):
            raise
        raise DownloadError(
            f"{error} (the digest is that of its first download, kept in {_Memory.place(name)})"
        ) from None
    if wanted.md5 and not sha256 and not seen:
        _check_md5(path, wanted)
    if (now := _Memory(path, sha256_of(path))) != seen:
        now.write(name)
    return path


def _require_mirror(base: str) -> None:
    """Raise a DownloadError where a mirror is no folder here and no address."""
    if not (folder := _folder_of(base)):
        return require_host(base)
    if folder.is_file():
        raise DownloadError(
            f"mirror {base}: expected a folder or base URL, found a file; make a model of it with `stresnet convert`"
        )
    if not base or not folder.is_dir():
        raise DownloadError(f"mirror {base!r}: expected a folder or base URL, found no such folder; check its name")


def forget(name: str) -> None:
    """Forget the digest and place of a release's file: what came was not it."""
    _Memory.place(name).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Memory:
    """What the cache remembers of a release: where its file is, wherever it came from, and its digest."""

    file: Path
    sha256: str

    @staticmethod
    def place(name: str) -> Path:
        return cache_folder() / "released" / f"{name}.json"

    @classmethod
    def read(cls, name: str) -> _Memory | None:
        try:
            values = json.loads(cls.place(name).read_text("utf-8"))
            return cls(Path(values["file"]), str(values["sha256"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, name: str) -> None:
        self.place(name).parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.place(name)) as temporary:
            temporary.write_text(json.dumps({"file": str(self.file.absolute()), "sha256": self.sha256}), "utf-8")


def _folder_of(base: str) -> Path | None:
    """The folder that a mirror is, there or not; None of a server. Here owner/name is a path, as there it is none."""
    return None if "://" in base and is_remote(base) else local(os.path.expanduser(base))


def _mirrored_name(url: str) -> str:
    """A file's bare name; of one on the hub, where many have the same, owner/name/file."""
    return url.removeprefix("hf://") if url.startswith("hf://") else url.rpartition("/")[2]


def _in_mirror(wanted: Release, base: str) -> list[str]:
    """Where in a mirror a file may be."""
    tails: list[str] = []
    for url in wanted.urls:
        tails += [tail for tail in (url.partition(MIRRORED)[2], _mirrored_name(url)) if tail]
    return [f"{_folder_of(base) or base.rstrip('/')}/{tail}" for tail in dict.fromkeys(tails)]


def _first_of(wanted: Release, bases: Sequence[str], expected: str, progress: Progress | None) -> Path:
    """The file from the first place that has it: the cache, the mirrors in turn, where it was published."""
    failed: list[DownloadError] = []
    silent: set[str] = set()
    lacking: list[str] = []
    places = [str(wanted.fetched)] if wanted.fetched else []
    for base in bases:
        there = _in_mirror(wanted, base)
        if (folder := _folder_of(base)) and not (there := [place for place in there if Path(place).is_file()]):
            names = " or ".join(dict.fromkeys(map(_mirrored_name, wanted.urls)))
            lacking.append(f"mirror {base}: {f'no {names} in it' if folder.is_dir() else 'no such folder'}")
        places += there
    for place in dict.fromkeys([*places, *wanted.urls]):
        host = urlsplit(place).netloc if is_remote(place) else ""
        if host in silent:
            continue
        try:
            return fetch(place, sha256=expected, progress=progress)
        except DownloadError as error:
            failed.append(error)
            if isinstance(error, UnreachableError):
                silent.add(host)
    kind = UnreachableError if all(isinstance(e, UnreachableError) for e in failed) else DownloadError
    reasons = "; ".join(dict.fromkeys([*lacking, *map(str, failed)]))
    raise kind(f"{wanted.name}: {reasons}; a folder or server that has the file can be given as a mirror")


def _check_md5(path: Path, wanted: Release) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found not in wanted.md5:
        raise DownloadError(
            f"{path}: expected MD5 {' or '.join(wanted.md5)} as published, found {found}; "
            f"if you know that it is right, give its sha256, {sha256_of(path)}"
        )
