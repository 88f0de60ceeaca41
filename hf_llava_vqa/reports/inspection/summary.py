"""An inspection on the terminal: what was found in a few lines, and the first rows with the supervised text marked."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from hf_llava_vqa.errors import in_line
from hf_llava_vqa.reports.inspection.pictures import PROBLEMS

MARKED_LINES = 12  # of each row; the page shows all


def summary(report: Mapping[str, Any]) -> str:
    """What was found, a few lines a split."""
    lines = [line for name, split in report["splits"].items() for line in _split_lines(name, split, report)]
    if report["leaks"]:
        lines.append(f"leaks: {_many(len(report['leaks']), 'picture')} in more than one split")
    reasons = Counter(line["reason"] for line in report["skip_list"])
    named = f" ({_counted(reasons)})" if reasons else ""
    lines.append(f"skip list: {_many(len(report['skip_list']), 'record')}{named}")
    return "\n".join(lines)


def _split_lines(name: str, split: Mapping[str, Any], report: Mapping[str, Any]) -> Iterator[str]:
    pictures, answers, tokens = split["pictures"], split["answers"], split["tokens"]
    counts = [(split["records"], "record"), (pictures["count"], "picture")]
    counts += [(answers["questions"], "question"), (answers["answers"], "answer")]
    steps = f"{_many(split['steps_per_epoch'], 'step')} an epoch, {_many(report['batch_size'], 'record')} each"
    yield f"{name}: {', '.join(_many(count, what) for count, what in counts)}; {steps}"
    problems = Counter(bad["problem"] for bad in pictures["bad"])
    found = {problem: problems[problem] for problem in PROBLEMS}
    found |= {"turned by EXIF": len(pictures["turned"]), "tiny": len(pictures["tiny"])}
    found |= {"in several records": len(pictures["duplicates"])}
    yield f"  pictures: {_counted(found) or 'nothing is wrong'}"
    if answers["answers"]:
        yield f"  answers: {_about_answers(answers)}"
    if tokens is not None:
        yield from _about_tokens(tokens)


def _about_tokens(tokens: Mapping[str, Any]) -> Iterator[str]:
    rows, untrainable = tokens["rows"], tokens["untrainable"]
    if rows is not None:
        lengths = f"{_many(rows['count'], 'row')} of {rows['min']:,} to {rows['max']:,}"
        yield f"  tokens: {lengths}, {tokens['total']:,} in all; longest path {tokens['paths']['max']:,}"
    if untrainable:
        reason = in_line(untrainable[0]["reason"])
        yield f"  {_many(len(untrainable), 'record')} cannot be trained on, the first: {reason}"


def _about_answers(answers: Mapping[str, Any]) -> str:
    parts = [f"{100 * answers['unanswerable']['rate']:.1f} % of the questions are unanswerable"]
    if answers["without_answers"]:
        parts.append(f"{len(answers['without_answers']):,} have no answer")
    if answers["variant"]:
        lost = answers["unreachable"][answers["variant"]]["answers_lost"]
        parts.append(f"the scorer {answers['variant']} cannot match {_many(lost, 'answer')}")
    return "; ".join(parts)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def marked_rows(report: Mapping[str, Any]) -> str:
    """The first rows of the first split, a span a line, indented by branchings; ⟦ ⟧ holds what is trained on."""
    tokens = next(iter(report["splits"].values()))["tokens"]
    return "\n".join("\n".join(_row_lines(row)) for row in tokens["marked"]) if tokens is not None else ""


def _row_lines(row: Mapping[str, Any]) -> Iterator[str]:
    yield f"{in_line(row['image_id'])}: {_many(row['tokens'], 'token')}, trained on what stands in ⟦ ⟧"
    for line in row["lines"][:MARKED_LINES]:
        yield "  " * (line["level"] + 1) + "".join(map(_marked, line["spans"]))
    left = len(row["lines"]) - MARKED_LINES
    if left > 0:
        yield f"  … and {_many(left, 'line')} more, see the page"


def _marked(span: Mapping[str, Any]) -> str:
    text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in span["text"])
    return f"⟦{text}⟧ × {span['weight']:.2g}" if span["supervised"] else text
