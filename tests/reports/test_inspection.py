"""What an inspection finds: in pictures, in answers, in tokens, between splits."""

import json
import os
from itertools import pairwise

import pytest
from broken_set import SKIPPED, jpeg, row, write_broken_set, write_sound_set, write_split
from examples import ANSWERS, chain, question, record, records
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa import prompts
from hf_llava_vqa.answers import weighted_answers
from hf_llava_vqa.collate import VqaCollator, prompt_turns
from hf_llava_vqa.data import load_folder
from hf_llava_vqa.data.prepared.preparation import write_shards
from hf_llava_vqa.data.reading.missing import keep_missing_images
from hf_llava_vqa.data.skip_list import load_folder_without, read_skip_list
from hf_llava_vqa.errors import ImageError
from hf_llava_vqa.metrics.vizwiz_accuracy.answer_rules import answer_accuracy
from hf_llava_vqa.models.loading import load_processor
from hf_llava_vqa.reports.inspection import pictures
from hf_llava_vqa.reports.inspection.answers import AnswerTally
from hf_llava_vqa.reports.inspection.numbers import BARS, distribution
from hf_llava_vqa.reports.inspection.pictures import check_pictures
from hf_llava_vqa.reports.inspection.report import inspect_set
from hf_llava_vqa.reports.inspection.summary import marked_rows, summary
from hf_llava_vqa.reports.inspection.tokens import TokenTally, marked_text


def inspect(root, *, splits=("train", "val"), source="vizwiz", batch_size=3, collator=None, workers=1):
    with keep_missing_images():
        loaded = {split: load_folder(source, root, split=split) for split in splits}
    return inspect_set(loaded, source=source, batch_size=batch_size, collator=collator, workers=workers)


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    return write_broken_set(tmp_path_factory.mktemp("broken"))


@pytest.fixture(scope="module")
def found(broken):
    return inspect(broken)


@pytest.fixture(scope="module")
def collator(tiny_llava):
    return VqaCollator(load_processor(str(tiny_llava)), answer_target="votes")


# Pictures


def test_bad_pictures_are_told_apart(broken, found):
    bad = {entry["image_id"]: entry for entry in found.report["splits"]["train"]["pictures"]["bad"]}
    unreadable = {name: reason for name, reason in SKIPPED.items() if reason != "leaked"}
    assert {name: entry["problem"] for name, entry in bad.items()} == unreadable
    assert bad["gone.jpg"]["path"] == str(broken / "train" / "gone.jpg")
    assert "no such image file" in bad["gone.jpg"]["reason"]
    assert "64,000,000 pixels" in bad["huge.png"]["reason"]


def test_pictures_that_open_can_be_odd(found):
    train = found.report["splits"]["train"]["pictures"]
    assert train["turned"] == ["turned.jpg"]
    assert train["tiny"] == ["tiny.jpg"]
    assert train["duplicates"] == [["fine.jpg", "twin.jpg"]]
    assert train["formats"] == {"JPEG": 5}
    assert (train["count"], train["width"]["count"]) == (9, 5)
    assert (train["height"]["min"], train["height"]["max"]) == (31, 60)  # the turned one stands upright
    assert train["aspect"]["min"] == pytest.approx(40 / 60)


def test_a_picture_of_two_splits_leaks(found):
    (leak,) = found.report["leaks"]
    assert leak["records"] == {"train": ["leaked.jpg"], "val": ["known.jpg"]}
    assert len(leak["sha256"]) == 64


def test_the_skip_list_names_what_training_does_without(broken, found, tmp_path):
    found.write(tmp_path)
    skip = read_skip_list(tmp_path / "skip_list.txt", split="train")
    assert skip == SKIPPED
    assert read_skip_list(tmp_path / "skip_list.txt", split="val") == {}
    left = load_folder_without(skip, "vizwiz", broken, split="train")
    assert left["image_id"] == ["fine.jpg", "turned.jpg", "tiny.jpg", "twin.jpg"]
    assert inspect_set({"train": left}, source="vizwiz", batch_size=3, collator=None, workers=1).skipped == []


def test_a_leak_is_left_out_of_all_splits_but_the_last(broken):
    report = inspect(broken, splits=("val", "train")).report
    leaked = [line for line in report["skip_list"] if line["reason"] == "leaked"]
    assert leaked == [{"image_id": "known.jpg", "reason": "leaked", "split": "val"}]


def test_steps_are_counted_without_what_is_left_out(found):
    train, val = found.report["splits"].values()
    assert (train["records"], train["left_out"], train["steps_per_epoch"]) == (9, 5, 2)
    assert (val["records"], val["left_out"], val["steps_per_epoch"]) == (2, 0, 1)


def test_processes_change_nothing(broken, found):
    assert inspect(broken, workers=3).report == found.report


def test_the_report_is_json_of_its_own_words(found, tmp_path):
    found.write(tmp_path)
    assert json.loads((tmp_path / "inspection.json").read_text()) == json.loads(json.dumps(found.report))


