import pytest
from datasets import Dataset, Features, Image, IterableDataset, List, Value
from examples import FUZZ, colour, png
from hypothesis import given
from reader_checks import mutated
from transformers import LlavaProcessor

from hf_llava_vqa.collate import VqaCollator, as_record
from hf_llava_vqa.data import load_folder, load_records, trl_rows
from hf_llava_vqa.errors import ConfigError, RecordError, VqaError

TEXT = Value("string")
CHAT = List({"role": TEXT, "content": TEXT})
TURNS = [{"role": "user", "content": "What is this?"}, {"role": "assistant", "content": "a cup"}]
PICTURES = [{"bytes": png(colour(number)), "path": f"{number}.png"} for number in range(2)]
FORMS = {
    "messages": ({"messages": TURNS}, {"messages": CHAT}),
    "chat": ({"prompt": TURNS[:1], "completion": TURNS[1:]}, {"prompt": CHAT, "completion": CHAT}),
    "plain": ({"prompt": "What is this?", "completion": "a cup"}, {"prompt": TEXT, "completion": TEXT}),
}


def write_set(folder, rows, features, split="train"):
    (folder / "data").mkdir(parents=True, exist_ok=True)
    file = folder / "data" / f"{split}-00000-of-00001.parquet"
    Dataset.from_list(rows, features=Features(features)).to_parquet(file)
    return file


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_are_those_the_collator_takes(tmp_path, tiny_llava, form, streaming):
    texts, types = form
    rows = [{**texts, "images": PICTURES}, {**texts, "images": []}]
    write_set(tmp_path / "set", rows, {**types, "images": List(Image())})
    loaded = load_records("trl", split="train", path=tmp_path / "set", streaming=streaming)
    assert isinstance(loaded, IterableDataset if streaming else Dataset)
    first, second = loaded
    assert first["images"] == PICTURES
    assert [as_record(row)["dialogues"][0]["turns"] for row in (first, second)] == [TURNS, TURNS]
    batch = VqaCollator(LlavaProcessor.from_pretrained(tiny_llava))([first, second])
    assert batch["pixel_values"].shape[0] == 2
    assert (batch["labels"] >= 0).any(dim=1).all()


def test_a_single_picture_and_other_columns(tmp_path):
    rows = [{"messages": TURNS, "image": picture, "licence": "CC0"} for picture in PICTURES]
    write_set(tmp_path, rows, {"messages": CHAT, "image": Image(), "licence": TEXT})
    loaded = load_records("trl", path=tmp_path)
    assert [(row["id"], row["image"], row["licence"]) for row in loaded] == [
        (str(number), picture, "CC0") for number, picture in enumerate(PICTURES)
    ]
    assert as_record(loaded[1])["image_id"] == "1"


def test_ids_stay(tmp_path):
    write_set(tmp_path, [{"messages": TURNS, "id": "x"}], {"messages": CHAT, "id": TEXT})
    assert load_folder("trl", tmp_path, split="train")[0]["id"] == "x"


def test_json_lines(tmp_path):
    rows = Dataset.from_list([{"messages": TURNS}] * 2)
    rows.to_json(tmp_path / "train.jsonl")
    assert load_records("trl", split="train", path=tmp_path)["messages"] == rows["messages"]


@pytest.mark.parametrize(
    ("path", "name", "revision"),
    [
        ("USER/NAME", "USER/NAME", None),
        ("hf://datasets/USER/NAME", "hf://datasets/USER/NAME", None),
        ("hf://datasets/USER/NAME@v1.0", "hf://datasets/USER/NAME", "v1.0"),
        ("/data/a@home", "/data/a@home", None),
    ],
)
def test_sets_of_the_hub(monkeypatch, path, name, revision):
    calls = []

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        return Dataset.from_list([{"messages": TURNS}])

    monkeypatch.setattr(trl_rows, "load_dataset", load_dataset)
    load_records("trl", split="test", path=path, streaming=True)
    assert calls == [((name,), {"revision": revision, "split": "test", "streaming": True})]


