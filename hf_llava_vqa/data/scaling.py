"""Scaling pictures down when a set is prepared: what a 12-megapixel photo loses, a 336-pixel tower never saw."""

import io

from PIL import Image

_LOSSY = b"\xff\xd8\xff"  # how JPEG files begin


def scaled_down(data: bytes, image: Image.Image, max_side: int | None) -> bytes:
    """Return the file of a picture whose longer side is at most `max_side` pixels.

    A picture that is no larger keeps its file as it is. A larger one is scaled with Lanczos and stored upright and in
    RGB, as `images.open_image` shows it: JPEG (quality 95, colours at full resolution) as JPEG, other formats as PNG.

    Args:
        data: the file.
        image: the file opened by `images.open_image`.
        max_side: None to keep every file as it is.
    """
    longer = max(image.size)
    if max_side is None or longer <= max_side:
        return data
    width, height = (max(1, round(side * max_side / longer)) for side in image.size)
    scaled = image.resize((width, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    if data.startswith(_LOSSY):
        scaled.save(file, "JPEG", quality=95, subsampling=0)
    else:
        scaled.save(file, "PNG")
    return file.getvalue()
