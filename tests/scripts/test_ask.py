"""`scripts/ask.py`: a mistake, before a model is loaded; what it writes is in e2e/test_sft_self_questioning.py."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "ask.py"


@pytest.mark.parametrize("limit", ["0", "-1"])
def test_a_limit_below_1_is_refused_and_nothing_is_written(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "asked"
    monkeypatch.setattr(
        sys, "argv", [str(SCRIPT), "--model", "m", "--data_dir", "d", "--out", str(out), "--limit", limit]
    )
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"ask.py: error: argument --limit: {limit} is not positive"
    assert not out.exists()
