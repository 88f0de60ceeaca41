"""Who keeps the other ranks waiting, on tables of what they wrote down."""

import pytest

from hf_llava_vqa.training.guards.pulses import Pulse, diagnose, pulse_file, read_pulse, write_pulse

NOW = 10_000.0


def pulse(rank: int, *, beats: int = 40, step: int = 12, phase: str = "computing", since: int = 600, seen: int = 3):
    """A rank whose main thread came here `since` seconds ago and whose pulse is `seen` seconds old."""
    return Pulse(rank, beats, step, phase, NOW - since, NOW - seen, process=70 + rank, host="node")


@pytest.mark.parametrize(
    ("others", "blamed"),
    [
        ([pulse(1), pulse(2)], None),
        ([pulse(1, since=900), pulse(2, phase="evaluating")], None),
        ([], None),
        (
            [pulse(1, seen=540), pulse(2)],
            "rank 1 stopped answering at step 12 (no sign of life for 540 s; process 71 on node)",
        ),
        (
            [pulse(1, seen=540), pulse(2, seen=500)],
            "rank 1 stopped answering at step 12 (no sign of life for 540 s; process 71 on node)",
        ),
        (
            [pulse(1), pulse(2, beats=39, step=11, phase="reading data", since=630)],
            "rank 2 stopped answering at step 11 (reading data for 630 s; process 72 on node)",
        ),
        (  # behind, but only because its process is stopped
            [pulse(1, beats=39, seen=540), pulse(2, beats=38)],
            "rank 1 stopped answering at step 12 (no sign of life for 540 s; process 71 on node)",
        ),
        (  # this rank itself keeps the others waiting
            [pulse(1, beats=41), pulse(2, beats=41)],
            "rank 0 stopped answering at step 12 (computing for 600 s; process 70 on node)",
        ),
    ],
)
def test_who_is_to_blame(others, blamed) -> None:
    assert diagnose([pulse(0), *others], NOW, silence=400) == blamed


def test_a_pulse_is_read_as_it_was_written(tmp_path) -> None:
    file = pulse_file(tmp_path, 1)
    assert read_pulse(file) is None
    for beats in range(2):
        write_pulse(file, pulse(1, beats=beats))
        assert read_pulse(file) == pulse(1, beats=beats)
    assert list(tmp_path.iterdir()) == [file]
