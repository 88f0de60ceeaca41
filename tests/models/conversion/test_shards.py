"""Shards: limited in size, named and indexed as transformers reads them."""

import json
from pathlib import Path

import torch
from originals import original_tensors
from safetensors.torch import load_file

from hf_llava_vqa.models.conversion.shards import write_shards
from hf_llava_vqa.models.tensor_files import TensorFiles, weight_files


def test_several_shards(tmp_path: Path) -> None:
    tensors, limit = original_tensors(), 200_000
    write_shards(tmp_path, tensors.items(), total=len(tensors), shard_bytes=limit)
    files = weight_files(tmp_path)
    assert [file.name for file in files] == sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    assert {path.name for path in tmp_path.iterdir()} - {file.name for file in files} == {
        "model.safetensors.index.json"
    }
    sizes = [[value.nbytes for value in load_file(file).values()] for file in files]
    assert len(files) > 2
    assert all(sum(size) <= limit or len(size) == 1 for size in sizes)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(map(sum, sizes))
    read = dict(TensorFiles(files, str).read())
    assert read.keys() == tensors.keys() == index["weight_map"].keys()
    assert all(torch.equal(value, tensors[name]) for name, value in read.items())


def test_parts_of_one_storage(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    write_shards(tmp_path, [("a", whole[:2]), ("b", whole.T), ("c", whole)], total=3)
    read = load_file(tmp_path / "model.safetensors")
    assert torch.equal(read["a"], whole[:2])
    assert torch.equal(read["b"], whole.T)
