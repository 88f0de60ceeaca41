from huggingface_hub import DatasetCard

from hf_llava_vqa.data.prepared.card import card


def manifest(**splits):
    return {"source": "vizwiz", "splits": splits}


def split(rows, **fields):
    shards = [{"file": "data/train-00000-of-00001.parquet", "bytes": 2_500_000}]
    return {"rows": rows, "dialogues": 2 * rows, "answers": 20 * rows, "shards": shards, **fields}


def test_the_header_tells_where_splits_lie():
    data = DatasetCard(card(manifest(train=split(900), val=split(200)))).data.to_dict()
    assert data == {
        "license": "cc-by-4.0",
        "task_categories": ["visual-question-answering"],
        "size_categories": "1K<n<10K",
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": "train", "path": "data/train-*.parquet"},
                    {"split": "val", "path": "data/val-*.parquet"},
                ],
            }
        ],
    }


def test_the_text_counts_and_names_the_origin():
    fields = {"left_out": 3, "max_side": 1024, "source_files": {"train.json": "ab12"}}
    text = card(manifest(train=split(1234, **fields)))
    assert "| train | 1,234 | 2,468 | 24,680 | 3 | 1 | 2.5 |" in text
    assert "Pictures of train are scaled down to 1,024 pixels on their longer side." in text
    assert "| train | train.json | `ab12` |" in text
    assert "The data are of https://vizwiz.org/tasks-and-datasets/vqa/." in text
    assert 'load_dataset("USER/NAME", split="train")' in text


def test_a_source_of_ones_own_and_splits_of_an_earlier_version():
    text = card({"source": "", "splits": {"mine": split(5)}})
    assert DatasetCard(text).data.license == "other"
    assert "See the owner's terms" in text
    assert "read from" not in text
