"""Downloads, from a server on this machine that misbehaves as servers do."""

import hashlib
import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from torchvision.models import ResNet18_Weights

import backbones
from backbones import download
from backbones.download import fetch

CONTENT = bytes(range(256)) * 40
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers each request by the next step of its plan; serves the whole file after the last.

    A step is a status to answer with, or how many bytes to send before the connection breaks.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan, self.asked, self.content, self.ranges = [], [], CONTENT, True
        self.lock = threading.Lock()

    def url(self, name="net-", suffix=".pth", digits=8):
        return f"http://127.0.0.1:{self.server_port}/models/{name}{SHA[:digits]}{suffix}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get("Range")
        with self.server.lock:
            self.server.asked.append(asked)
            step = self.server.plan.pop(0) if self.server.plan else None
        content, status, start = self.server.content, 200, 0
        if step in (403, 404, 416, 500, 503):
            return self.send_error(step)
        if asked and self.server.ranges:
            start, status = int(asked.removeprefix("bytes=").removesuffix("-")), 206
            if start >= len(content):
                return self.send_error(416)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : None if step is None else start + step])
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def get(url, folder, **options):
    return fetch(url, folder=folder, wait=0.01, **options)


def test_a_file_is_fetched_once(server, tmp_path):
    path = get(server.url(), tmp_path / "cache")
    assert path == tmp_path / "cache" / f"net-{SHA[:8]}.pth"
    assert path.read_bytes() == CONTENT
    assert get(server.url(), tmp_path / "cache") == path
    assert server.asked == [None]


def test_the_default_folder_is_torchvisions(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download.torch.hub, "get_dir", lambda: str(tmp_path))
    assert fetch(server.url()) == tmp_path / "checkpoints" / f"net-{SHA[:8]}.pth"


