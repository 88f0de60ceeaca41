"""Data flows one way: a room imports only rooms before it in the order CONTRIBUTING.md gives."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hf_llava_vqa"
ORDER = (
    *("errors", "flags", "metrics", "records", "archives", "images", "augmentation", "bad_images", "data", "prompts"),
    *("self_questioning", "answers", "forest", "collate", "models", "generation", "training", "reports", "hub", "demo"),
)
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    ours = [name.split(".")[1] for name in names if name.startswith("hf_llava_vqa.")]
    return {name for name in ours if name in ORDER}


def test_every_file_is_in_a_room() -> None:
    assert {room_of(path) for path in FILES} == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_uses_only_rooms_before_it(path: Path) -> None:
    here = ORDER.index(room_of(path))
    assert {name for name in imported_rooms(path) if ORDER.index(name) > here} == set()


def test_metrics_import_nothing_of_ours() -> None:
    assert all(not imported_rooms(path) for path in FILES if room_of(path) == "metrics")
