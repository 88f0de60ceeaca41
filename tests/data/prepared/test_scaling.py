import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_llava_vqa.data.prepared.scaling import scaled_down
from hf_llava_vqa.images import open_image


def file_of(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def scaled(data, max_side):
    return scaled_down(data, open_image(data), max_side)


@pytest.mark.parametrize(("format", "stored"), [("JPEG", "JPEG"), ("PNG", "PNG"), ("BMP", "PNG"), ("GIF", "PNG")])
def test_formats(format, stored):
    image = Image.open(io.BytesIO(scaled(file_of(Image.new("RGB", (40, 30), "red"), format), 20)))
    assert (image.format, image.size, image.mode) == (stored, (20, 15), "RGB")


def test_jpeg_keeps_its_colours():
    image = Image.new("RGB", (64, 64), "blue")
    image.paste("red", (0, 0, 32, 64))
    back = open_image(scaled(file_of(image, "JPEG", quality=95, subsampling=0), 32))
    assert [colour > 245 for colour in back.getpixel((14, 5))] == [True, False, False]
    assert [colour > 245 for colour in back.getpixel((17, 5))] == [False, False, True]


def test_a_rotated_photo_is_stored_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = scaled(file_of(Image.new("RGB", (40, 30)), "JPEG", exif=exif), 20)
    image = Image.open(io.BytesIO(data))
    assert image.size == (15, 20)
    assert not image.getexif()


def test_transparency_is_as_in_training():
    see_through = file_of(Image.new("RGBA", (40, 30), (255, 0, 0, 0)), "PNG")
    assert open_image(scaled(see_through, 20)).getpixel((5, 5)) == open_image(see_through).getpixel((5, 5))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_sides(width, height, max_side):
    image = open_image(scaled(file_of(Image.new("RGB", (width, height)), "PNG"), max_side))
    assert max(image.size) == max_side
    assert (width > height) <= (image.width >= image.height)
    assert min(image.size) >= 1
