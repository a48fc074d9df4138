"""An object store as S3 is through s3fs: a name is created once, whoever asks, and each process keeps its listings.

fsspec's memory file system is no such store between threads: for a new name it looks and then writes, and all readers
of a file share one position in it.
"""

import io
import threading
from pathlib import Path

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath
from upath.implementations.memory import MemoryPath
from upath.registry import register_implementation

PROTOCOL = "objects"


class Objects(MemoryFileSystem):
    """Names and bytes are shared; an instance stands for a process."""

    protocol = PROTOCOL
    store, pseudo_dirs = {}, [""]
    lock = threading.RLock()

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix(f"{PROTOCOL}://"))

    def ls(self, path, detail=True, **kwargs):
        path = self._strip_protocol(path)
        found = self.dircache[path] if path in self.dircache else super().ls(path, **kwargs)
        self.dircache[path] = found
        return found if detail else sorted(entry["name"] for entry in found)

    def info(self, path, **kwargs):
        return AbstractFileSystem.info(self, path, **kwargs)

    def invalidate_cache(self, path=None):
        self.dircache.clear()

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        with self.lock:
            super().pipe_file(path, value, mode, **kwargs)
        self.invalidate_cache()

    def _open(self, path, mode="rb", **kwargs):
        return io.BytesIO(self.cat_file(path)) if mode == "rb" else super()._open(path, mode, **kwargs)


fsspec.register_implementation(PROTOCOL, Objects, clobber=True)
register_implementation(PROTOCOL, MemoryPath, clobber=True)


def root(folder: Path, process: int = 0) -> UPath:
    """A store's root, named after a test's folder, as one process sees it."""
    return UPath(f"{PROTOCOL}://{folder.name}", process=process)
