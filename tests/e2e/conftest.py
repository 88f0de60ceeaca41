"""A small VizWiz folder whose answers can be seen: plain colours, two questions an image, ten people a question."""

import json
import random
from pathlib import Path

import pytest
from PIL import Image

COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="session")
def vizwiz_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train.json`, `val.json`, `test.json` and their image folders; shared, so do not write into it."""
    root = tmp_path_factory.mktemp("vizwiz")
    random.seed(0)
    for split, images in (("train", 24), ("val", 8), ("test", 4)):
        (root / split).mkdir()
        rows = []
        for number in range(images):
            name = f"VizWiz_{split}_{number:08d}.jpg"
            colour = random.choice(COLOURS)
            Image.new("RGB", (40, 60), colour).save(root / split / name)
            for question, answer in (
                ("What color is it?", colour),
                ("Is it red?", "yes" if colour == "red" else "no"),
            ):
                given = [answer] * 8 + ["unanswerable"] * 2
                rows.append({"image": name, "question": question})
                if split != "test":
                    rows[-1]["answers"] = [{"answer": text, "answer_confidence": "yes"} for text in given]
                    rows[-1] |= {"answer_type": "other", "answerable": 1}
        if split == "test":  # one question an image, as the server's file has it
            rows = rows[::2]
        (root / f"{split}.json").write_text(json.dumps(rows))
    return root
