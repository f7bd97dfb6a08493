"""PASCAL VOC and COCO from their official addresses: fetched, checked, extracted.

Archives are fetched into ``OUTPUT/archives`` and extracted into ``OUTPUT/VOCdevkit`` and
``OUTPUT/coco``, as ``resdet train --data.root`` reads them. What is interrupted goes on where it
stopped: a transfer by bytes, an extraction by files, a set by archives. A list of an archive's
files, ``OUTPUT/.NAME.files``, stands for the archive once it is extracted.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from filelock import FileLock

from backbones.download import fetch
from detection.data.archives import Member, extract, open_archive
from detection.data.records import DataError

ATTEMPTS = 8
"""How often a server is asked for an archive that breaks off, with waits of 1, 2, 4, … seconds."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, and how many bytes of how many are done."""


class Archive(NamedTuple):
    """A published archive.

    Attributes:
        url: its official address.
        size: bytes.
        sha256: of the archive, in hexadecimal digits.
        folder: where its members belong, below the output.
        expansion: extracted bytes divided by ``size``, at most.
    """

    url: str
    size: int
    sha256: str
    folder: str = "."
    expansion: float = 1.01

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]

    @property
    def stored(self) -> str:
        """The name that it is kept by, with its hash, as `fetch` has it."""
        stem, dot, suffix = self.name.rpartition(".")
        return f"{stem}-{self.sha256[:8]}{dot}{suffix}"

    @property
    def extracted(self) -> int:
        """How many bytes it becomes, at most."""
        return int(self.size * self.expansion)


_VOC = "http://host.robots.ox.ac.uk/pascal/VOC/"
_COCO = "http://images.cocodataset.org/"
_JSON = 4.0  # annotations are JSON, packed to less than a third

# Sizes and hashes: tensorflow/datasets, tensorflow_datasets/url_checksums/voc.txt and coco.txt. The
# former names a mirror; pytorch/vision's prototype.datasets has the same hashes at these addresses.
SETS: Mapping[str, tuple[Archive, ...]] = MappingProxyType(
    {
        "voc07": (
            Archive(
                f"{_VOC}voc2007/VOCtrainval_06-Nov-2007.tar",
                460_032_000,
                "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
            ),
            Archive(
                f"{_VOC}voc2007/VOCtest_06-Nov-2007.tar",
                451_020_800,
                "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
            ),
        ),
        "voc12": (
            Archive(
                f"{_VOC}voc2012/VOCtrainval_11-May-2012.tar",
                1_999_639_040,
                "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
            ),
        ),
        "coco2014": (
            Archive(
                f"{_COCO}annotations/annotations_trainval2014.zip",
                252_872_794,
                "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
                "coco",
                _JSON,
            ),
            Archive(
                f"{_COCO}zips/val2014.zip",
                6_645_013_297,
                "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
                "coco",
            ),
            Archive(
                f"{_COCO}zips/train2014.zip",
                13_510_573_713,
                "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
                "coco",
            ),
        ),
        "coco2017": (
            Archive(
                f"{_COCO}annotations/annotations_trainval2017.zip",
                252_907_541,
                "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
                "coco",
                _JSON,
            ),
            Archive(
                f"{_COCO}zips/val2017.zip",
                815_585_330,
                "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
                "coco",
            ),
            Archive(
                f"{_COCO}zips/train2017.zip",
                19_336_861_798,
                "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
                "coco",
            ),
        ),
    }
)
"""VOC 2007 trainval and test, VOC 2012 trainval, COCO train and val.

VOC 2012's test set is not among them: its images are given to those who register at the evaluation
server, http://host.robots.ox.ac.uk:8080, and its annotations to nobody.
"""


def download(
    archives: Sequence[Archive],
    output: Path,
    *,
    keep_archives: bool = False,
    progress: Progress | None = None,
    wait: float = 1.0,
) -> None:
    """Fetches and extracts archives, unless their files are there.

    Args:
        archives: of `SETS`.
        output: the folder of all data sets.
        keep_archives: whether an archive stays once it is extracted.
        progress: called whenever bytes have arrived or a file is extracted.
        wait: seconds before a server is asked a second time, doubled for each time after it.

    Raises:
        DataError: an archive is not sound.
        ValueError: an archive is not the one that its hash is of.
        OSError: an archive cannot be fetched or extracted, or the disk has too little space.
    """
    folder = output / "archives"
    folder.mkdir(parents=True, exist_ok=True)
    left = [archive for archive in archives if not is_extracted(archive, output)]
    for number, archive in enumerate(left):
        with FileLock(folder / f"{archive.stored}.extract.lock"):
            if not is_extracted(archive, output):  # by another process meanwhile
                _check_space(space_needed(left[number:], folder, keep_archives), output)
                _install(archive, output, progress, wait)
            if not keep_archives:
                (folder / archive.stored).unlink(missing_ok=True)


def is_extracted(archive: Archive, output: Path) -> bool:
    """Whether all files of an archive are there, by the list that its extraction left.

    Args:
        archive: of `SETS`.
        output: the folder of all data sets.
    """
    listing = _listing(archive, output)
    if not listing.is_file():
        return False
    files = [Path(line) for line in listing.read_text(encoding="utf-8").splitlines()]
    there: dict[Path, set[str]] = {}  # one look at each folder, not one at each of 100,000 files
    for parent in {file.parent for file in files}:
        folder = output / archive.folder / parent
        there[parent] = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    return all(file.name in there[file.parent] for file in files)


def space_needed(archives: Sequence[Archive], folder: Path, keep_archives: bool) -> int:
    """Computes how many more bytes are in use at most, at any moment.

    Args:
        archives: what is fetched and extracted, one after another.
        folder: of archives, where some or parts of some may be. What one that is here in full has
            left to extract is not counted, but known once it is opened.
        keep_archives: whether archives stay.
    """
    used = most = 0
    for archive in archives:
        names = (archive.stored, f"{archive.stored}.part")
        here = sum((folder / name).stat().st_size for name in names if (folder / name).is_file())
        extracted = 0 if (folder / archive.stored).is_file() else archive.extracted
        most = max(most, used + archive.size - here + extracted)
        used += extracted - here + (archive.size if keep_archives else 0)
    return max(most, 0)


def _listing(archive: Archive, output: Path) -> Path:
    return output / f".{archive.stored}.files"


def _check_space(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"{folder}: {needed / 2**30:.1f} GiB are needed, {free / 2**30:.1f} GiB are free"
        )


def _install(archive: Archive, output: Path, progress: Progress | None, wait: float) -> None:
    def fetched(done: int, _: int | None) -> None:
        _tell(progress, f"fetching {archive.name}", done, archive.size)

    path = output / "archives" / archive.stored
    # Before the first byte, and while a file that is there is checked.
    _tell(progress, f"fetching {archive.name}", 0, archive.size)
    fetch(archive.url, path.parent, archive.sha256, attempts=ATTEMPTS, wait=wait, progress=fetched)
    if (size := path.stat().st_size) != archive.size:
        raise DataError(f"{path}: expected {archive.size} bytes, got {size}")
    target = output / archive.folder
    with open_archive(path) as members:
        _check_space(_missing(members, target), output)
        extract(members, target, partial(_tell, progress, f"extracting {archive.name}"))
        names = "".join(f"{member.name}\n" for member in members)
    draft = _listing(archive, output).with_suffix(".partial")
    draft.write_text(names, encoding="utf-8")
    draft.replace(_listing(archive, output))


def _missing(members: Sequence[Member], target: Path) -> int:
    return sum(member.size for member in members if not (target / member.name).is_file())


def _tell(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress is not None:
        progress(what, done, total)