def test_a_prepared_set_is_inspected_too(tmp_path):
    root = write_sound_set(tmp_path / "set")
    for split in ("train", "val"):
        write_shards(load_folder("vizwiz", root, split=split), tmp_path / "shards", split=split)
    report = inspect(tmp_path / "shards", source="parquet").report
    train = report["splits"]["train"]
    assert (train["pictures"]["count"], train["pictures"]["bad"], report["skip_list"]) == (2, [], [])
    assert train["answers"]["variant"] == "vizwiz"


def test_records_without_pictures_and_conversations(tmp_path):
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cup."}]
    (tmp_path / "train.json").write_text(json.dumps([{"id": "1", "conversations": turns}]))
    inspection = inspect(tmp_path, splits=["train"], source="llava_json")
    train = inspection.report["splits"]["train"]
    assert (train["pictures"]["count"], train["pictures"]["width"], train["answers"]["without_answers"]) == (
        0,
        None,
        [],
    )
    assert train["answers"]["unanswerable"]["rate"] is None


def test_pictures_are_read_a_few_ahead():
    asked = 0

    def endless():
        nonlocal asked
        while True:
            asked += 1
            yield record(str(asked), [question("q")], colours=[(asked % 256, 0, 0)])

    checked = check_pictures(endless(), workers=2)
    assert [next(checked).image_id for _ in range(5)] == ["1", "2", "3", "4", "5"]
    assert asked <= 5 + 8
    checked.close()


def die(image_id, image):
    os._exit(1)


def test_a_process_that_dies_is_one_line(monkeypatch):
    monkeypatch.setattr(pictures, "check_picture", die)
    some = [record(str(number), [question("q")], colours=[(0, 0, 0)]) for number in range(30)]
    with pytest.raises(ImageError, match="a process died while it decoded 0 or one of the pictures after it") as raised:
        list(check_pictures(some, workers=2))
    assert "\n" not in str(raised.value)


# Numbers


@given(st.lists(st.integers(0, 10**6), min_size=1) | st.lists(st.floats(0.01, 100), min_size=1))
def test_bars_hold_every_number_once(numbers):
    summed = distribution(numbers)
    bars = summed["bars"]
    assert len(bars) <= BARS
    assert sum(count for *_, count in bars) == summed["count"] == len(numbers)
    assert all(left[1] == right[0] for left, right in pairwise(bars))
    assert bars[0][0] <= min(numbers)
    assert max(numbers) <= bars[-1][1]
    for low, high, count in bars[:-1]:
        assert count == sum(low <= number < high for number in numbers)


def test_without_numbers_there_is_no_distribution():
    assert distribution([]) is None


# Answers


def tally(*given):
    counted = AnswerTally()
    for number, answers in enumerate(given):
        counted.add(record(str(number), [question(f"{number}.0", answers=answers)]))
    return counted.findings("vizwiz")


def test_answers_are_counted():
    found = tally(["Red.", "red", "blue"], ["unanswerable", "unanswerable", "red"], ["", " "], [])
    assert found["top"][:2] == [("red", 3), ("unanswerable", 2)]
    assert (found["answers"], found["answers_per_question"]) == (8, {"2": 1, "3": 2})
    assert found["without_answers"] == ["2.0", "3.0"]
    assert found["unanswerable"] == {"questions": 1, "rate": 1 / 3, "labelled": 0}


def test_conversations_need_no_human_answers():
    counted = AnswerTally()
    counted.add(record("a", [chain("a.0", "What?", "A cup."), chain("a.1", "What?", "A cup.", "Sure?")]))
    found = counted.findings("")
    assert found["without_answers"] == ["a.1"]
    assert found["questions_per_image"] == {"2": 1}


def test_an_answer_that_people_write_otherwise_than_the_scorer_reads_it_loses():
    found = tally(["Coke Can."] * 6 + ["coke"] * 4)
    assert found["unreachable"]["vizwiz"] == {
        "questions": 1,
        "questions_lost": 1,
        "answers_lost": 6,
        "examples": [["Coke Can.", "coke can", 6]],
    }
    assert found["unreachable"]["vqa"]["answers_lost"] == 0
    assert found["unreachable_everywhere"] == []


def test_an_answer_without_words_loses_everywhere():
    found = tally(["The"] * 9 + ["cup"])
    assert found["unreachable_everywhere"] == [("The", 1)]
    assert found["unreachable"]["competition_fixed"]["examples"] == [["The", "", 9]]


def test_a_scorer_of_ten_answers_is_asked_about_ten():
    assert tally(["The"] * 9)["unreachable"]["m4c"]["questions"] == 0
    assert tally(["The"] * 10)["unreachable"]["m4c"]["questions"] == 1


