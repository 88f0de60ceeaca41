"""Trees against what they stand for: separate sequences, read back exactly and with the same loss and gradients."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.nn.attention.flex_attention import create_mask

from hf_llava_vqa import forest
from hf_llava_vqa.errors import ForestError
from hf_llava_vqa.forest import IGNORE_INDEX, Path, Tree

VOCABULARY = 6  # few tokens, so that paths share prefixes by chance as well
IMAGE = 5


@st.composite
def paths(draw: st.DrawFn, *, max_questions: int = 12, max_answers: int = 10) -> list[Path]:
    """One image's paths: a trunk with 0-2 images, questions below it, answers below them; some are long chains."""
    tokens = st.integers(0, VOCABULARY - 2)
    images = draw(st.integers(0, 2))
    trunk = [0, *[IMAGE] * images, *draw(st.lists(tokens, max_size=3))]
    result: list[Path] = []
    for _ in range(draw(st.integers(1, max_questions))):
        chain = [*trunk, *draw(st.lists(tokens, min_size=1, max_size=3))]
        flags = [False] * len(chain)
        for _ in range(draw(st.integers(0, 2))):  # earlier turns, with answers of their own
            answer, question = (
                draw(st.lists(tokens, min_size=1, max_size=2)),
                draw(st.lists(tokens, min_size=1, max_size=2)),
            )
            chain, flags = chain + answer + question, flags + [True] * len(answer) + [False] * len(question)
        for answer in draw(st.lists(st.lists(tokens, max_size=3), min_size=1, max_size=max_answers)):
            result.append((chain + answer, flags + [True] * len(answer)))
    return result


@st.composite
def weighted_paths(draw: st.DrawFn, **sizes: int) -> tuple[list[Path], list[float]]:
    drawn = draw(paths(**sizes))
    weight = st.sampled_from([0.0, 0.1, 0.3, 1.0])
    return drawn, draw(st.lists(weight, min_size=len(drawn), max_size=len(drawn)))


def ancestors(tree: Tree, index: int) -> list[int]:
    """The tokens from the root down to `index`, by walking parents."""
    line = []
    while index >= 0:
        line.append(int(index))
        index = tree.parent[index]
    return line[::-1]


def shareable(path: Path) -> int:
    """How many of a path's first tokens may be shared: all before the one that predicts the first answer token."""
    ids, flags = path
    return (list(flags).index(True) if any(flags) else len(ids)) - 1


def widened(path: Path, width: int) -> Path:
    """A path with every image as `width` tokens."""
    copies = [width if token == IMAGE else 1 for token in path[0]]
    return np.repeat(path[0], copies).tolist(), np.repeat(path[1], copies).tolist()


# Structure


@given(weighted_paths())
def test_every_path_is_read_back(drawn: tuple[list[Path], list[float]]) -> None:
    given_paths, weights = drawn
    tree = forest.merge(given_paths, weights)
    assert len(tree.leaves) == len(given_paths)
    for (ids, flags), weight, leaf in zip(given_paths, weights, tree.leaves, strict=True):
        line = ancestors(tree, leaf)
        assert tree.input_ids[line].tolist() == ids
        assert tree.supervised[line].tolist() == flags
        assert tree.weights[line].tolist() == [weight if flag else 0.0 for flag in flags]


@given(paths())
def test_prefixes_are_shared_up_to_the_first_predictor_and_no_further(given_paths: list[Path]) -> None:
    tree = forest.merge(given_paths)
    prefixes = {tuple(path[0][:end]) for path in given_paths for end in range(1, shareable(path) + 1)}
    assert len(tree) == len(prefixes) + sum(len(path[0]) - shareable(path) for path in given_paths)
    owners = np.zeros(len(tree), int)  # number of paths through each token
    for leaf in tree.leaves:
        owners[ancestors(tree, leaf)] += 1
    assert (owners[tree.supervised > 0] == 1).all()
    for path, leaf in zip(given_paths, tree.leaves, strict=True):
        assert (owners[ancestors(tree, leaf)[shareable(path) :]] == 1).all()