def test_a_broken_connection_is_resumed(server, tmp_path):
    server.plan = [1000, 700]
    assert get(server.url(), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-", "bytes=1700-"]


def test_a_later_process_resumes(server, tmp_path):
    server.plan = [1000]
    with pytest.raises(OSError, match=r"the connection broke after 1000 of 10240 bytes"):
        get(server.url(), tmp_path, attempts=1)
    assert get(server.url(), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-"]


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.plan, server.ranges = [1000], False
    assert get(server.url(), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-"]


@pytest.mark.parametrize("part", [CONTENT + b"more", CONTENT[:-1] + b"!"])
def test_a_part_that_is_no_beginning_starts_over(server, tmp_path, part):
    (tmp_path / f"net-{SHA[:8]}.pth.part").write_bytes(part)
    assert get(server.url(), tmp_path, attempts=1).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(part)}-", None]


def test_a_part_that_is_whole_is_not_fetched_again(server, tmp_path):
    (tmp_path / f"net-{SHA[:8]}.pth.part").write_bytes(CONTENT)
    seen = []
    path = get(server.url(), tmp_path, attempts=1, progress=lambda *count: seen.append(count))
    assert path.read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]
    assert seen == [(len(CONTENT), len(CONTENT))]


def test_a_failing_server_is_asked_again(server, tmp_path):
    server.plan = [503, 500, 0]
    assert get(server.url(), tmp_path, attempts=4).read_bytes() == CONTENT
    assert len(server.asked) == 4


def test_a_server_that_goes_on_failing_is_given_up(server, tmp_path):
    server.plan = [503] * 4
    with pytest.raises(OSError, match=r"503.*put the file at"):
        get(server.url(), tmp_path)
    assert len(server.asked) == 3


def test_each_wait_is_twice_the_one_before(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    server.plan = [503, 503, 503]
    fetch(server.url(), tmp_path, attempts=4)
    assert waits == [1, 2, 4]


def test_progress_counts_what_was_there(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "CHUNK", 4000)
    server.plan, seen = [1000], []
    get(server.url(), tmp_path, progress=lambda *count: seen.append(count))
    assert seen == [(1000, 10240), (5000, 10240), (9000, 10240), (10240, 10240)]


def test_a_file_that_is_there_needs_no_lock(server, tmp_path, monkeypatch):
    path = get(server.url(), tmp_path)

    def refuse(_):
        raise PermissionError("read-only")

    monkeypatch.setattr(download, "FileLock", refuse)
    assert get(server.url(), tmp_path) == path
    with pytest.raises(OSError, match=rf"{server.url()}.*read-only.*put the file at"):
        get(server.url(), tmp_path / "other")


def test_a_refusal_is_final_and_names_the_offline_path(server, tmp_path):
    server.plan = [404, 404]
    with pytest.raises(OSError, match="404") as error:
        get(server.url(), tmp_path)
    assert len(server.asked) == 1
    assert server.url() in str(error.value)
    assert f"put the file at {tmp_path}/net-{SHA[:8]}.pth" in str(error.value)


def test_nobody_there(tmp_path):
    with pytest.raises(OSError, match="put the file at"):
        get(f"http://127.0.0.1:9/net-{SHA[:8]}.pth", tmp_path, attempts=2)


@pytest.mark.parametrize("kept", [False, True])
def test_another_file_is_refused(server, tmp_path, kept):
    server.content = b"not it"
    if kept:
        (tmp_path / f"net-{SHA[:8]}.pth").write_bytes(b"not it")
    got = hashlib.sha256(b"not it").hexdigest()[:8]
    with pytest.raises(ValueError, match=rf"expected a file of sha256 {SHA[:8]}, got {got}"):
        get(server.url(), tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".part"]
    assert len(server.asked) == (0 if kept else 1)


def test_the_hash_may_stand_in_the_fragment_or_apart(server, tmp_path):
    url = server.url("plain", digits=0)
    path = get(f"{url}#sha256={SHA}", tmp_path / "a")
    assert path.name == f"plain-{SHA[:8]}.pth"
    assert get(url, tmp_path / "b", sha256=SHA.upper()).read_bytes() == CONTENT
    with pytest.raises(ValueError, match="expected a file of sha256"):
        get(url, tmp_path / "c", sha256="0" * 64)
    with pytest.raises(ValueError, match=r"expected its sha256.*append #sha256=…"):
        get(url, tmp_path)


@pytest.mark.parametrize("url", ["ftp://host/net-00000000.pth", "file:///net.pth", "https://host/"])
def test_other_addresses_are_refused(url, tmp_path):
    with pytest.raises(ValueError, match="expected the address of a file by http or https"):
        get(url, tmp_path)


def test_files_of_one_name_stand_beside_each_other(server, tmp_path):
    url = server.url("model", ".safetensors", digits=0)
    first = get(f"{url}#sha256={SHA}", tmp_path)
    server.content = b"another"
    second = get(f"{url}#sha256={hashlib.sha256(b'another').hexdigest()}", tmp_path)
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, b"another")


def test_torchvisions_weights_come_from_their_address(server, tmp_path, monkeypatch, randomise):
    published = randomise(backbones.resnet18(width=8))
    file = io.BytesIO()
    torch.save(dict(published.state_dict()), file)
    server.content = file.getvalue()
    digits = hashlib.sha256(server.content).hexdigest()[:8]
    url = f"http://127.0.0.1:{server.server_port}/models/resnet18-{digits}.pth"
    monkeypatch.setattr(ResNet18_Weights.IMAGENET1K_V1.value, "url", url)
    monkeypatch.setattr(download.torch.hub, "get_dir", lambda: str(tmp_path))
    network = backbones.resnet18(width=8, preprocessing=backbones.CAFFE_BGR)
    assert backbones.load_weights(network, "IMAGENET1K_V1") == ()
    assert backbones.load_weights(network, "DEFAULT") == ()
    assert backbones.load_weights(network, url) == ()
    assert len(server.asked) == 1
    assert network.preprocessing == backbones.IMAGENET_RGB
    for name, value in network.state_dict().items():
        assert torch.equal(value, published.state_dict()[name]), name


def test_two_at_once_fetch_one_file(server, tmp_path):
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(get(server.url(), tmp_path)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1
    assert {path.read_bytes() for path in results} == {CONTENT}
