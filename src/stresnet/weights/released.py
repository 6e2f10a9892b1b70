"""Get the authors' released networks, and the ImageNet networks that they were trained from, by short names.

The list is `released.yaml`. The file names of ST-ResNet and ST-MulNet are composed as in the authors' public MATLAB
scripts. It has not been confirmed that their server has all of them (users reported in 2017 and 2018 that its folders
could not be reached), hence the alternative names and the mirrors. No digests of these files have been published: the
digest of the first download is recorded in the cache, and later downloads are compared with it.
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
from stresnet.errors import DownloadError, UnreachableError
from stresnet.progress import Progress
from stresnet.weights.digest import normalized, sha256_of
from stresnet.weights.fetch import cache_folder, cached, fetch
from stresnet.weights.names import is_remote, local_path

Dataset = Literal["ucf101", "hmdb51", "imagenet"]

CLASSES: dict[Dataset, int] = {"ucf101": 101, "hmdb51": 51, "imagenet": 1000}
SPLITS: dict[Dataset, tuple[int | None, ...]] = {"ucf101": (1, 2, 3), "hmdb51": (1, 2, 3), "imagenet": (None,)}
TOP1_OF: dict[Dataset, str] = {
    "ucf101": "mean of three splits",
    "hmdb51": "mean of three splits",
    "imagenet": "validation images, one centred crop",
}
MIRRORED = "/feichtenhofer/"
"""The path after this part of a URL is also the path on a mirror."""


class Release(BaseModel):
    """A published file of weights.

    Attributes:
        name: the short name.
        title: the network.
        dataset: the training data.
        split: the official split, 1 to 3; None for ImageNet.
        classes: number of classes.
        urls: candidate URLs, tried in turn.
        sha256: published digest, or a prefix of it; "" if there is none.
        md5: published MD5 digests, each accepted; mostly none.
        megabytes: size in 10^6 bytes; None if unknown.
        source: where these facts are from.
        top1: published top-1 accuracy in %; None if unpublished.
        top1_of: what `top1` was measured on; only for ImageNet is it the accuracy of this file.
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
        """The local file, or None if it has not been downloaded."""
        known = _Record.read(self.name)
        places = [known.file if known else None, *map(cached, self.urls)]
        return next((place for place in places if place and place.is_file()), None)


def _folder(url: AnyUrl) -> str:
    if not str(url).endswith("/"):
        raise ValueError("must end in /")
    return str(url)


class _Template(BaseModel):
    """An entry of the list, which stands for one release per data set, split and depth."""

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
        """Yield each release."""
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
    """Return all releases, in the order of the list."""
    text = resources.files("stresnet.weights").joinpath("released.yaml").read_text("utf-8")
    return tuple(r for values in yaml.safe_load(text) for r in _Template.model_validate(values).releases())