def test_the_chain_of_a_batch_is_the_shortest_and_may_end_in_padding() -> None:
    chain = forest.merge([([0, 1, 2], [False] * 3)])
    branching = forest.merge([([0, 1, 2, 3], [False] * 4), ([0, 1, 4, 3], [False] * 4)])
    short, long = forest.lay_out([chain, branching])
    assert [forest.chain_length(rows) for rows in ([short], [long], [short, long], [long, short])] == [3, 4, 4, 4]
    longer = forest.lay_out([forest.merge([([0] * 7, [False] * 7)])])
    assert forest.chain_length([short, *longer]) == 7
    assert forest.chain_length(forest.lay_out([chain, chain], row_length=6)) == 3
    ends = torch.from_numpy(forest.pad_rows([short, long], pad_token_id=9)["subtree_end"])
    assert forest.attention_mask(ends, 2).equal(forest.attention_mask(ends)[:, :, 2:])


def test_a_one_token_answer_has_a_predictor_of_its_own() -> None:
    tree = forest.merge([([0, 1, 2], [False, False, True]), ([0, 1, 3], [False, False, True])])
    assert tree.input_ids.tolist() == [0, 1, 2, 1, 3]
    assert tree.parent.tolist() == [-1, 0, 1, 0, 3]


@given(st.lists(paths(max_questions=3, max_answers=3), min_size=1, max_size=4), st.integers(0, 40))
def test_rows_carry_depth_and_ancestors(groups: list[list[Path]], room: int) -> None:
    trees = [forest.merge(group) for group in groups]
    rows = forest.lay_out(trees, row_length=max(map(len, trees)) + room)
    assert sorted(number for row in rows for number in row.trees) == list(range(len(trees)))
    assert all(len(row) <= max(map(len, trees)) + room for row in rows)
    batch = forest.pad_rows(rows, pad_token_id=9)
    mask = forest.attention_mask(torch.from_numpy(batch["subtree_end"])).numpy()
    for number, row in enumerate(rows):
        expected = np.eye(mask.shape[-1], dtype=bool)  # padding sees itself and is seen by nothing else
        starts = np.cumsum([0, *(len(trees[tree_number]) for tree_number in row.trees)]).tolist()
        assert starts[-1] == len(row)
        for tree_number, start in zip(row.trees, starts, strict=False):
            tree = trees[tree_number]
            own = slice(start, start + len(tree))
            lines = [ancestors(tree, index) for index in range(len(tree))]
            for index, line in enumerate(lines):
                expected[start + index, [start + seen for seen in line]] = True
            assert row.position_ids[own].tolist() == [len(line) - 1 for line in lines]
            assert row.input_ids[own].tolist() == tree.input_ids.tolist()
            assert row.labels[own].tolist() == np.where(tree.supervised, tree.input_ids, IGNORE_INDEX).tolist()
            assert row.weights[own].tolist() == tree.weights.tolist()
        assert (mask[number, 0] == expected).all()
        padding = slice(len(row), None)
        chain = forest.chain_length([row])
        assert (mask[number, 0, :chain, :chain] == np.tri(chain)).all()
        assert chain == len(row) or not (mask[number, 0, : chain + 1, : chain + 1] == np.tri(chain + 1)).all()
        assert (batch["input_ids"][number, padding] == 9).all()
        assert not batch["position_ids"][number, padding].any()
        assert not batch["weights"][number, padding].any()
        assert (batch["labels"][number, padding] == IGNORE_INDEX).all()


@settings(max_examples=30)
@given(st.lists(paths(max_questions=3, max_answers=3), min_size=1, max_size=4), st.integers(0, 300), st.integers(1, 99))
def test_the_block_mask_is_the_dense_mask(groups: list[list[Path]], room: int, image_tokens: int) -> None:
    trees = [forest.expand_images(forest.merge(group), IMAGE, image_tokens) for group in groups]
    rows = forest.lay_out(trees, row_length=max(map(len, trees)) + room)
    ends = torch.from_numpy(forest.pad_rows(rows, 9, length=max(map(len, rows)) + room)["subtree_end"])
    dense, blocks = forest.attention_mask(ends), forest.block_mask(ends)
    assert create_mask(blocks.mask_mod, len(ends), 1, *dense.shape[2:], device="cpu").equal(dense)
    assert dense.any(-1).all()  # a softmax over nothing is not a number
    rounded = -len(ends[0]) % forest.BLOCK
    tiles = (
        functional.pad(dense, (0, rounded, 0, rounded))
        .unflatten(3, (-1, forest.BLOCK))
        .unflatten(2, (-1, forest.BLOCK))
    )
    assert blocks.to_dense().bool().equal(tiles.any(5).any(3))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 5))
