"""How a test has runs started, killed and resumed."""

import json
import os
import select
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from signal import SIGKILL
from typing import Any

from training_run import Kill, Run


class Zygote:
    """The process that forks the runs, see zygote.py."""

    def __init__(self, cache: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(cache)},
        )

    def start(self, run: Run, processes: int) -> int:
        """Start the ranks of a run and return their process group."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"processes": processes, "run": asdict(run)}) + "\n")
        self.process.stdin.flush()
        return self._answer()["group"]

    def wait(self) -> list[int]:
        """The exit codes of the ranks of the run that was started last."""
        return self._answer()["statuses"]

    def has_ended(self, within: float) -> bool:
        """Whether the run that was started last ends in so many seconds."""
        return bool(select.select([self.process.stdout], [], [], within)[0])

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def attempts(
    zygote: Zygote, run: Run, processes: int, kills: tuple[Kill, ...], *, first: int = 0, to_the_end: bool = True
) -> None:
    """Start the run and kill it, once for each of `kills`; unless told otherwise, resume it then until it ends.

    A rank that is left without the others fails by itself or is killed by the zygote.
    """
    Path(run.folder).mkdir(parents=True, exist_ok=True)
    for number, kill in enumerate([*kills, None] if to_the_end else kills, first):
        zygote.start(replace(run, attempt=number, kill=kill and asdict(kill)), processes)
        codes = zygote.wait()
        told = "".join(run.log(rank).read_text()[-2000:] for rank in range(processes))
        if kill is None:
            assert codes == [0] * processes, told
        elif kill.signal != SIGKILL:
            assert codes == [128 + kill.signal] * processes, told
        elif kill.rank is None:
            assert codes == [-SIGKILL] * processes, told
        else:
            assert codes[kill.rank] == -SIGKILL, told
            assert 0 not in codes, told
