"""docs/originals.md: every file, configuration and test that it names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "originals.md").read_text(encoding="utf-8")


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE)
    assert len(named) > 40
    gone = [f"{file}::{test}" for file, test in named if f"def {test}(" not in (ROOT / "tests" / file).read_text()]
    assert gone == []


def test_every_file_that_is_named_exists() -> None:
    named = set(re.findall(r"(?:recipes|scripts|accelerate_configs)/(?!test_)[\w/]+\.(?:py|yaml)", PAGE))
    named |= {
        f"hf_llava_vqa/{file}"
        for file in re.findall(r"`((?:data|models|generation|reports|training)/[\w/]+\.py)`", PAGE)
    }
    named |= {f"tests/{file}" for file in re.findall(r"`((?:metrics/)?test_\w+\.py)`", PAGE)}
    assert len(named) > 30
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
