"""The command: it writes what it says, and mistakes are one line."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from originals import TOWER, original_model, original_tensors
from safetensors.torch import load_file

SCRIPT = Path(__file__).parents[2] / "scripts" / "convert_checkpoint.py"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    source, ours, back = original_model(tmp_path / "source"), tmp_path / "models" / "ours", tmp_path / "back"
    run(monkeypatch, source, "--out", ours, "--vision_tower", TOWER)
    run(monkeypatch, ours, "--out", back, "--to", "original", "--vision_tower", "clip-tiny")
    captured = capsys.readouterr()
    assert captured.out == f"written to {ours}\nwritten to {back}\n"
    assert "converting" not in captured.err  # the bar is for terminals
    read = load_file(back / "model.safetensors")
    assert all(torch.equal(read[name], value) for name, value in original_tensors().items())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "is in our layout already; load_model and the recipes take it as it is"),
        (["--to", "original"], "--vision_tower is needed: the CLIP that the original code will find under this name"),
        (
            ["--to", "original", "--language_model", "a"],
            "--to original reads the base that the source names; leave out",
        ),
    ],
)
def test_mistakes_are_one_line(
    flags: list[str],
    message: str,
    tiny_llava: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, tiny_llava, "--out", tmp_path / "out", *flags)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()
