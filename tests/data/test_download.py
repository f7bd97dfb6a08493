import io
import re
import shutil
import tarfile
from collections import namedtuple

import pytest

from detection.data import download as module
from detection.data.download import SETS, Archive, download, is_extracted, space_needed
from detection.data.folder import read_folder
from detection.data.records import DataError


def get(archives, output, **options):
    download(archives, output, wait=0.01, **options)


def test_the_official_archives_are_described_in_full():
    archives = [archive for set_ in SETS.values() for archive in set_]
    assert len({archive.sha256 for archive in archives}) == len(archives) == 9
    for archive in archives:
        assert re.fullmatch("[0-9a-f]{64}", archive.sha256)
        assert archive.url.startswith(
            ("http://host.robots.ox.ac.uk/pascal/VOC/", "http://images.cocodataset.org/")
        )
        assert archive.size > 250_000_000


def test_voc_and_coco_are_read_where_they_were_put(official, tmp_path):
    for name in SETS:
        get(official[name], tmp_path)
    voc, coco = tmp_path / "VOCdevkit", tmp_path / "coco"
    for root, split, count in [
        (voc, "VOC2007/trainval", 3),
        (voc, "VOC2007/test", 2),
        (voc, "VOC2012/trainval", 3),
        (coco, "train2014", 3),
        (coco, "val2014", 2),
        (coco, "train2017", 3),
        (coco, "val2017", 2),
    ]:
        records = read_folder(root, split)
        assert (len(records.files), records.skipped) == (count, ())
        assert records.path(0).is_file()
        assert len(records.annotations.boxes) >= count
    assert len(read_folder(voc, "VOC2007/trainval+VOC2012/trainval").files) == 6


def test_nothing_is_fetched_or_extracted_twice(server, official, tmp_path):
    get(official["voc07"], tmp_path)
    assert [name for name, _ in server.asked] == [it.name for it in official["voc07"]]
    assert not list((tmp_path / "archives").glob("*.tar"))
    seen = []
    get(official["voc07"], tmp_path, progress=lambda *news: seen.append(news))
    assert (len(server.asked), seen) == (2, [])


def test_a_set_that_lost_a_file_is_made_whole(server, official, tmp_path):
    get(official["coco2014"], tmp_path)
    lost = next((tmp_path / "coco/val2014").iterdir())
    before = lost.read_bytes()
    lost.unlink()
    assert [is_extracted(archive, tmp_path) for archive in official["coco2014"]] == [
        True,
        False,
        True,
    ]
    server.asked.clear()
    get(official["coco2014"], tmp_path)
    assert server.asked == [("val2014.zip", None)]
    assert lost.read_bytes() == before
    shutil.rmtree(tmp_path / "coco/train2014")
    assert not is_extracted(official["coco2014"][2], tmp_path)


def test_archives_are_kept_where_asked(server, official, tmp_path):
    get(official["voc07"], tmp_path, keep_archives=True)
    kept = sorted((tmp_path / "archives").glob("*.tar"))
    assert [path.name for path in kept] == sorted(it.stored for it in official["voc07"])
    shutil.rmtree(tmp_path / "VOCdevkit")
    get(official["voc07"], tmp_path, keep_archives=True)
    assert len(read_folder(tmp_path / "VOCdevkit", "VOC2007/trainval").files) == 3
    assert len(server.asked) == 2


def test_a_broken_connection_is_resumed(server, official, tmp_path):
    server.plan = [1000, 700]
    get(official["voc12"], tmp_path)
    name = official["voc12"][0].name
    assert server.asked == [(name, None), (name, "bytes=1000-"), (name, "bytes=1700-")]
    assert len(read_folder(tmp_path / "VOCdevkit", "VOC2012/trainval").files) == 3


