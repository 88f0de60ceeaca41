"""Members of zip and tar archives: the same for both kinds, within limits, and nothing that leads out."""

import io
import multiprocessing
import os
import stat
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from hf_llava_vqa.archives import is_member_path, list_members, member_path, read_member
from hf_llava_vqa.errors import ImageError

MEMBERS = {"train/a.png": b"first", "train/b.png": b"", "c d.png": bytes(range(256)) * 40}
LIMIT = 20_000


def write_zip(path: Path, members: Mapping[str, bytes] = MEMBERS, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.mkdir("train")
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, members: Mapping[str, bytes] = MEMBERS, mode: str = "w", prefix: str = "./") -> Path:
    with tarfile.open(path, mode) as archive:
        folder = tarfile.TarInfo(f"{prefix}train")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in members.items():
            info = tarfile.TarInfo(f"{prefix}{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def add_special(path: Path, name: str, kind: bytes, target: str = "") -> None:
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        archive.addfile(info)


@pytest.fixture(params=["zip", "tar"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"all.{request.param}"
    return write_zip(path) if request.param == "zip" else write_tar(path)


def refused(archive: Path, member: str = "a.png", limit: int = LIMIT) -> str:
    with pytest.raises(ImageError) as caught:
        read_member(member_path(archive, member), limit)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Reading


def test_members_are_listed_and_read(archive: Path) -> None:
    assert list_members(archive) == list(MEMBERS)
    for name, data in MEMBERS.items():
        assert read_member(member_path(archive, name), LIMIT) == data


def test_paths_say_the_kind_and_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert member_path("all.tar", "train/a.png") == f"tar://train/a.png::{tmp_path}/all.tar"
    assert member_path(Path("all.zip"), "a.png") == f"zip://a.png::{tmp_path}/all.zip"
    assert member_path("images", "a.png").startswith("zip://")
    assert is_member_path(member_path("all.tar", "a.png"))
    assert not is_member_path("train/a.png")


def test_uncompressed_zips_are_read_too(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "all.zip", method=zipfile.ZIP_STORED)
    assert read_member(member_path(archive, "train/a.png"), LIMIT) == b"first"


def test_long_and_foreign_names(tmp_path: Path) -> None:
    members = {"ordner/" * 40 + "käse 图.png": b"long"}
    for path in (write_zip(tmp_path / "a.zip", members), write_tar(tmp_path / "a.tar", members)):
        assert list_members(path) == list(members)
        assert read_member(member_path(path, *members), LIMIT) == b"long"


def contents(paths: list[str]) -> list[bytes]:
    return [read_member(path, LIMIT) for path in paths]


def test_an_open_archive_is_read_by_forked_workers_too(archive: Path) -> None:
    paths = [member_path(archive, name) for name in MEMBERS]
    assert contents(paths) == list(MEMBERS.values())
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(contents, [paths * 20] * 9, chunksize=1) == [list(MEMBERS.values()) * 20] * 9


def test_a_replaced_archive_is_read_anew(archive: Path) -> None:
    write = write_zip if archive.suffix == ".zip" else write_tar
    for data in (b"one", b"two"):
        write(archive, {"a.png": data})
        os.utime(archive, ns=(0, data[0] * 10**9))
        assert read_member(member_path(archive, "a.png"), LIMIT) == data


# What is refused


def test_missing_archives_and_members(archive: Path) -> None:
    assert refused(archive) == f"{archive}: member a.png is not there"
    assert refused(archive, "train") == f"{archive}: member train is not there"
    assert refused(archive, "../all") == f"{archive}: member ../all is not there"
    archive.unlink()
    assert refused(archive) == f"{archive}: no such archive (needed for a.png)"


def test_members_have_a_limit(archive: Path) -> None:
    assert refused(archive, "c d.png", 10_239) == f"{archive}: member c d.png has 10,240 bytes, too many for an image"
    assert len(read_member(member_path(archive, "c d.png"), 10_240)) == 10_240


def test_links_are_listed_but_not_followed(tmp_path: Path) -> None:
    zipped = write_zip(tmp_path / "all.zip")
    with zipfile.ZipFile(zipped, "a") as archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    tarred = write_tar(tmp_path / "all.tar")
    add_special(tarred, "link.png", tarfile.SYMTYPE, "/etc/passwd")
    add_special(tarred, "hard.png", tarfile.LNKTYPE, "./train/a.png")
    add_special(tarred, "pipe.png", tarfile.FIFOTYPE)
    for path, names in ((zipped, ["link.png"]), (tarred, ["link.png", "hard.png", "pipe.png"])):
        assert list_members(path)[-len(names) :] == names
        for name in names:
            assert refused(path, name).endswith(f"member {name} is a link, which is not followed; unpack the archive")


@pytest.mark.parametrize("suffix", ["tar.gz", "tgz", "tar.bz2", "TAR.XZ"])
def test_a_compressed_tar_is_refused_by_its_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"all.{suffix}"
    write_tar(path, mode="w:gz")
    with pytest.raises(ImageError, match=r"a compressed tar cannot be read in place; unpack it, or pack a plain \.tar"):
        list_members(path)


def test_a_compressed_tar_of_another_name_is_damaged(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "all.tar", mode="w:gz")
    assert refused(path).startswith(f"{path}: not a readable plain tar archive (")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(tmp_path: Path, method: int) -> None:
    """They inflate without a limit."""
    path = write_zip(tmp_path / "all.zip", method=method)
    assert "cannot be read: compressed by another method than deflate; pack it again" in refused(path, "c d.png")


def test_a_member_longer_than_it_says_is_damaged(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "all.zip", {"a.png": b"\0" * 1_000_000})
    true, lie = (size.to_bytes(4, "little") for size in (1_000_000, 5_000))
    data = path.read_bytes()
    assert data.count(true) == 2
    path.write_bytes(data.replace(true, lie))
    assert "cannot be read: Bad CRC-32" in refused(path)


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "all.zip", {"a.png": b"secret"})
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\1\2") + 8] |= 1  # general purpose flags in the central directory
    path.write_bytes(data)
    assert "encrypted" in refused(path)


def test_an_archive_that_ends_early(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "all.tar", {"a.png": b"x" * 5000, "b.png": b"y" * 5000})
    whole = path.read_bytes()
    path.write_bytes(whole[: 512 * 3 + 1000])  # folder, header, the first part of a.png
    assert refused(path) == f"{path}: not a readable plain tar archive (unexpected end of data); download it again"


def test_a_member_of_negative_size_ends_the_reading(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "all.tar", {"a.png": b"x" * 600})
    data = bytearray(path.read_bytes())
    header = data.index(b"./a.png")
    data[header + 124 : header + 136] = b"\xff" * 11 + b"\x00"  # base 256, -256
    block = data[header : header + 148] + b" " * 8 + data[header + 156 : header + 512]
    data[header + 148 : header + 156] = f"{sum(block):06o}\0 ".encode()
    path.write_bytes(data)
    assert "not a readable plain tar archive (a member of negative size)" in refused(path)


@pytest.mark.parametrize("name", ["all.zip", "all.tar"])
@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\5\6" + b"\xff" * 18, b"\0" * 100])
def test_what_is_no_archive(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert f"{path}: not a readable" in refused(path)
    with pytest.raises(ImageError, match="not a readable"):
        list_members(path)
