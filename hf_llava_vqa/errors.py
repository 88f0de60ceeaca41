"""What goes wrong when a user's input is at fault: one exception class a room, and how a script reports it.

Every message is one line that says what is wrong, where (file, row, flag) and what to do about it.
"""

import functools
import sys
from collections.abc import Callable

from tqdm.auto import tqdm


class VqaError(Exception):
    """A mistake in the user's input. Its message is complete: scripts print it without a traceback."""


class RecordError(VqaError):
    """A source file or record that does not have the documented shape."""


class ImageError(VqaError):
    """An image that is missing, unsafe or cannot be decoded."""


class MissingImageError(ImageError):
    """An image that is not where it should be."""


class OversizedImageError(ImageError):
    """An image of more pixels, or a file of more bytes, than is allowed."""


class PromptError(VqaError):
    """A dialogue that cannot be turned into tokens and labels."""


class ForestError(VqaError):
    """A tree that breaks the forest's invariants; names the token at fault."""


class ConfigError(VqaError):
    """A flag or a configuration key that cannot work."""


class ModelError(VqaError):
    """A checkpoint that is not what the command needs."""


class TrainingError(VqaError):
    """A training run that cannot go on: its numbers, its loader or a rank of it failed."""


class TrainingStopped(Exception):
    """Training ended early because it was told to, with everything saved: no mistake, but not the end either.

    Attributes:
        exit_code: 128 + the number of the signal, as shells report it.
    """

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def one_line(error: BaseException) -> str:
    """What another library's error says, on one line; the name of its class if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def in_line(name: str) -> str:
    """A name from a file or an archive as messages show it: quoted where it would break the line."""
    return name if name.isprintable() else repr(name)


def cli(main: Callable[[], None]) -> Callable[[], None]:
    """Decorate a script's `main`: a `VqaError` becomes one line on stderr and exit code 2; a stop has its own code."""

    @functools.wraps(main)
    def run() -> None:
        try:
            main()
        except VqaError as error:
            tqdm.write(f"error: {_message(error)}", file=sys.stderr)  # on a line of its own, also beside a bar
            sys.exit(2)
        except TrainingStopped as stop:
            tqdm.write(f"stopped: {stop}", file=sys.stderr)
            sys.exit(stop.exit_code)

    return run


def _message(error: VqaError) -> str:
    """The one line of the error; a loader's worker sends it as the last line of its traceback, behind the class."""
    last_line = str(error).strip().splitlines()[-1]
    return last_line.removeprefix(f"{type(error).__module__}.{type(error).__qualname__}: ")