@given(st.lists(st.sampled_from([*ANSWERS, "Yes", "a red can.", "The", "an"]), min_size=1, max_size=10))
def test_what_loses_with_vizwiz_scores_less_than_among_clean_answers(answers):
    examples = tally(answers)["unreachable"]["vizwiz"]["examples"]
    read = {answer: AnswerTally().losses["vizwiz"].rules.read_prediction(answer) for answer in answers}
    for answer in answers:
        fair = answer_accuracy(answer, [read[given] for given in answers])
        lost = not read[answer] or answer_accuracy(answer, answers) < fair
        assert lost == (answer in [text for text, *_ in examples])


# Tokens


@given(records())
def test_tokens_are_those_of_the_collator(collator, made):
    counted = TokenTally(collator)
    for one in made:
        counted.add(one)
    assert sum(counted.rows) == sum(map(collator.count_tokens, made))
    assert sorted(counted.paths) == sorted(length for one in made for length in lengths_of_paths(collator, one))


def paths_of(collator, one):
    for dialogue in one["dialogues"]:
        turns = prompt_turns(one, dialogue)
        answers = [answer["answer"] for answer in dialogue["answers"]]
        if turns[-1]["role"] == "assistant":
            yield turns
        else:
            for text, _ in weighted_answers(answers, collator.answer_target):
                yield [*turns, {"role": "assistant", "content": text}]


def lengths_of_paths(collator, one):
    for turns in paths_of(collator, one):
        ids, _ = prompts.encode(turns, collator.processor.tokenizer)
        yield len(ids) + ids.count(collator.image_token_id) * (collator.image_tokens - 1)


@given(records(max_records=1))
def test_marked_text_is_the_text_of_the_paths(collator, made):
    (one,) = made
    tokenizer = collator.processor.tokenizer
    expected = [tokenizer.decode(prompts.encode(turns, tokenizer)[0]) for turns in paths_of(collator, one)]
    assert sorted(read for tree in collator.trees(one) for read in read_back(marked_text(tree, tokenizer))) == sorted(
        expected
    )


def read_back(lines):
    """The text of every path: what is above a line by its level, to each line that nothing is indented below."""
    above: list[str] = []
    for line, after in zip(lines, [*lines[1:], {"level": 0}], strict=True):
        above[line["level"] :] = ["".join(span["text"] for span in line["spans"])]
        if after["level"] <= line["level"]:
            yield "".join(above)


def test_supervised_text_is_marked_with_its_weight(collator):
    one = record("a", [question("a.0", answers=["yes"] * 3 + ["no"])], colours=[(0, 0, 0)])
    (tree,) = collator.trees(one)
    lines = marked_text(tree, collator.processor.tokenizer)
    supervised = [span for line in lines for span in line["spans"] if span["supervised"]]
    assert [(span["text"].strip(), span["weight"]) for span in supervised] == [("yes</s>", 0.75), ("no</s>", 0.25)]
    assert all(span["weight"] == 0 for line in lines for span in line["spans"] if not span["supervised"])


def test_a_record_that_cannot_be_trained_on_is_named(collator):
    counted = TokenTally(collator)
    counted.add(record("a", [question("a.0", answers=[])]))
    counted.add(record("b", [question("b.0")]))
    (entry,) = counted.findings()["untrainable"]
    assert entry["image_id"] == "a"
    assert "dialogue a.0: has no answers to train on" in entry["reason"]
    assert counted.findings()["rows"]["count"] == 1


def test_three_rows_are_marked(collator):
    counted = TokenTally(collator)
    for number in range(5):
        counted.add(record(str(number), [question("q")]))
    assert [row["image_id"] for row in counted.findings()["marked"]] == ["0", "1", "2"]


# In lines


def test_the_summary_names_what_was_found(found):
    lines = summary(found.report).splitlines()
    assert lines[0] == "train: 9 records, 9 pictures, 9 questions, 90 answers; 2 steps an epoch, 3 records each"
    assert lines[1] == ("  pictures: 1 missing, 2 corrupt, 1 oversized, 1 turned by EXIF, 1 tiny, 1 in several records")
    assert "  answers: 100.0 % of the questions are unanswerable; the scorer vizwiz cannot match 0 answers" in lines
    assert lines[-2:] == [
        "leaks: 1 picture in more than one split",
        "skip list: 5 records (1 missing, 2 corrupt, 1 oversized, 1 leaked)",
    ]


def test_marked_rows_are_one_line_a_stretch(tmp_path, collator):
    write_split(tmp_path, "train", {"a\tb.jpg": jpeg(0)}, [row("a\tb.jpg", "What\u2028is this?", ["yes"] * 9 + ["no"])])
    inspection = inspect(tmp_path, splits=["train"], collator=collator)
    head, trunk, *branches = marked_rows(inspection.report).splitlines()
    assert head.startswith(r"'a\tb.jpg': ")
    assert r"What\u2028is this?\nWhen the provided" in trunk
    assert [branch.replace(" ", "") for branch in branches] == [":⟦yes</s>⟧×0.9", ":⟦no</s>⟧×0.1"]


def test_without_a_tokenizer_no_rows_are_marked(found):
    assert marked_rows(found.report) == ""