def test_starts_of_paths_are_the_mask_of_a_packed_row(lengths: list[int], padding: int) -> None:
    trees = [forest.merge([([0] * length, [False] * length)]) for length in lengths]
    (row,) = forest.lay_out(trees, row_length=sum(lengths))
    starts = forest.path_starts(row, len(row) + padding)
    assert starts.dtype == np.int32
    assert np.diff(starts).tolist() == lengths + [padding] * (padding > 0)
    assert row.position_ids[starts[: len(lengths)]].tolist() == [0] * len(lengths)


def test_a_tree_with_branches_is_no_path() -> None:
    chain = forest.merge([([0, 1, 2], [False] * 3)])
    fork = forest.merge([([0, 1, 2, 3], [False] * 4), ([0, 1, 4, 3], [False] * 4)])
    (row,) = forest.lay_out([chain, fork, chain], row_length=20)
    with pytest.raises(ForestError, match="tree 1 has branches"):
        forest.path_starts(row, len(row))


@given(st.lists(paths(max_questions=3, max_answers=3), min_size=1, max_size=3), st.booleans())
def test_leaves_that_nothing_reads_are_trimmed_and_still_predicted(groups: list[list[Path]], packed: bool) -> None:
    trees = [forest.merge(group, [0.5] * len(group)) for group in groups]
    for row in forest.lay_out(trees, row_length=sum(map(len, trees)) if packed else None):
        trimmed = forest.trim_leaves(row)
        unread = [  # supervised, the end of its path, and not the end of its tree
            bool(row.supervised[i] and row.subtree_end[i] == i + 1 and row.position_ids[i + 1])
            for i in range(len(row) - 1)
        ]
        kept = np.flatnonzero(~np.array([*unread, False]))
        assert trimmed.input_ids.tolist() == row.input_ids[kept].tolist()
        assert trimmed.position_ids.tolist() == row.position_ids[kept].tolist()
        mask, whole = (forest.attention_mask(torch.from_numpy(each.subtree_end)[None])[0, 0] for each in (trimmed, row))
        assert mask.equal(whole[kept][:, kept])
        assert trimmed.trees == row.trees
        for i in np.flatnonzero(row.supervised):
            place = int(np.searchsorted(kept, i - 1)) + 1  # behind the token that predicts it
            assert kept[place - 1] == i - 1
            predicted = [getattr(trimmed, name)[place] for name in ("labels", "supervised", "weights")]
            assert predicted == [row.input_ids[i], row.supervised[i], row.weights[i]]
        assert np.count_nonzero(trimmed.supervised) == np.count_nonzero(row.supervised)
        assert ((trimmed.labels == IGNORE_INDEX) == (trimmed.supervised == 0)).all()


def test_every_branch_but_the_last_is_a_token_shorter_when_trimmed() -> None:
    answered = [([0, 1, token, 9], [0, 0, 1, 1]) for token in (2, 3, 4)]
    (row,) = forest.lay_out([forest.merge(answered)])
    trimmed = forest.trim_leaves(row)
    assert row.input_ids.tolist() == [0, 1, 2, 9, 1, 3, 9, 1, 4, 9]
    assert trimmed.input_ids.tolist() == [0, 1, 2, 1, 3, 1, 4, 9]
    assert trimmed.labels.tolist() == [IGNORE_INDEX, IGNORE_INDEX, 2, 9, 3, 9, 4, 9]
    assert trimmed.subtree_end.tolist() == [8, 3, 3, 5, 5, 8, 8, 8]


def test_one_tree_a_row_unless_a_row_length_is_given() -> None:
    trees = [forest.merge([([0] * length, [False] * length)]) for length in (5, 4, 2, 3)]
    assert [row.trees for row in forest.lay_out(trees)] == [[0], [1], [2], [3]]
    assert [row.trees for row in forest.lay_out(trees, row_length=8)] == [[0, 2], [1, 3]]


# Images


