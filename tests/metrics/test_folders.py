"""What holds for every metric folder: complete in itself, its copies of shared rules up to date, loadable."""

import re
from pathlib import Path

import pytest

from scripts.build_metrics import HEADER, METRICS, generated_files

FOLDERS = sorted(path.parent for path in METRICS.glob("*/*.py") if path.stem == path.parent.name)
MARK = HEADER.partition("{")[0]


def siblings(script: Path) -> set[str]:
    return set(re.findall(r"^from \.(\w+) import ", script.read_text(encoding="utf-8"), flags=re.M))


def test_generated_copies_are_up_to_date() -> None:
    """If this fails, run scripts/build_metrics.py; delete copies that nothing imports any more."""
    texts = {path: path.read_text(encoding="utf-8") for path in METRICS.glob("*/*.py")}
    assert {path: text for path, text in texts.items() if text.startswith(MARK)} == generated_files()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_main_script_names_every_sibling(folder: Path) -> None:
    """`evaluate.load` copies only the siblings that the main script imports, not those that they import."""
    named = siblings(folder / f"{folder.name}.py")
    assert set().union(*(siblings(folder / f"{name}.py") for name in named)) <= named


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_main_script_imports_one_module_a_line(folder: Path) -> None:
    """`evaluate.load` reads the script line by line and takes `import a, b` for a package named "a,"."""
    text = (folder / f"{folder.name}.py").read_text(encoding="utf-8")
    assert re.findall(r"^import .*,.*$", text, flags=re.M) == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_folder_is_a_space(folder: Path) -> None:
    header = (folder / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    assert "\nsdk: gradio\n" in header
    assert "\ntags:\n- evaluate\n- metric\n" in header
    required = (folder / "requirements.txt").read_text(encoding="utf-8")
    assert {"datasets", "evaluate"} <= set(re.findall(r"^[a-z]+", required, flags=re.M))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_page_of_every_space_opens(folder: Path, load_page) -> None:
    page = load_page(folder.name)
    assert page.article.startswith("\n# ")
    assert callable(page.fn)


def test_a_page_computes_and_shows_mistakes(load_page) -> None:
    compute = load_page("pope").fn
    assert compute('["No"]', '["no"]', '{"variant": "lmms"}')["accuracy"] == 1
    for arguments in (("[1]", '["no"]', "{}"), ("[", '["no"]', "{}"), ('["No"]', '["no"]', '{"variants": "lmms"}')):
        with pytest.raises(load_page.Error):
            compute(*arguments)
