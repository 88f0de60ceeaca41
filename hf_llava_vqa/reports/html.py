"""What HTML pages share: templates that escape every text, the style of `base.css`, and pictures inside the page."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from PIL import Image

THUMBNAIL = 480  # longest side in pixels: twice the width a card shows, for dense screens


def load_template(name: str, **filters: Callable[..., Any]) -> Template:
    """Load a template of this folder."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name)


def write_html(path: str | Path, template: Template, **values: Any) -> None:
    """Write a page, with its folder if need be."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(template.render(values), encoding="utf-8")


def inline_picture(image: Image.Image) -> str:
    """Return a picture as a `data:` address, no larger than a thumbnail; the picture itself is left as it is."""
    shown = image.copy()
    shown.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    shown.save(file, format="WEBP", quality=90)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
