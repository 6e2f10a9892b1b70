"""Names of files: paths, URLs and names on the Hugging Face hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from stresnet.errors import DownloadError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_BARE_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)
_FILE_ENDINGS = (
    *(".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".mat", ".onnx", ".npz", ".zip", ".tar", ".gz"),
    *(".json", ".yaml", ".yml", ".csv", ".txt", ".parquet", ".mp4", ".avi", ".mkv", ".mov", ".webm", ".mpg"),
)
_HUB_NAME = re.compile(
    r"(?:hf://)?(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<file>[^@]+))?(?:@(?P<last>.+))?",
)


def is_remote(source: str) -> bool:
    """Return whether a name is a URL or a hub name such as timm/resnet50.tv_in1k, rather than a path.

    `owner/name` without a scheme is a hub name only if neither it nor a folder `owner` exists here and it does not end
    like a file; `hf://owner/name` always is one.
    """
    if _SCHEME.match(source):
        return not source.lower().startswith("file://")
    if not _BARE_HUB_NAME.fullmatch(source) or source.lower().endswith(_FILE_ENDINGS):
        return False
    return not Path(source).exists() and not Path(source).parent.is_dir()


def local_path(source: str) -> Path:
    """Return the path that a name stands for which is not remote."""
    return Path(unquote(source[len("file://") :]) if source.lower().startswith("file://") else source)


@dataclass(frozen=True)
class HubName:
    """The name of a file on the hub.

    Attributes:
        repo: `owner/name`.
        file: path in the repository; "" for its only file of weights.
        revision: branch, tag or commit; None for the newest.
    """

    repo: str
    file: str = ""
    revision: str | None = None

    @classmethod
    def parse(cls, source: str) -> HubName | None:
        """Parse `[hf://]owner/name[/file][@revision]`; return None for any other URL.

        Raises:
            DownloadError: the name starts with hf:// but is not of that form.
        """
        if found := _HUB_NAME.fullmatch(source):
            return cls(found["repo"], found["file"] or "", found["revision"] or found["last"])
        if source.startswith("hf://"):
            raise DownloadError(f"{source}: expected hf://owner/name[/file][@revision]")
        return None

    def __str__(self) -> str:
        return self.repo + (f"/{self.file}" if self.file else "") + (f"@{self.revision}" if self.revision else "")
