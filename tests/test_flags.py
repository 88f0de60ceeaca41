"""Types of flags, as argparse uses them."""

import argparse

import pytest

from hf_llava_vqa.flags import positive


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=positive)
    return parser


def test_a_positive_number(parser: argparse.ArgumentParser) -> None:
    assert parser.parse_args(["--rounds", "12"]).rounds == 12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "argument --rounds: 0 is not positive"),
        ("-3", "argument --rounds: -3 is not positive"),
        ("two", "argument --rounds: invalid positive value: 'two'"),
        ("1.5", "argument --rounds: invalid positive value: '1.5'"),
    ],
)
def test_anything_else_is_refused_by_the_name_of_the_flag(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["--rounds", text])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(message)