def test_a_later_call_resumes(server, official, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    server.plan = [1000]
    with pytest.raises(OSError, match="the connection broke after 1000 of"):
        get(official["voc12"], tmp_path)
    assert not is_extracted(official["voc12"][0], tmp_path)
    get(official["voc12"], tmp_path)
    assert server.asked[1] == (official["voc12"][0].name, "bytes=1000-")


def test_another_file_is_refused_and_nothing_extracted(server, official, tmp_path):
    (archive,) = official["voc12"]
    for path, content in server.files.items():
        server.files[path] = content[:-1] + b"!"
    with pytest.raises(ValueError, match=f"expected a file of sha256 {archive.sha256}"):
        get([archive], tmp_path)
    assert not (tmp_path / "VOCdevkit").exists()
    assert not is_extracted(archive, tmp_path)


def test_another_size_is_refused(official, tmp_path):
    (archive,) = official["voc12"]
    with pytest.raises(DataError, match=rf"expected 5 bytes, got {archive.size}"):
        get([archive._replace(size=5)], tmp_path)


def test_hostile_archives_are_refused(server, official, tmp_path):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as packed:
        packed.addfile(tarfile.TarInfo("VOCdevkit/VOC2012/good"))
        packed.addfile(tarfile.TarInfo("VOCdevkit/../../evil"))
    archive = server.publish(official["voc12"][0], content.getvalue())
    with pytest.raises(DataError, match=r"member 'VOCdevkit/../../evil' leads out of the folder"):
        get([archive], tmp_path)
    assert not (tmp_path / "VOCdevkit").exists()
    assert not is_extracted(archive, tmp_path)


Usage = namedtuple("Usage", "total used free")


def test_too_little_space_is_said_before_anything_is_fetched(
    server, official, tmp_path, monkeypatch
):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Usage(9, 8, 1))
    with pytest.raises(OSError, match=r"0\.0 GiB are needed, 0\.0 GiB are free"):
        get(official["voc07"], tmp_path)
    assert server.asked == []


def test_space_is_counted_at_its_peak(tmp_path):
    a = Archive("http://host/a.tar", 100, "a" * 64, expansion=1.0)
    b = Archive("http://host/b.zip", 10, "b" * 64, expansion=4.0)
    assert space_needed([], tmp_path, False) == 0
    assert space_needed([a], tmp_path, False) == 200
    # a's files stay, its archive goes: 100, then 10 + 40 more.
    assert space_needed([a, b], tmp_path, False) == 200
    assert space_needed([b, a], tmp_path, False) == 40 + 200
    assert space_needed([a, b], tmp_path, True) == 100 + 100 + 10 + 40
    # 60 bytes of a are here: they are not needed any more, and are given back later.
    (tmp_path / f"{a.stored}.part").write_bytes(bytes(60))
    assert space_needed([a], tmp_path, False) == 140
    assert space_needed([a, b], tmp_path, False) == 140
    # All of a is here, and perhaps most of its files: what they still need is not known yet.
    (tmp_path / f"{a.stored}.part").rename(tmp_path / a.stored)
    (tmp_path / a.stored).write_bytes(bytes(100))
    assert space_needed([a], tmp_path, False) == 0
    assert space_needed([a, b], tmp_path, True) == 50


def interrupt(archive, output):
    """Leaves an archive and its files but for one, as an interruption does."""
    get([archive], output, keep_archives=True)
    module._listing(archive, output).unlink()
    lost = next((output / "VOCdevkit/VOC2012/JPEGImages").iterdir())
    size = lost.stat().st_size
    lost.unlink()
    return lost, size


def test_an_interrupted_extraction_needs_the_space_of_what_is_missing(
    official, tmp_path, monkeypatch
):
    (archive,) = official["voc12"]
    lost, size = interrupt(archive, tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Usage(9, 8, size - 1))
    with pytest.raises(OSError, match="are needed"):
        get([archive], tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Usage(9, 8, size))
    get([archive], tmp_path)
    assert lost.stat().st_size == size


def test_the_archives_after_an_interrupted_extraction_need_space_too(
    server, official, tmp_path, monkeypatch
):
    """Once it is extracted, and before the next one's first byte."""
    (archive,) = official["voc12"]
    _, size = interrupt(archive, tmp_path)
    other = official["voc07"][0]._replace(size=archive.size, expansion=0.0)
    free = iter([size, size, 0])
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Usage(9, 8, next(free)))
    server.asked.clear()
    with pytest.raises(OSError, match="are needed"):
        get([archive, other], tmp_path)
    assert is_extracted(archive, tmp_path)
    assert server.asked == []


def test_progress_ends_at_the_end(official, tmp_path):
    news = {}
    (archive,) = official["voc12"]
    get([archive], tmp_path, progress=lambda what, *count: news.setdefault(what, []).append(count))
    assert list(news) == [f"fetching {archive.name}", f"extracting {archive.name}"]
    for counts in news.values():
        assert counts == sorted(counts)
        assert counts[-1][0] == counts[-1][1] > 0
