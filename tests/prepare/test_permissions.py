"""Nobody may read more of a copy than of its collection."""

import os

import pytest

from tests.prepare.test_copying import prepare
from tests.support.films import write_films


def modes(out):
    """Permissions of the copy's images, of its other files, and of its folders."""
    images = {p.stat().st_mode & 0o777 for p in out.glob("images/*/*")}
    files = {p.stat().st_mode & 0o777 for p in out.iterdir() if p.is_file()}
    folders = {p.stat().st_mode & 0o777 for p in (out, *out.rglob("*")) if p.is_dir()}
    return images, files, folders


def open_up(root, folder, file):
    for path in (root, *root.rglob("*")):
        path.chmod(folder if path.is_dir() else file)


def words(root, out):
    return ["data=folder", f"data.root={root}", r"data.patient_pattern='(p\d+)_'", f"out={out}"]


@pytest.mark.parametrize(
    ("folder", "file"), [(0o700, 0o600), (0o750, 0o640), (0o755, 0o644), (0o775, 0o664)]
)
def test_a_copy_has_the_permissions_of_its_source(tmp_path, folder, file):
    root = write_films(tmp_path / "films")
    open_up(root, folder, file)
    umask = os.umask(0)
    os.umask(umask)
    out = prepare(*words(root, tmp_path / "copy"))
    assert modes(out) == ({file}, {file}, {folder})
    assert os.umask(umask) == umask


def test_one_private_folder_makes_tables_private_and_other_images_keep_theirs(tmp_path):
    root = write_films(tmp_path / "films")
    open_up(root, 0o755, 0o644)
    (root / "BLOB").chmod(0o700)
    (root / "BLOB/p001_0.png").chmod(0o600)
    images, files, folders = modes(prepare(*words(root, tmp_path / "copy")))
    assert (images, files, folders) == ({0o600, 0o644}, {0o600}, {0o700})


def test_an_existing_folder_is_never_opened(tmp_path):
    root = write_films(tmp_path / "films")
    open_up(root, 0o755, 0o644)
    out = tmp_path / "copy"
    out.mkdir(mode=0o710)
    _, files, folders = modes(prepare(*words(root, out)))
    assert (files, folders) == ({0o600}, {0o710})
