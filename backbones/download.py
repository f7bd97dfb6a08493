"""Published files: fetched once, checked, kept, and resumed where the connection broke."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import torch
from filelock import FileLock

CHUNK = 1 << 20
"""Bytes that are read at a time."""

Progress = Callable[[int, int | None], None]
"""Told how many bytes of a file are here, and of how many, None where the server does not say."""


def fetch(
    url: str,
    folder: str | Path | None = None,
    sha256: str | None = None,
    *,
    attempts: int = 3,
    timeout: float = 30.0,
    wait: float = 1.0,
    progress: Progress | None = None,
) -> Path:
    """Fetch a file, unless it is there.

    What was received before a connection broke stays beside the target as ``NAME.part``; the next
    attempt, of this process or of a later one, asks for the rest. Processes that want the same
    file wait for each other.

    Args:
        url: http or https. A fragment ``#sha256=…`` is the file's hash, as in pip.
        folder: where the file is kept; torchvision's own cache when None. A name without the hash,
            which other files may have too, is given its first eight digits.
        sha256: the file's hash in hexadecimal digits, or the first eight or more of them. Taken
            from the fragment, or from a name such as ``resnet50-0676ba61.pth``, when None.
        attempts: how often a server is asked that fails or breaks off.
        timeout: seconds without an answer after which the connection counts as broken.
        wait: seconds before the second attempt, doubled for each one after it.
        progress: called whenever bytes have arrived.

    Returns:
        The file.

    Raises:
        ValueError: the address is not http or https or gives no hash, or the file is not the one
            that the hash is of.
        OSError: it could not be fetched; the message says where to put it by hand.
    """
    address, name, expected = _parse(url, sha256)
    folder = Path(torch.hub.get_dir(), "checkpoints") if folder is None else Path(folder)
    target, part = folder / name, folder / f"{name}.part"
    try:
        if not target.is_file():  # what is there needs no lock: its folder may be read-only
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{target}.lock"):
                if not target.is_file():
                    transfer = partial(_transfer, address, part, expected, timeout, progress)
                    _persist(transfer, attempts, wait)
                    _accept(part, expected, address).replace(target)
                    return target
    except (OSError, HTTPException) as error:
        raise OSError(
            f"{address} could not be fetched: {error or type(error).__name__}; "
            f"without a network, put the file at {target}"
        ) from error
    _check(target, expected, f"{target}, which may be removed and fetched again")
    return target


def is_address(source: str) -> bool:
    """Whether a text is an address that ``fetch`` may take."""
    return urlsplit(source).scheme in ("http", "https")


def _parse(url: str, sha256: str | None) -> tuple[str, str, str]:
    """The address without its fragment, the name to keep the file by and its hash."""
    parts = urlsplit(url)
    name = Path(unquote(parts.path)).name
    if not is_address(url) or not name:
        raise ValueError(f"expected the address of a file by http or https, got {url!r}")
    fragment = re.fullmatch(r"sha256=(\w+)", parts.fragment)
    in_name = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    found = fragment or in_name
    expected = (sha256 or (found.group(1) if found else "")).lower()
    if not re.fullmatch("[0-9a-f]{8,64}", expected):
        raise ValueError(
            f"{url}: expected its sha256, so that the file can be checked: append "
            f"#sha256=… with 8 to 64 hexadecimal digits; got {expected!r}"
        )
    if expected[:8] not in name:
        name = f"{Path(name).stem}-{expected[:8]}{Path(name).suffix}"
    return parts._replace(fragment="").geturl(), name, expected


def _persist(transfer: Callable[[], None], attempts: int, wait: float) -> None:
    """Repeat a transfer that fails, unless the server refuses it for good."""
    for attempt in range(attempts):
        try:
            return transfer()
        except (OSError, HTTPException) as error:
            refused = isinstance(error, HTTPError) and error.code < 500
            if refused or attempt + 1 == attempts:
                raise
            time.sleep(wait * 2**attempt)
    return None


def _transfer(
    address: str, part: Path, expected: str, timeout: float, progress: Progress | None
) -> None:
    """Receive what is missing of a file.

    Raises:
        OSError: the server refused, failed or broke off.
    """
    start = part.stat().st_size if part.exists() else 0
    request = Request(address, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response: HTTPResponse = urlopen(request, timeout=timeout)
    except HTTPError as error:
        error.close()
        if start and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if _sha256(part).startswith(expected):  # whole: stopped while it was checked
                if progress is not None:
                    progress(start, start)
                return None
            part.unlink()  # no beginning of the file
            return _transfer(address, part, expected, timeout, progress)
        raise
    with response:
        resumed = response.status == HTTPStatus.PARTIAL_CONTENT
        received = start if resumed else 0
        total = None if response.length is None else received + response.length
        with part.open("ab" if resumed else "wb") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                received += len(chunk)
                if progress is not None:
                    progress(received, total)
    if total is not None and received < total:
        raise OSError(f"the connection broke after {received} of {total} bytes")
    return None


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    while chunk := response.read(CHUNK):
        yield chunk


def _accept(part: Path, expected: str, address: str) -> Path:
    try:
        _check(part, expected, address)
    except ValueError:
        part.unlink()
        raise
    return part


def _check(file: Path, expected: str, title: str) -> None:
    got = _sha256(file)
    if not got.startswith(expected):
        raise ValueError(
            f"{title}: expected a file of sha256 {expected}, got {got[: len(expected)]}"
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
