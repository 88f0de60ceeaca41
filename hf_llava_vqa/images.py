"""Opening pictures safely: formats, size limits, orientation, transparency, and names that stay in their place.

Every image the package looks at comes through `open_image`, so training, evaluation and demos see the same
pixels. Anything that cannot be opened is an `ImageError` that names the file.
"""

import base64
import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from hf_llava_vqa.archives import is_member_path, read_member
from hf_llava_vqa.errors import ImageError, MissingImageError, OversizedImageError, in_line, one_line

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
MEAN_COLOR = (122, 116, 104)
"""CLIP's mean colour in 8 bits: what LLaVA pads with, and what shows through transparent pixels here."""

MAX_PIXELS = 50_000_000
LONGEST_BASE64 = MAX_PIXELS * 16 // 3
"""Characters in which an image file of `MAX_PIXELS` without compression stands in base64."""
_MAX_BYTES_PER_PIXEL = 4  # 8-bit RGBA without compression: a larger file is no image of the allowed size
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's decoders are known to raise on damaged files."""


def open_image(source: Any, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an image to RGB, upright, with transparency composited on `MEAN_COLOR`.

    The first frame of an animation is taken; 16-bit grey is scaled to 8 bits; unreadable EXIF data count as
    upright, as in every viewer. The result carries no metadata, so that no later step rotates or composites
    it again (transformers' processors do if `info` still holds a transparency).

    Args:
        source: a PIL image, the bytes of a file, a path, `zip://member::/path/of/archive.zip` or
            `tar://member::/path/of/archive.tar`, or a dict with `bytes` and `path` as `datasets` stores images.
        max_pixels: width times height allowed; read from the header, before anything is decoded.

    Raises:
        MissingImageError, OversizedImageError: the file is missing, or too large.
        ImageError: it is of another format, truncated or damaged.
    """
    if isinstance(source, Image.Image):
        return _decode(source, "image in memory", max_pixels)
    name = _name_of(source)
    with _opened(source, name, max_pixels) as image:
        return _decode(image, name, max_pixels)


class ImageHeader(NamedTuple):
    """What an image file says about itself."""

    format: str  # one of `FORMATS`
    width: int  # in pixels, as stored: before the image is turned upright
    height: int
    turned: bool  # EXIF says that it is not upright


def open_with_header(source: Any, *, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, ImageHeader]:
    """Decode an image as `open_image` does, and say what its file held. `source` is no PIL image."""
    name = _name_of(source)
    with _opened(source, name, max_pixels) as image:
        decoded = _decode(image, name, max_pixels)
        turned = _orientation(image) in _UPRIGHT
        return decoded, ImageHeader(str(image.format), image.width, image.height, turned)


def check_image(source: Any, *, decode: bool = True, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Check that `open_image` opens an image file, and return its width and height as stored.

    A JPEG is decoded at an eighth of its size. That reads the file to its end and meets what full decoding would, in
    half the time or less.

    Args:
        source: as in `open_image`, but no PIL image.
        decode: False to look at the header only.

    Raises:
        MissingImageError, OversizedImageError: the file is missing, or too large.
        ImageError: it is of another format; with `decode`, also if it is truncated or damaged.
    """
    name = _name_of(source)
    with _opened(source, name, max_pixels) as image:
        width, height = image.size
        _check_pixels(image, name, max_pixels)
        if decode:
            image.draft(image.mode, (max(1, width // 8), max(1, height // 8)))  # does nothing but for JPEG
            _decode(image, name, max_pixels)
    return width, height


def read_image_bytes(source: Any, *, max_pixels: int = MAX_PIXELS) -> bytes:
    """Return the bytes of an image file as they are stored. `source` as in `open_image`, but no PIL image.

    Raises:
        ImageError: the file is missing or too large to be an image of `max_pixels`.
    """
    if isinstance(source, Image.Image):
        raise ImageError("image in memory: its file is gone; read the data with datasets.Image(decode=False)")
    with _open_file(source, _name_of(source), max_pixels) as file:
        return file.read()


def decode_base64(text: str, *, max_pixels: int = MAX_PIXELS) -> bytes:
    """Return the bytes of an image file that stands in an annotation file in base64; its header is checked.

    Raises:
        OversizedImageError: it is too large.
        ImageError: it is not base64, or no image of a known format.
    """
    if len(text) * 3 // 4 > max_pixels * _MAX_BYTES_PER_PIXEL:
        raise OversizedImageError(f"image in base64: {len(text):,} characters are too many for an image")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ImageError(f"image in base64: {one_line(error)}") from error
    check_image(data, decode=False, max_pixels=max_pixels)
    return data


def check_name(name: str) -> None:
    """Check that a name from an annotation file is a relative path without '..', for folders and archives alike.

    Raises:
        ImageError: `name` is empty, absolute or climbs with `..`.
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in name:
        raise ImageError(f"unsafe name {name!r}: it must be a relative path without '..'")


def path_inside(root: str | Path, name: str, *, follow_symlinks: bool = False) -> Path:
    """Return `root / name`; `name` must be a relative path that stays inside `root`, which itself may be a link.

    Args:
        follow_symlinks: allow symbolic links below `root` that lead out of it.

    Raises:
        ImageError: the name is unsafe (see `check_name`), or leads out of `root` through a link.
    """
    check_name(name)
    path = Path(root, name)
    if follow_symlinks:
        return path
    try:
        inside = path.resolve().is_relative_to(Path(root).resolve())
    except (OSError, RuntimeError) as error:
        raise ImageError(f"unsafe name {name!r}: {one_line(error)}") from error
    if not inside:
        raise ImageError(
            f"unsafe name {name!r}: it leads out of {root} through a symbolic link; "
            "if the folder is yours, allow it with follow_symlinks"
        )
    return path


@contextmanager
def _opened(source: Any, name: str, max_pixels: int) -> Iterator[Image.Image]:
    with _open_file(source, name, max_pixels) as file:
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            raise ImageError(f"{name}: not an image of a known format ({', '.join(FORMATS)})") from None
        except Image.DecompressionBombError as error:
            raise OversizedImageError(f"{name}: cannot be decoded: {one_line(error)}") from error
        except _DECODER_ERRORS as error:
            raise ImageError(f"{name}: cannot be decoded: {one_line(error)}") from error
        with image:
            yield image


def _decode(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    _check_pixels(image, name, max_pixels)
    try:
        image.load()
        image = _to_rgb(_upright(image))
    except _DECODER_ERRORS as error:
        raise ImageError(f"{name}: cannot be decoded: {one_line(error)}") from error
    image.info = {}
    return image


def _check_pixels(image: Image.Image, name: str, max_pixels: int) -> None:
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise OversizedImageError(
            f"{name}: {image.width}x{image.height} is {pixels:,} pixels, "
            f"more than the {max_pixels:,} allowed; make the image smaller"
        )


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(_ORIENTATION_TAG)
    except _DECODER_ERRORS:
        return None


def _upright(image: Image.Image) -> Image.Image:
    orientation = _orientation(image)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has no fixed range of brightness; convert it to 8 bits first")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image if image.mode in ("RGBA", "LA") else image.convert("RGBA")
    canvas = Image.new("RGB", image.size, MEAN_COLOR)
    canvas.paste(image, mask=image)
    return canvas


def _name_of(source: Any) -> str:
    if isinstance(source, dict):
        source = source.get("path") or source.get("bytes")
    return "image in memory" if isinstance(source, bytes) else in_line(str(source))


def _open_file(source: Any, name: str, max_pixels: int) -> IO[bytes]:
    if isinstance(source, dict):
        source = source.get("path") if source.get("bytes") is None else source["bytes"]
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not isinstance(source, str | Path):
        raise ImageError(f"an image must be a path, bytes or a PIL image, not {type(source).__name__}")
    max_bytes = max_pixels * _MAX_BYTES_PER_PIXEL
    if is_member_path(str(source)):
        return io.BytesIO(read_member(str(source), max_bytes))
    if not os.path.isfile(source):
        raise MissingImageError(f"{name}: no such image file")
    if os.path.getsize(source) > max_bytes:
        raise OversizedImageError(f"{name}: {os.path.getsize(source):,} bytes are too many for an image")
    try:
        return open(source, "rb")
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {one_line(error)}") from error
