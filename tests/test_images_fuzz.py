"""Damaged files, lying headers, bombs and archives: every one is an image or an `ImageError`, within 2 s and 500 MB."""

import contextlib
import functools
import io
import itertools
import os
import resource
import signal
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import FUZZ, damaged
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_llava_vqa.archives import list_members, member_path
from hf_llava_vqa.errors import ImageError
from hf_llava_vqa.images import FORMATS, MAX_PIXELS, check_image, open_image, read_image_bytes

SECONDS = 2  # of the processor
MEGABYTES = 500
pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow warns of much that it then refuses or repairs

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8))
EXIF = Image.Exif()
EXIF[0x0112] = 6
EXIF[0x010E] = "a description"


def encoded(format: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    PICTURE.convert(mode).save(file, format, **options)
    return file.getvalue()


ANIMATED = {"save_all": True, "append_images": [PICTURE.rotate(90)]}
FILES = [
    encoded("JPEG", exif=EXIF),
    encoded("JPEG", "L", progressive=True),
    encoded("JPEG", "CMYK"),
    encoded("PNG", exif=EXIF),
    encoded("PNG", "RGBA", icc_profile=b"profile" * 40),
    encoded("PNG", "LA"),
    encoded("PNG", "P", transparency=0),
    encoded("PNG", "1"),
    encoded("PNG", "I;16"),
    encoded("PNG", **ANIMATED),
    encoded("WEBP", exif=EXIF),
    encoded("WEBP", "RGBA", lossless=True),
    encoded("WEBP", **ANIMATED),
    encoded("BMP"),
    encoded("BMP", "P"),
    encoded("BMP", "RGBA"),
    encoded("GIF"),
    encoded("GIF", "P", transparency=0, **ANIMATED),
]


class OutOfTime(BaseException):
    """Not one of the errors that decoders raise."""


@contextlib.contextmanager
def limits(megabytes: int = MEGABYTES) -> Iterator[None]:
    """Raise MemoryError or OutOfTime where the block needs more than allowed."""

    def out_of_time(*_: Any) -> None:
        raise OutOfTime

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    memory = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGPROF, out_of_time)
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, memory[1]))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, memory)


def survives(source: Any, megabytes: int = MEGABYTES) -> None:
    image, message = None, ""
    try:
        with limits(megabytes):
            image = open_image(source)
    except ImageError as error:
        message = str(error)
    assert "\n" not in message
    assert image is None or (image.mode == "RGB" and 0 < image.width * image.height <= MAX_PIXELS)


# Files


@FUZZ
@given(st.data())
def test_damaged_files(data: st.DataObject) -> None:
    survives(data.draw(damaged(data.draw(st.sampled_from(FILES)))))


@FUZZ
@given(st.sampled_from([file[:cut] for file in FILES for cut in (2, 8, 12, 16, 30)]), st.binary(max_size=80))
def test_the_beginning_of_a_file_and_then_anything(start: bytes, rest: bytes) -> None:
    survives(start + rest)


@FUZZ
@given(st.data())
def test_a_check_finds_what_opening_would(data: st.DataObject) -> None:
    file = data.draw(damaged(data.draw(st.sampled_from(FILES))))
    assert fails(check_image, file) == fails(open_image, file)
    if fails(functools.partial(check_image, decode=False), file):
        assert fails(open_image, file)


