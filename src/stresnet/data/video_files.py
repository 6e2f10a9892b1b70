"""Find the video files, or folders of pictures, below a folder, and those that a list means."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from stresnet.data.jpeg_folders import NUMBERED
from stresnet.errors import StoreError


def video_extensions() -> frozenset[str]:
    """Return the endings of file names that count as videos."""
    from stresnet.media.video import VIDEO_EXTENSIONS  # loads PyAV, which the command line's help can do without

    return VIDEO_EXTENSIONS


class VideoWalk:
    """Search a folder for videos, and remember what was ignored."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self.other_files: list[str] = []
        self.not_utf8: list[str] = []

    def video_ids(self) -> Iterator[str]:
        """Yield the POSIX paths of videos relative to the folder."""
        extensions = video_extensions()
        for folder, _, files in self._folders():
            inside = self._relative(folder)
            for name in files:
                video_id = f"{inside}/{name}" if inside != "." else name
                if name.startswith("."):
                    continue
                if os.path.splitext(name)[1].lower() in extensions:
                    yield from self._if_utf8(video_id)
                else:
                    self.other_files.append(video_id)

    def jpeg_folder_ids(self) -> Iterator[str]:
        """Yield the POSIX paths, relative to the folder, of folders that contain numbered pictures."""
        for folder, folders, files in self._folders():
            if any(map(NUMBERED.fullmatch, files)):
                folders.clear()
                yield from self._if_utf8(self._relative(folder))

    def _relative(self, folder: str) -> str:
        return Path(os.path.relpath(folder, self._base)).as_posix()

    def _folders(self) -> Iterator[tuple[str, list[str], list[str]]]:
        """Walk the folder as os.walk does; links are followed, and each folder is entered once."""
        entered = {os.path.realpath(self._base)}
        for folder, folders, files in os.walk(self._base, followlinks=True, onerror=_raise_unreadable):
            real = {name: os.path.realpath(os.path.join(folder, name)) for name in folders}
            folders[:] = sorted(n for n in folders if not n.startswith(".") and real[n] not in entered)
            entered.update(real[name] for name in folders)
            yield folder, folders, files

    def _if_utf8(self, video_id: str) -> Iterator[str]:
        try:
            video_id.encode()
        except UnicodeEncodeError:
            self.not_utf8.append(video_id)
        else:
            yield video_id

    def notes(self) -> list[str]:
        """Return a note for each kind of file that was left out."""
        notes = []
        if self.other_files:
            example = self.other_files[0]
            notes.append(f"{len(self.other_files)} file(s) that are not videos are left out, such as {example!a}")
        if self.not_utf8:
            example = ascii(self.not_utf8[0])
            notes.append(f"{len(self.not_utf8)} video(s) with names that are not UTF-8 are left out: rename {example}")
        return notes


class VideoFinder:
    """Find the files, or folders of pictures, that names in a list mean.

    A name is a path relative to a folder. If nothing is there, the path may differ in case, in how accents are
    composed, in the slashes and in the ending of the file; a bare name without an ending, such as an id, may be in any
    folder below. The name must then mean one video only.
    """

    def __init__(self, base: Path, *, jpegs: bool) -> None:
        self._base = base
        self._jpegs = jpegs
        self._is_video = os.path.isdir if jpegs else os.path.isfile
        self._folders: dict[str, str] = {}
        self._listings: dict[str, dict[str, str]] = {}
        self._respelled: list[tuple[str, str]] = []

    def find(self, *names: str) -> str | None:
        """Return the absolute path of the video that one of the names means, the first ones first, or None."""
        paths = [os.path.normpath(os.path.join(self._base, name)) for name in names]
        for path in paths:
            if self._is_video(path):
                return path
        for name, path in zip(names, paths, strict=True):
            for found in (self._alike(path), self._anywhere(name)):
                if found and self._is_video(found):
                    self._respelled.append((name, found))
                    return found
        return None

    def notes(self) -> list[str]:
        """Return a note if videos were found by names that differ from those in the list."""
        if not self._respelled:
            return []
        name, path = self._respelled[0]
        return [f"{len(self._respelled)} listed video(s) have other paths than listed: {name!a} is {path!a}"]

    def _alike(self, path: str) -> str:
        """Return the path of what is there if spelling does not matter, or an empty text."""
        folder, name = os.path.split(path.replace("\\", "/"))
        if folder not in self._folders:
            self._folders[folder] = folder if os.path.isdir(folder) or not name else self._alike(folder)
        return self._in_folder(self._folders[folder], name)

    def _in_folder(self, folder: str, name: str) -> str:
        """Return the path of what has a name in a folder, in some spelling and with any ending, or an empty text."""
        if folder not in self._listings:
            try:
                paths = [os.path.join(folder, inside) for inside in os.listdir(folder)] if folder else []
            except OSError:
                paths = []
            self._listings[folder] = _by_plain_name(paths)
        found = self._listings[folder]
        return found.get(_plain(name)) or found.get(_plain(os.path.splitext(name)[0])) or ""

    def _anywhere(self, name: str) -> str:
        """Return the path of the video whose file has a bare name, or an empty text."""
        is_bare = "/" not in name and os.path.splitext(name)[1].lower() not in video_extensions()
        return self._everywhere.get(_plain(name), "") if is_bare else ""

    @cached_property
    def _everywhere(self) -> dict[str, str]:
        walk = VideoWalk(self._base)
        inside = walk.jpeg_folder_ids() if self._jpegs else walk.video_ids()
        return _by_plain_name(os.path.join(self._base, path) for path in inside)


def _by_plain_name(paths: Iterable[str]) -> dict[str, str]:
    """Return paths by their plain file names, with and without the ending; an empty text for a name of several."""
    found: dict[str, str] = {}
    for path in paths:
        name = os.path.basename(path)
        stem, ending = os.path.splitext(name)
        for plain in {_plain(name), _plain(stem if ending.lower() in video_extensions() else name)}:
            found[plain] = "" if plain in found else path
    return found


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _raise_unreadable(error: OSError) -> None:
    raise StoreError(f"{error.filename}: this folder cannot be listed ({error.strerror})") from error
