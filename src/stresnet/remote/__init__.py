"""Files that lie elsewhere: local copies of URLs and of the hub's models, resumed when cut off, checked, and kept."""

from stresnet.remote.checksum import sha256_of
from stresnet.remote.download import UnreachableError
from stresnet.remote.source import cache_folder, cached, fetch, is_remote

__all__ = ["UnreachableError", "cache_folder", "cached", "fetch", "is_remote", "sha256_of"]
