"""The official archives in small, on a server on this machine that misbehaves as servers do."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # who asks for no server imports nothing
    from detection.data.download import Archive


def pytest_configure(config: pytest.Config) -> None:
    """Leaves each of several processes that test side by side its share of the cores."""
    if hasattr(config, "workerinput"):
        share = (os.cpu_count() or 1) // config.workerinput["workercount"]
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))


class ArchiveServer(ThreadingHTTPServer):
    """Serves files by their address.

    Attributes:
        files: each address's content.
        plan: how many bytes to send before the connection breaks, request by request; after the
            last, files are sent in full.
        asked: every request's file name and range.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.plan: list[int] = []
        self.asked: list[tuple[str, str | None]] = []

    def publish(self, official: Archive, content: bytes) -> Archive:
        """Puts a file where an official archive would be, and returns its description."""
        path = "/" + official.url.split("/", 3)[3]
        self.files[path] = content
        return official._replace(
            url=f"http://127.0.0.1:{self.server_port}{path}",
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )


class _Handler(BaseHTTPRequestHandler):
    server: ArchiveServer

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append((self.path.rpartition("/")[2], asked))
        limit = self.server.plan.pop(0) if self.server.plan else None
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : None if limit is None else start + limit])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    with ArchiveServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def _tar(root: Path, folder: str, split: str) -> bytes:
    """A VOC archive: a split of a folder of shapes, below ``folder``."""
    listing = root / "ImageSets/Main" / f"{split}.txt"
    names = listing.read_text().split()
    files = [listing, *(root / f"Annotations/{name}.xml" for name in names)]
    files += [root / f"JPEGImages/{name}.jpg" for name in names]
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for file in files:
            archive.add(file, f"{folder}/{file.relative_to(root)}")
    return content.getvalue()


def _zip(files: Mapping[str, Path]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for folder in sorted({name.rpartition("/")[0] for name in files}):
            archive.mkdir(folder)
        for name, path in files.items():
            archive.write(path, name)
    return content.getvalue()


@pytest.fixture(scope="session")
def official_contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Small archives of the official layout, by the official names."""
    from detection.data.shapes import write_shapes

    root = tmp_path_factory.mktemp("official") / "shapes"
    write_shapes(root, {"trainval": 3, "test": 2}, (64, 64))
    contents = {
        "VOCtrainval_06-Nov-2007.tar": _tar(root, "VOCdevkit/VOC2007", "trainval"),
        "VOCtest_06-Nov-2007.tar": _tar(root, "VOCdevkit/VOC2007", "test"),
        "VOCtrainval_11-May-2012.tar": _tar(root, "VOCdevkit/VOC2012", "trainval"),
    }
    for year in ("2014", "2017"):
        annotations = {}
        for ours, theirs in (("trainval", f"train{year}"), ("test", f"val{year}")):
            annotations[f"annotations/instances_{theirs}.json"] = (
                root / "annotations" / f"instances_{ours}.json"
            )
            images = sorted((root / "JPEGImages").glob(f"{ours}_*"))
            contents[f"{theirs}.zip"] = _zip({f"{theirs}/{path.name}": path for path in images})
        contents[f"annotations_trainval{year}.zip"] = _zip(annotations)
    return contents


@pytest.fixture
def official(
    server: ArchiveServer, official_contents: dict[str, bytes]
) -> dict[str, tuple[Archive, ...]]:
    """The official sets, in small and on the server."""
    from detection.data.download import SETS

    return {
        name: tuple(server.publish(archive, official_contents[archive.name]) for archive in set_)
        for name, set_ in SETS.items()
    }