def fails(opener: Callable[[bytes], object], file: bytes) -> bool:
    try:
        opener(file)
    except ImageError:
        return True
    return False


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, pixels: bytes = b"", *chunks: bytes, bits: int = 8, colour: int = 2) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    image = png_chunk(b"IDAT", zlib.compress(pixels)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + image


def claiming(format: str, width: int, height: int) -> bytes:
    """A small file whose header promises a picture of this size, as far as the format can say it."""
    if format == "PNG":
        return png(width, height)
    if format == "JPEG":
        data = bytearray(encoded("JPEG"))
        where = data.index(b"\xff\xc0") + 5
        data[where : where + 4] = struct.pack(">HH", min(height, 65_535), min(width, 65_535))
        return bytes(data)
    if format == "GIF":
        size = struct.pack("<HH", min(width, 65_535), min(height, 65_535))
        data = bytearray(encoded("GIF"))
        frame = data.index(b",", 13 + 3 * 2 ** ((data[10] & 7) + 1))
        data[6:10] = data[frame + 5 : frame + 9] = size
        return bytes(data)
    if format == "BMP":
        data = encoded("BMP")
        return data[:18] + struct.pack("<II", width, height) + data[26:]
    canvas = (min(width, 2**24) - 1).to_bytes(3, "little") + (min(height, 2**24) - 1).to_bytes(3, "little")
    data = encoded("WEBP", exif=EXIF)
    return data[:24] + canvas + data[30:]


SIDES = st.sampled_from([1, 1_000, 7_000, 10_000, 31_623, 65_500, 2**24, 2**31 - 1]) | st.integers(1, 2**31 - 1)


@pytest.mark.parametrize("format", FORMATS)
@given(width=SIDES, height=SIDES)
def test_headers_that_promise_any_size(format: str, width: int, height: int) -> None:
    survives(claiming(format, width, height))


@pytest.mark.parametrize("format", FORMATS)
def test_a_thousand_million_pixels_are_refused_unseen(format: str) -> None:
    with limits(), pytest.raises(ImageError, match=r"pixels|decompression bomb|cannot be decoded"):
        open_image(claiming(format, 31_623, 31_623))


SIDE = 5_000
LARGE = {"RGB": (2, 8, 3), "RGBA": (6, 8, 4), "LA": (4, 8, 2), "L": (0, 8, 1), "I;16": (0, 16, 2), "RGB;16": (2, 16, 6)}


@pytest.mark.parametrize(("colour", "bits", "width"), LARGE.values(), ids=LARGE)
def test_a_small_file_of_a_large_picture(colour: int, bits: int, width: int) -> None:
    """Half of the pixels allowed, so within half of the memory."""
    survives(png(SIDE, SIDE, bytes(SIDE * (width * SIDE + 1)), bits=bits, colour=colour), MEGABYTES // 2)


@pytest.mark.parametrize("kind", ["pixels", "zTXt", "iTXt", "iCCP", "many zTXt"])
def test_bombs_in_a_tiny_picture(kind: str) -> None:
    body = {"zTXt": b"a\0\0", "iTXt": b"a\0\1\0\0\0", "iCCP": b"a\0\0"}
    if kind == "pixels":
        bomb = png(4, 4, bytes(2**27))
    elif kind == "many zTXt":
        bomb = png(4, 4, b"", *[png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6)))] * 128)
    else:
        bomb = png(4, 4, b"", png_chunk(kind.encode(), body[kind] + zlib.compress(bytes(2**27))))
    survives(bomb, megabytes=100)


# Archives


def zip_archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/a.png", FILES[3])
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("text.png", b"no picture")
    return file.getvalue()


def tar_archive(format: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for name, kind in (
            ("link.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        for name in ("train/a.png", "long/" * 30 + "ä.png"):
            info = tarfile.TarInfo(name)
            info.size = len(FILES[3])
            archive.addfile(info, io.BytesIO(FILES[3]))
    return file.getvalue()


ARCHIVES = {
    "a.zip": zip_archive(),
    "gnu.tar": tar_archive(tarfile.GNU_FORMAT),
    "pax.tar": tar_archive(tarfile.PAX_FORMAT),
}
NAMES = ("train/a.png", "link.png", "hard.png", "pipe.png", "text.png", "../a.png", "/etc/passwd", "")


@FUZZ
@given(st.data())
def test_damaged_archives(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(ARCHIVES)))
    path = tmp_path_factory.getbasetemp() / f"fuzz_{name}"
    path.write_bytes(data.draw(damaged(ARCHIVES[name])))
    os.utime(path, ns=(0, next(MOMENTS)))
    members = [data.draw(st.sampled_from(NAMES))]
    with contextlib.suppress(ImageError), limits():
        members += list_members(path)
    for member in members[:2]:
        survives(member_path(path, member))


MOMENTS = itertools.count()


@pytest.mark.parametrize("declared", [None, 0, 5_000, 4_000_000, 10**8, 2**31 - 1])
def test_zip_bombs_whatever_size_they_declare(tmp_path: Path, declared: int | None) -> None:
    path, true = tmp_path / "bomb.zip", 2**27 + 0x654321
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(true))
    if declared is not None:
        data = path.read_bytes()
        assert data.count(struct.pack("<I", true)) == 2
        path.write_bytes(data.replace(struct.pack("<I", true), struct.pack("<I", declared)))
    for read in (open_image, read_image_bytes):
        with limits(megabytes=50), pytest.raises(ImageError):
            read(member_path(path, "a.png"), max_pixels=10**6)


# Whatever else is given


ANYTHING = st.none() | st.integers() | st.text() | st.binary(max_size=20) | st.floats() | st.just(Path("."))


@given(ANYTHING | st.dictionaries(st.sampled_from(["bytes", "path", "else"]), ANYTHING, max_size=2))
def test_sources_of_any_kind(source: Any) -> None:
    survives(source)


@given(st.text(), st.text(), st.sampled_from(["zip://", "tar://"]))
def test_members_of_any_name(member: str, archive: str, prefix: str) -> None:
    survives(f"{prefix}{member}::{archive}")