def release(name: str) -> Release:
    """Return the release with a short name.

    Raises:
        DownloadError: there is none; the message suggests similar names.
    """
    named = {r.name: r for r in releases()}
    if name not in named:
        close = get_close_matches(name.lower(), named, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "`stresnet weights list` lists them all"
        if "/" in name or "." in name:
            hint += "; for a file or a URL, use `stresnet convert`"
        raise DownloadError(f"there are no released weights named {name!r}: {hint}")
    return named[name]


def get_released(name: str, *, mirrors: Sequence[str] = (), sha256: str = "", progress: Progress | None = None) -> Path:
    """Return the local copy of a released file, downloading it unless it is cached.

    Tried in turn: the cache, the given mirrors, those in $STRESNET_MIRRORS (separated by commas), the published URLs.

    Args:
        name: its short name.
        mirrors: existing folders, or base URLs. A file is looked for under its path after `feichtenhofer/` on the
            authors' server, then under its bare name; a file of the hub under owner/name/file.
        sha256: its digest, or at least the first 8 digits; by default the published one, else the recorded one.
        progress: called with megabytes done and in total (0 if unknown).

    Raises:
        DownloadError: a mirror does not exist, no place has the file, or its digest differs.
        UnreachableError: no server can be reached.
    """
    wanted = release(name)
    for mirror in mirrors:
        _require_mirror(mirror)
    recorded = _Record.read(name)
    bases = [*mirrors, *(m.strip() for m in os.environ.get("STRESNET_MIRRORS", "").split(",") if m.strip())]
    expected = normalized(sha256) or wanted.sha256 or (recorded.sha256 if recorded else "")
    try:
        path = _first_of(wanted, bases, expected, progress)
    except DownloadError as error:
        if not recorded or expected != recorded.sha256 or isinstance(error, UnreachableError):
            raise
        place = _Record.place(name)
        raise DownloadError(f"{error} (the expected digest is that of the first download, see {place})") from None
    if wanted.md5 and not sha256 and not recorded:
        _check_md5(path, wanted)
    if (record := _Record(path, sha256_of(path))) != recorded:
        record.write(name)
    return path


def forget(name: str) -> None:
    """Remove the recorded digest and place of a release, because the file turned out to be a wrong one."""
    _Record.place(name).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Record:
    """The place and digest of a downloaded release, kept in the cache."""

    file: Path
    sha256: str

    @staticmethod
    def place(name: str) -> Path:
        return cache_folder() / "released" / f"{name}.json"

    @classmethod
    def read(cls, name: str) -> _Record | None:
        try:
            values = json.loads(cls.place(name).read_text("utf-8"))
            return cls(Path(values["file"]), str(values["sha256"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, name: str) -> None:
        self.place(name).parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.place(name)) as temporary:
            temporary.write_text(json.dumps({"file": str(self.file.absolute()), "sha256": self.sha256}), "utf-8")


def _require_mirror(base: str) -> None:
    """Raise a DownloadError if a mirror is neither a URL nor an existing folder."""
    if (folder := _folder_of(base)) and (not base or not folder.is_dir()):
        found = "a file: convert it with `stresnet convert`" if folder.is_file() else "no such folder: check its name"
        raise DownloadError(f"mirror {base!r}: expected a folder or base URL, found {found}")


def _folder_of(base: str) -> Path | None:
    """Return the folder of a local mirror, or None for a URL. `owner/name` is a path here."""
    return None if "://" in base and is_remote(base) else local_path(base).expanduser()


def _name_in_mirror(url: str) -> str:
    """Return a file's bare name, or owner/name/file for the hub, where many files have the same name."""
    return url.removeprefix("hf://") if url.startswith("hf://") else url.rpartition("/")[2]


def _places_in(base: str, wanted: Release) -> list[str]:
    """Return the places in a mirror where a file may be."""
    tails = [tail for url in wanted.urls for tail in (url.partition(MIRRORED)[2], _name_in_mirror(url)) if tail]
    return [f"{_folder_of(base) or base.rstrip('/')}/{tail}" for tail in dict.fromkeys(tails)]


def _first_of(wanted: Release, bases: Sequence[str], expected: str, progress: Progress | None) -> Path:
    """Return the file from the first place that has it: the cache, the mirrors, the published URLs."""
    places = [str(wanted.fetched)] if wanted.fetched else []
    reasons: list[str] = []
    for base in bases:
        there = _places_in(base, wanted)
        if (folder := _folder_of(base)) and not (there := [place for place in there if Path(place).is_file()]):
            names = " or ".join(dict.fromkeys(map(_name_in_mirror, wanted.urls)))
            reasons.append(f"mirror {base}: {f'has no {names}' if folder.is_dir() else 'no such folder'}")
        places += there
    errors: list[DownloadError] = []
    unreachable: set[str] = set()
    for place in dict.fromkeys([*places, *wanted.urls]):
        host = urlsplit(place).netloc if is_remote(place) else ""
        if host in unreachable:
            continue
        try:
            return fetch(place, sha256=expected, progress=progress)
        except DownloadError as error:
            errors.append(error)
            if isinstance(error, UnreachableError):
                unreachable.add(host)
    kind = UnreachableError if all(isinstance(e, UnreachableError) for e in errors) else DownloadError
    text = "; ".join(dict.fromkeys([*reasons, *map(str, errors)]))
    raise kind(f"{wanted.name}: {text}; if you have the file, give its folder with --mirror")


def _check_md5(path: Path, wanted: Release) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found not in wanted.md5:
        raise DownloadError(
            f"{path}: expected the published MD5 {' or '.join(wanted.md5)}, found {found}; "
            f"if you are sure that the file is right, give its sha256, {sha256_of(path)}"
        )