@given(paths(), st.integers(1, 4))
def test_images_are_widened_on_every_path(given_paths: list[Path], width: int) -> None:
    tree = forest.expand_images(forest.merge(given_paths), IMAGE, width)
    for path, leaf in zip(given_paths, tree.leaves, strict=True):
        line = ancestors(tree, leaf)
        assert (tree.input_ids[line].tolist(), tree.supervised[line].tolist()) == widened(path, width)
    forest.check_tree(tree)


@given(paths())
def test_slots_are_counted_along_their_own_path(given_paths: list[Path]) -> None:
    tree = forest.merge(given_paths)
    slots = np.flatnonzero(tree.input_ids == IMAGE)
    assert forest.image_order(tree, IMAGE) == [
        sum(tree.input_ids[above] == IMAGE for above in ancestors(tree, slot)) - 1 for slot in slots
    ]


def test_an_image_that_is_not_shared_occurs_in_every_branch() -> None:
    branches = [([0, token, IMAGE, 1, 2], [False] * 4 + [True]) for token in (3, 4)]
    first, second = [0, IMAGE, 1, IMAGE, 3, 2], [0, IMAGE, 1, IMAGE, 4, 2]
    assert forest.image_order(forest.merge(branches), IMAGE) == [0, 0]
    tree = forest.merge([(first, [False] * 5 + [True]), (second, [False] * 5 + [True])])
    assert forest.image_order(tree, IMAGE) == [0, 1]


# What is refused

GOOD = ([0, 1], [False, True])


@pytest.mark.parametrize(
    ("given_paths", "weights", "message"),
    [
        ([], None, "at least one path"),
        ([GOOD], [1.0, 1.0], "1 paths, 2 weights"),
        ([GOOD, ([], [])], None, "path 1 has 0 tokens"),
        ([([0, 1], [False])], None, "path 0 has 2 tokens and 1 flags"),
        ([GOOD, ([0, 1], [True, True])], None, "path 1 starts with a supervised token"),
        ([GOOD], [-0.5], "path 0 has the weight -0.5"),
        ([GOOD, GOOD], [1.0, math.nan], "path 1 has the weight nan"),
        ([GOOD], [math.inf], "path 0 has the weight inf"),
    ],
)
def test_merge_refuses(given_paths: list[Path], weights: list[float] | None, message: str) -> None:
    with pytest.raises(ForestError, match=message):
        forest.merge(given_paths, weights)


def hand_made(parent: Sequence[int], supervised: Sequence[int] = ()) -> Tree:
    flags = np.isin(np.arange(len(parent)), supervised)
    ids = np.arange(len(parent))
    return Tree(ids, np.asarray(parent), flags, flags.astype(float), ids[-1:])


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (hand_made([-1, 1]), "tree 1, token 1: its parent does not come before it"),
        (hand_made([-1, 2, 0]), "tree 1, token 1: its parent does not come before it"),
        (hand_made([-1, -2]), "tree 1, token 1: its parent does not come before it"),
        (hand_made([-1, 0, 0, 1]), "tree 1, token 1: its subtree is not contiguous"),
        (hand_made([-1, 0, 0], supervised=[2]), "tree 1, token 2: supervised, but does not follow"),
        (hand_made([-1, 0], supervised=[0]), "tree 1, token 0: supervised, but does not follow"),
        (hand_made([-1, -1], supervised=[1]), "tree 1, token 1: supervised, but does not follow"),
    ],
)
def test_lay_out_refuses_and_names_tree_and_token(tree: Tree, message: str) -> None:
    with pytest.raises(ForestError, match=message):
        forest.lay_out([hand_made([-1, 0], supervised=[1]), tree])


def test_lay_out_refuses_a_tree_longer_than_the_row() -> None:
    with pytest.raises(ForestError, match="tree 1 has 3 tokens and rows hold 2; raise the row length"):
        forest.lay_out([hand_made([-1, 0]), hand_made([-1, 0, 1])], row_length=2)


# Loss and gradients, against attention written out in float64

HEADS, WIDTH = 2, 8