def test_the_split_is_named_where_there_are_several(tmp_path):
    for split in ("train", "test"):
        write_set(tmp_path, [{"messages": TURNS}], {"messages": CHAT}, split)
    with pytest.raises(ConfigError, match="split must be one of train, test"):
        load_records("trl", path=tmp_path)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("row", "features", "message"),
    [
        ({"text": "a cup"}, {"text": TEXT}, "no column messages, nor both prompt and completion; found text"),
        ({"prompt": "What?", "image": None}, {"prompt": TEXT, "image": Image()}, "no column messages, nor both"),
        (
            {"messages": TURNS, "image": "a.png"},
            {"messages": CHAT, "image": TEXT},
            "column image holds Value('string')",
        ),
        (
            {"messages": TURNS, "images": ["a.png"]},
            {"messages": CHAT, "images": List(TEXT)},
            "column images holds List(Value('string')), not images; cast it to List(Image(",
        ),
        ({"messages": TURNS, "images": None}, {"messages": CHAT, "images": Image()}, "column images holds Image("),
        ({"messages": TURNS, "image": []}, {"messages": CHAT, "image": List(Image())}, "column image holds List("),
    ],
)
def test_other_columns_are_refused(tmp_path, row, features, message, streaming):
    write_set(tmp_path, [row], features)
    with pytest.raises(RecordError) as caught:
        load_records("trl", split="train", path=tmp_path, streaming=streaming)
    assert str(caught.value).startswith(f"{tmp_path}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("streaming", [False, True])
def test_nothing_there(tmp_path, streaming):
    with pytest.raises(RecordError, match=f"^{tmp_path}/none: Couldn't find any data file"):
        load_records("trl", path=tmp_path / "none", streaming=streaming)
    write_set(tmp_path / "set", [{"messages": TURNS}], {"messages": CHAT})
    with pytest.raises(RecordError, match=f"^{tmp_path}/set: .*val.*train"):
        load_records("trl", split="val", path=tmp_path / "set", streaming=streaming)
    with pytest.raises(RecordError, match=r"^nobody/nothing: Couldn't reach"):
        load_records("trl", path="nobody/nothing", streaming=streaming)


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"messages": []}\n{"messages": \n')
    with pytest.raises(RecordError, match="JSON parse error") as caught:
        load_records("trl", split="train", path=tmp_path)
    assert "\n" not in str(caught.value)


# Rows as they come


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"id": 7, "messages": None},
        {"id": 7, "messages": "What is this?"},
        {"id": 7, "messages": [{"role": "user"}]},
        {"id": 7, "messages": ["What is this?"]},
        {"id": 7, "prompt": "What is this?", "completion": TURNS[1:]},
        {"id": 7, "prompt": TURNS[:1]},
        {"id": 7, "messages": TURNS, "images": 5},
    ],
)
def test_a_row_of_neither_form_is_named(row):
    with pytest.raises(RecordError, match=r"^(7|row): ") as caught:
        as_record(row)
    assert "\n" not in str(caught.value)


def test_roles_that_no_template_has_are_named(tiny_llava):
    row = {"id": 7, "messages": [{"role": "system", "content": "Be nice."}, *TURNS]}
    with pytest.raises(VqaError, match="7, dialogue 7: turn 0 has the role 'system' where 'user' is due"):
        VqaCollator(LlavaProcessor.from_pretrained(tiny_llava))([row])


ROWS = [
    {"id": "x", "images": [], **FORMS["messages"][0]},
    {"id": "x", "image": None, **FORMS["chat"][0]},
    {"id": "x", **FORMS["plain"][0]},
    {"id": "x", "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Why?"}]}]},
]


@FUZZ
@given(rows=mutated(ROWS))
def test_whatever_stands_in_a_row(rows):
    for row in rows:
        if not isinstance(row, dict):
            continue
        try:
            record = as_record(row)
        except VqaError:
            continue
        turns = record["dialogues"][0]["turns"]
        assert all(isinstance(turn["role"], str) and isinstance(turn["content"], str) for turn in turns)
