import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from detection.data.archives import extract, open_archive
from detection.data.records import DataError


def tar(path: Path, *members: tuple[str, bytes, bytes]) -> Path:
    """Writes a tar of (name, type, content)."""
    with tarfile.open(path, "w") as archive:
        for name, kind, content in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.linkname = kind, len(content), "/etc/passwd"
            archive.addfile(entry, io.BytesIO(content))
    return path


def zipped(path: Path, *members: tuple[str, int, bytes]) -> Path:
    """Writes a zip of (name, mode, content)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mode, content in members:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            archive.writestr(entry, content)
    return path


FILE, FOLDER = tarfile.REGTYPE, tarfile.DIRTYPE


@pytest.fixture(params=["tar", "zip"])
def sound(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "tar":
        parts = [("a", FOLDER, b""), ("a/one.txt", FILE, b"first"), ("b/c/two.txt", FILE, b"22")]
        return tar(tmp_path / "x.tar", *parts)
    parts = [("a/", stat.S_IFDIR, b""), ("a/one.txt", stat.S_IFREG, b"first")]
    return zipped(tmp_path / "x.zip", *parts, ("b/c/two.txt", 0, b"22"))


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_what_is_extracted_is_what_was_packed(sound, tmp_path):
    seen = []
    with open_archive(sound) as members:
        assert [(member.name, member.size) for member in members] == [
            ("a/one.txt", 5),
            ("b/c/two.txt", 2),
        ]
        extract(members, tmp_path / "out", lambda *count: seen.append(count))
    assert files(tmp_path / "out") == {"a/one.txt": b"first", "b/c/two.txt": b"22"}
    assert seen == [(5, 7), (7, 7)]


def test_files_that_are_there_in_full_stay(sound, tmp_path):
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (out / "a/one.txt").write_bytes(b"there")  # of the right size
    (out / "b/c").mkdir(parents=True)
    (out / "b/c/two.txt").write_bytes(b"2")
    with open_archive(sound) as members:
        extract(members, out)
    assert files(out) == {"a/one.txt": b"there", "b/c/two.txt": b"22"}


def test_an_interrupted_file_does_not_get_its_name(sound, tmp_path):
    with open_archive(sound) as members:

        def broken():
            raise OSError("no more")

        with pytest.raises(OSError, match="no more"):
            extract([members[0], members[1]._replace(open=broken)], tmp_path / "out")
    assert files(tmp_path / "out") == {"a/one.txt": b"first"}


HOSTILE_NAMES = ["../x", "/tmp/x", "a/../../x", "a/.."]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_that_lead_out_are_refused(name, tmp_path):
    for path in (
        tar(tmp_path / "x.tar", ("good", FILE, b"1"), (name, FILE, b"2")),
        zipped(tmp_path / "x.zip", ("good", 0, b"1"), (name, 0, b"2")),
    ):
        with (
            pytest.raises(DataError, match=r"x\.(tar|zip): member '.*' leads out of"),
            open_archive(path),
        ):
            pass


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(kind, tmp_path):
    path = tar(tmp_path / "x.tar", ("good", FILE, b"1"), ("evil", kind, b""))
    with pytest.raises(DataError, match=r"member 'evil' is neither a file"), open_archive(path):
        pass


def test_links_in_a_zip_are_refused(tmp_path):
    path = zipped(tmp_path / "x.zip", ("evil", stat.S_IFLNK | 0o777, b"/etc/passwd"))
    with pytest.raises(DataError, match=r"member 'evil' is neither a file"), open_archive(path):
        pass


@pytest.mark.parametrize("name", ["x.tar", "x.zip"])
@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04" + bytes(600)])
def test_other_files_are_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"not a sound archive"), open_archive(tmp_path / name):
        pass


def test_a_truncated_tar_is_refused(tmp_path):
    path = tar(tmp_path / "x.tar", ("a", FILE, bytes(5000)), ("b", FILE, bytes(5000)))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"not a sound archive"), open_archive(path) as members:
        extract(members, tmp_path / "out")


def test_a_damaged_zip_is_refused(tmp_path):
    path = zipped(tmp_path / "x.zip", ("a", 0, bytes(range(256)) * 20))
    content = bytearray(path.read_bytes())
    content[60:70] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not a sound archive"), open_archive(path) as members:
        extract(members, tmp_path / "out")
    assert files(tmp_path / "out") == {}
