"""Scaling pictures down when a set is prepared: what a 12-megapixel photo loses, a 336-pixel tower never saw."""

import io

from PIL import Image

_LOSSY = b"\xff\xd8\xff"  # how JPEG files begin


def scaled_down(data: bytes, image: Image.Image, max_side: int) -> bytes:
    """Return the file of a picture scaled so that its longer side has `max_side` pixels, with Lanczos.

    It is stored upright and in RGB, as `images.open_image` shows it: JPEG (quality 95, colours at full resolution) as
    JPEG, other formats as PNG.

    Args:
        data: the file, whose longer side is longer.
        image: the file opened by `images.open_image`.
    """
    longer = max(image.size)
    width, height = (max(1, round(side * max_side / longer)) for side in image.size)
    scaled = image.resize((width, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    if data.startswith(_LOSSY):
        scaled.save(file, "JPEG", quality=95, subsampling=0)
    else:
        scaled.save(file, "PNG")
    return file.getvalue()