def reference_parameters(seed: int = 0) -> dict[str, torch.Tensor]:
    """A two-layer transformer, in float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embedding": (VOCABULARY + 4, WIDTH), "head": (WIDTH, VOCABULARY + 4)}
    for layer in range(2):
        shapes |= {f"{name}{layer}": (WIDTH, WIDTH) for name in ("query", "key", "value", "out", "feed")}
    return {
        name: (torch.randn(shape, generator=generator, dtype=torch.float64) * 0.5).requires_grad_()
        for name, shape in shapes.items()
    }


def rotate(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of [L, HEADS, D] at `positions` [L]."""
    half = x.shape[-1] // 2
    angle = positions[:, None, None] / 10.0 ** torch.arange(half, dtype=torch.float64)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def reference_nll(
    parameters: dict[str, torch.Tensor],
    ids: torch.Tensor,
    positions: torch.Tensor,
    mask: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """Negative log-likelihood of every label but the first, given the row's token before it: [L] -> [L - 1]."""
    x = parameters["embedding"][ids]
    for layer in range(2):
        normed = functional.layer_norm(x, (WIDTH,))
        query, key, value = (
            (normed @ parameters[f"{name}{layer}"]).unflatten(-1, (HEADS, -1)) for name in ("query", "key", "value")
        )
        scores = torch.einsum("qhd,khd->hqk", rotate(query, positions), rotate(key, positions))
        weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
        x = x + torch.einsum("hqk,khd->qhd", weights, value).flatten(1) @ parameters[f"out{layer}"]
        x = x + torch.tanh(functional.layer_norm(x, (WIDTH,)) @ parameters[f"feed{layer}"])
    log_probs = (x @ parameters["head"]).log_softmax(-1)[:-1]
    return -log_probs.gather(-1, labels[1:, None].clamp(min=0))[:, 0]


def tree_loss(
    parameters: dict[str, torch.Tensor], trees: Sequence[Tree], row_length: int | None, *, trimmed: bool
) -> torch.Tensor:
    rows = forest.lay_out(trees, row_length=row_length)
    rows = list(map(forest.trim_leaves, rows)) if trimmed else rows
    batch = {name: torch.from_numpy(values) for name, values in forest.pad_rows(rows, pad_token_id=9).items()}
    mask = forest.attention_mask(batch["subtree_end"])[:, 0]
    loss = torch.zeros((), dtype=torch.float64)
    for row in range(len(rows)):
        ids, positions, labels = (batch[name][row] for name in ("input_ids", "position_ids", "labels"))
        nll = reference_nll(parameters, ids, positions, mask[row], labels)
        loss = loss + (batch["weights"][row, 1:] * nll).sum()
    return loss


def separate_loss(parameters: dict[str, torch.Tensor], given_paths: list[Path], weights: list[float]) -> torch.Tensor:
    loss = torch.zeros((), dtype=torch.float64)
    for (ids, flags), weight in zip(given_paths, weights, strict=True):
        causal = torch.ones(len(ids), len(ids)).tril().bool()
        nll = reference_nll(parameters, torch.tensor(ids), torch.arange(len(ids)), causal, labels=torch.tensor(ids))
        loss = loss + float(np.float32(weight)) * nll[torch.tensor(flags[1:])].sum()
    return loss


@settings(max_examples=30)
@given(
    st.lists(weighted_paths(max_questions=4, max_answers=4), min_size=1, max_size=3),
    st.booleans(),
    st.booleans(),
    st.integers(1, 3),
)
def test_loss_and_gradients_equal_those_of_separate_sequences(
    images: list[tuple[list[Path], list[float]]], packed: bool, trimmed: bool, width: int
) -> None:
    parameters = reference_parameters()
    trees = [forest.expand_images(forest.merge(*image), IMAGE, width) for image in images]
    together = tree_loss(parameters, trees, 2 * max(map(len, trees)) if packed else None, trimmed=trimmed)
    apart = torch.zeros((), dtype=torch.float64)
    for given_paths, weights in images:
        apart = apart + separate_loss(parameters, [widened(path, width) for path in given_paths], weights)
    torch.testing.assert_close(together, apart, rtol=1e-12, atol=1e-12)
    leaves = list(parameters.values())
    gradients = zip(torch.autograd.grad(together, leaves), torch.autograd.grad(apart, leaves), strict=True)
    for name, (ours, theirs) in zip(parameters, gradients, strict=True):
        assert (ours - theirs).abs().max() <= 1e-12 * max(1.0, theirs.abs().max().item()), name
