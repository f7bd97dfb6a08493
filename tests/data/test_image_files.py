import os

import pytest

from detection.data.image_files import ImageFiles
from detection.data.records import DataError, UnusableError


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b.jpg"):
        (root / name).touch()
    (tmp_path / "secret.jpg").touch()
    return root


def test_each_folder_is_listed_once(root, monkeypatch):
    files, listed = ImageFiles(root), []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    for _ in range(3):
        assert files.find("a.jpg", "x") == "a.jpg"
        assert files.find("sub/b.jpg", "x") == "sub/b.jpg"
        with pytest.raises(UnusableError, match=r"root/sub/a\.jpg: no such file"):
            files.find("sub/a.jpg", "x")
    assert listed == [str(root), str(root / "sub")]
    assert files.listed
    assert files.folders() == {
        "": root.stat().st_mtime_ns,
        "sub/": (root / "sub").stat().st_mtime_ns,
    }


@pytest.mark.parametrize("name", ["sub/../a.jpg", "./a.jpg", "sub//../a.jpg"])
def test_names_are_normalised(root, name):
    assert ImageFiles(root).find(name, "x") == "a.jpg"


@pytest.mark.parametrize("name", ["", ".", "sub", "none/a.jpg", "a.jpg/a.jpg"])
def test_no_file(root, name):
    with pytest.raises((UnusableError, DataError), match=r"no such file|leads out"):
        ImageFiles(root).find(name, "x")


@pytest.mark.parametrize("name", ["../secret.jpg", "sub/../../secret.jpg", "/secret.jpg"])
def test_names_that_leave_the_root(root, name):
    for needed in (True, False):
        with pytest.raises(DataError, match=r"x: file_name .* leads out of"):
            ImageFiles(root, needed).find(name, "x")


@pytest.mark.parametrize("target", ["root/sub", "root/sub/b.jpg", ".", "secret.jpg"])
def test_links_are_followed_wherever_they_lead_and_told(root, target):
    # Data of DVC, git-annex or a cache are links out of their folder, one by one.
    files = ImageFiles(root)
    (root / "link").symlink_to(root.parent / target)
    name = {"root/sub": "link/b.jpg", ".": "link/secret.jpg"}.get(target, "link")
    assert files.find(name, "x") == name
    assert not files.listed


def test_a_link_to_nothing(root):
    (root / "link.jpg").symlink_to(root.parent / "none.jpg")
    with pytest.raises(UnusableError, match=r"root/link\.jpg: no such file"):
        ImageFiles(root).find("link.jpg", "x")


def test_a_name_means_the_same_over_a_link(root):
    # By the file system this is outside; by its text, which counts, it is a.jpg.
    (root.parent / "far" / "off").mkdir(parents=True)
    (root / "link").symlink_to(root.parent / "far" / "off")
    assert ImageFiles(root).find("link/../a.jpg", "x") == "a.jpg"


def test_files_in_the_root_itself(root):
    (root / "link.jpg").symlink_to("a.jpg")
    files = ImageFiles(root)
    assert files.hold(["a.jpg", "a.jpg"])
    for other in ("sub/b.jpg", "b.jpg", "link.jpg", "sub", "", "./a.jpg"):
        assert not files.hold(["a.jpg", other])
    assert files.listed
    assert not ImageFiles(root / "none").hold(["a.jpg"])
