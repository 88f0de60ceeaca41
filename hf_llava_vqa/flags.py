"""Types of command-line flags that several scripts share."""

import argparse


def positive(text: str) -> int:
    """A whole number of at least 1. Raises what argparse shows with the flag's name."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number
