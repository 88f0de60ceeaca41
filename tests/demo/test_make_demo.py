"""`scripts/make_demo.py data`: what it prints, and a mistake in one line."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_demo.py"


def run(monkeypatch: pytest.MonkeyPatch, *args: object) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, args)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_data_is_what_is_made_by_default(tmp_path: Path, monkeypatch, capsys):
    run(monkeypatch, "--out", tmp_path, "--train_images", 6, "--held_out_images", 4, "--questions_per_image", 3)
    printed = capsys.readouterr().out
    assert "train: 18 questions" in printed
    assert "val: 12 questions" in printed
    assert "15% of answers differ from the truth" in printed
    assert "ceiling on val: " in printed
    assert len(list((tmp_path / "train").iterdir())) == 6


def test_too_many_pictures_is_one_line_on_stderr(tmp_path: Path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "data", "--out", tmp_path, "--held_out_images", 5000)
    assert capsys.readouterr().err == "error: 5000 val images asked for, there are 954; ask for fewer\n"


@pytest.mark.parametrize("flag", ["--train_images", "--held_out_images", "--questions_per_image"])
def test_sizes_below_1_are_refused_and_nothing_is_written(flag: str, tmp_path: Path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "data", "--out", tmp_path / "data", flag, 0)
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"argument {flag}: 0 is not positive")
    assert not (tmp_path / "data").exists()
