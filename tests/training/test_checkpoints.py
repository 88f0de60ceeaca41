"""Whole checkpoints: what the manifest says, what a crash at any point leaves, and which one is chosen."""

import json
from pathlib import Path

import pytest

from hf_llava_vqa.errors import ConfigError
from hf_llava_vqa.training.checkpoints import (
    MANIFEST_FILE,
    STAGING,
    checkpoint_folder,
    clear_staging,
    defect,
    newest_whole,
    publish,
    seal,
    staging_folder,
)
from hf_llava_vqa.training.resume import check_same_run, choose_checkpoint
from hf_llava_vqa.training.training_recipe import RECIPE_FILE, differences


def write(output: Path, step: int, content: str = "weights") -> Path:
    """A whole checkpoint with one file in it and one below it."""
    checkpoint = checkpoint_folder(output, step)
    staged = staging_folder(checkpoint)
    (staged / "below").mkdir(parents=True)
    (staged / "model").write_text(f"{content} of step {step}")
    (staged / "below" / "state").write_text("state")
    seal(staged)
    publish(staged, checkpoint)
    return checkpoint


def test_a_published_checkpoint_is_whole_and_leaves_nothing_aside(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, 4)
    assert defect(checkpoint) is None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]
    assert set(json.loads((checkpoint / MANIFEST_FILE).read_text())["files"]) == {"model", "below/state"}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "model").write_text("weights of step 11"), "model has changed"),
        (lambda folder: (folder / "model").write_text("short"), "model has 5 bytes, not 18"),
        (lambda folder: (folder / "below" / "state").unlink(), "below/state is missing"),
        (lambda folder: (folder / MANIFEST_FILE).unlink(), "no MANIFEST.json"),
        (lambda folder: (folder / MANIFEST_FILE).write_text("{"), "MANIFEST.json cannot be read"),
        (lambda folder: (folder / MANIFEST_FILE).write_text('{"files": ["model"]}'), "MANIFEST.json cannot be read"),
        (lambda folder: (folder / MANIFEST_FILE).write_text('{"files": {"a": 1}}'), "MANIFEST.json cannot be read"),
    ],
)
def test_damage_is_found_and_the_checkpoint_before_is_taken(tmp_path, capsys, damage, reason) -> None:
    older, newer = write(tmp_path, 8), write(tmp_path, 10)
    damage(newer)
    assert newest_whole(tmp_path) == (older, {newer: reason})
    assert choose_checkpoint("auto", tmp_path) == older
    assert f"passed over {newer}: " in capsys.readouterr().out


def test_the_highest_step_is_the_newest(tmp_path: Path) -> None:
    steps = [write(tmp_path, step) for step in (100, 20, 9)]
    (tmp_path / "checkpoint-best").mkdir()  # not a name of ours
    assert newest_whole(tmp_path) == (steps[0], {})


def test_what_an_interrupted_save_left_is_never_chosen(tmp_path: Path) -> None:
    whole = write(tmp_path, 2)
    staged = staging_folder(checkpoint_folder(tmp_path, 4))
    staged.mkdir(parents=True)
    (staged / "model").write_text("half")
    assert newest_whole(tmp_path) == (whole, {})
    clear_staging(tmp_path)
    assert not (tmp_path / STAGING).exists()


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    write(tmp_path, 2, "old")
    checkpoint = write(tmp_path, 2, "new")
    assert (checkpoint / "model").read_text() == "new of step 2"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


def test_a_crash_between_the_two_renames_of_a_replacement_loses_nothing(tmp_path, monkeypatch) -> None:
    from hf_llava_vqa.training import checkpoints

    write(tmp_path, 2, "old")
    rename, calls = checkpoints.os.rename, []

    def crash_at_the_second(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise SystemExit
        rename(source, target)

    monkeypatch.setattr(checkpoints.os, "rename", crash_at_the_second)
    with pytest.raises(SystemExit):
        write(tmp_path, 2, "new")
    monkeypatch.undo()
    assert newest_whole(tmp_path) == (None, {})
    clear_staging(tmp_path)
    chosen, _ = newest_whole(tmp_path)
    assert (chosen / "model").read_text() == "old of step 2"


def test_auto_begins_anew_without_a_whole_checkpoint_and_says_so(tmp_path, capsys) -> None:
    assert choose_checkpoint("auto", tmp_path / "nothing") is None
    (checkpoint_folder(tmp_path, 2)).mkdir()
    assert choose_checkpoint("auto", tmp_path) is None
    assert "no MANIFEST.json" in capsys.readouterr().out


@pytest.mark.parametrize("wish", [None, False])
def test_a_new_run_does_not_mix_with_an_earlier_one(tmp_path: Path, wish) -> None:
    assert choose_checkpoint(wish, tmp_path) is None
    write(tmp_path, 6)
    with pytest.raises(ConfigError, match=r"checkpoint-6 is there already; go on with --resume_from_checkpoint auto"):
        choose_checkpoint(wish, tmp_path)


def test_a_named_checkpoint_must_be_whole(tmp_path: Path) -> None:
    whole = write(tmp_path, 2)
    assert choose_checkpoint(str(whole), tmp_path / "other") == whole
    with pytest.raises(ConfigError, match="no such folder"):
        choose_checkpoint(str(tmp_path / "checkpoint-4"), tmp_path)
    (whole / "model").write_text("w")
    with pytest.raises(ConfigError, match="model has 1 bytes"):
        choose_checkpoint(str(whole), tmp_path)


def test_an_earlier_checkpoint_is_refused_while_later_ones_stand(tmp_path: Path) -> None:
    earlier, later = write(tmp_path, 2), write(tmp_path, 6)
    with pytest.raises(ConfigError, match=r"checkpoint-6 is later than .*checkpoint-2: move or delete what is later"):
        choose_checkpoint(str(earlier), tmp_path)
    assert choose_checkpoint(str(later), tmp_path) == later
    assert choose_checkpoint(str(earlier), tmp_path / "other") == earlier


def test_another_run_is_refused_with_what_differs(tmp_path, capsys) -> None:
    saved = {"seed": 1, "data": "a" * 64, "template": "v1", "base model": None, "data_seed": None}
    current = {"seed": 2, "data": "b" * 64, "template": "v1", "base model": "c" * 64, "data_seed": None}
    (tmp_path / RECIPE_FILE).write_text(json.dumps({"identity": saved}))
    with pytest.raises(ConfigError, match=r"seed 1 became 2; data aaaaaaaa… became bbbbbbbb…; .* --force_resume"):
        check_same_run(tmp_path, current, force=False)
    check_same_run(tmp_path, current, force=True)
    assert "all the same: seed 1 became 2" in capsys.readouterr().out
    check_same_run(tmp_path, saved, force=False)


def test_a_setting_that_was_added_counts_as_a_difference_only_if_both_know_it() -> None:
    assert differences({"seed": 1}, {"seed": 1, "data": "x"}) == []
