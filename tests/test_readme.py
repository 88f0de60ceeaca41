"""The documentation: its Python and shell blocks run, its links lead somewhere.

Blocks of a document run in order in a scratch folder laid out like the repository, where tiny stand-ins lie under
the names that the text uses: `llava-hf/llava-1.5-7b-hf` is a random LLaVA, `data/vizwiz` a few pictures. `make TARGET`
is not run; the target has to exist.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def blocks(document: str, language: str | None = None) -> list[tuple[str, str]]:
    """(language, text) of every fenced block."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / document).read_text(encoding="utf-8"), flags=re.M | re.S)
    return [(name, text) for name, text in found if language in (None, name)]


def is_make(text: str) -> bool:
    return text.startswith("make ")


@pytest.fixture
def workspace(tmp_path: Path, tiny_llava: Path) -> Path:
    for name in ("accelerate_configs", "recipes", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "llava-hf").mkdir()
    (tmp_path / "llava-hf" / "llava-1.5-7b-hf").symlink_to(tiny_llava)
    write_vizwiz(tmp_path / "data" / "vizwiz")
    return tmp_path


def write_vizwiz(root: Path) -> None:
    """Two pictures a split in VizWiz's format, ten answers each but for the test split."""
    for shade, split in enumerate(("train", "val", "test")):
        (root / split).mkdir(parents=True)
        names = [f"VizWiz_{split}_{number:08d}.jpg" for number in range(2)]
        for number, name in enumerate(names):
            Image.new("RGB", (48, 32), (80 * number, 120, 200 - 20 * shade)).save(root / split / name)
        questions = [{"image": name, "question": "What colour is this?"} for name in names]
        if split != "test":
            answers = [{"answer": "blue", "answer_confidence": "yes"}] * 10
            for question in questions:
                question.update(answers=answers, answer_type="other", answerable=1)
        (root / f"{split}.json").write_text(json.dumps(questions), encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_blocks_say_what_they_are(document: str) -> None:
    assert {language for language, _ in blocks(document)} <= {"bash", "python"}


@pytest.mark.e2e
@pytest.mark.parametrize("document", [name for name in DOCUMENTS if any(not is_make(text) for _, text in blocks(name))])
def test_blocks_run(document: str, workspace: Path) -> None:
    binaries = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{binaries}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    for language, text in blocks(document):
        if is_make(text):
            continue
        shell = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(shell, cwd=workspace, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_exist(document: str) -> None:
    rules = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    for _, text in blocks(document, "bash"):
        assert set(re.findall(r"^make (\S+)$", text, flags=re.M)) <= set(rules)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_named_files_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    missing = [link for link in links if not (ROOT / document).parent.joinpath(link).exists()]
    named = re.findall(r"`((?:recipes|scripts|accelerate_configs|tests|docs)/[\w./-]+\.\w+)`", text)
    assert missing + [name for name in named if not (ROOT / name).exists()] == []
