"""Image-once trees of tokens: merging paths, laying trees out in rows, and the attention mask.

A *path* is one complete sequence (prompt, image placeholder, question, one answer). Paths of one image share their
longest common prefix and become a `Tree`; trees are laid out depth first in a `Row`. Two integers a token carry the
structure: `position_ids`, the depth on the token's own path, and `subtree_end`, the index just past its subtree:

    token i may attend to token j   <=>   j <= i  and  i < subtree_end[j]

Pure integers: this file knows no model, no tokenizer and no files.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from hf_llava_vqa.errors import ForestError

IGNORE_INDEX = -100
BLOCK = 128  # tokens: FlexAttention computes or skips squares of so many queries and keys
Path = tuple[Sequence[int], Sequence[int]]  # token ids; 0 where one is not supervised, else what it belongs to


@dataclass(frozen=True)
class Tree:
    """N tokens in depth-first order.

    `parent[i] < i` is the index of the token before i on its path, -1 at a root; `leaves[p]` is the last token of
    path p, in the order the paths were given.
    """

    input_ids: np.ndarray  # [N] int64
    parent: np.ndarray  # [N] int64
    supervised: np.ndarray  # [N] int8, as in the paths
    weights: np.ndarray  # [N] float64, 0 where not supervised
    leaves: np.ndarray  # [P] int64

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class Row:
    """L tokens of one or more trees. `trees[k]` is the index of the k-th placed tree."""

    input_ids: np.ndarray  # [L] int64
    position_ids: np.ndarray  # [L] int64
    subtree_end: np.ndarray  # [L] int64
    labels: np.ndarray  # [L] int64, what the token before should predict; -100 where nothing is supervised
    supervised: np.ndarray  # [L] int8
    weights: np.ndarray  # [L] float32
    trees: list[int]

    def __len__(self) -> int:
        return len(self.input_ids)


def merge(paths: Sequence[Path], weights: Sequence[float] | None = None) -> Tree:
    """Merge the longest common prefixes of unsupervised tokens of `paths` into one tree.

    Supervised tokens are never shared, nor is the last token before the first supervised one: it predicts the first
    answer token, so every branch needs its own. A path without supervised tokens (a prompt) keeps its last token to
    itself in the same way.

    Args:
        paths: at least one `(input_ids, supervised)`, both of the path's length. `supervised` holds flags, or numbers
            from 1 to 127 for kinds of tokens, which are kept.
        weights: loss weight of each path's supervised tokens; 1 if not given.

    Raises:
        ForestError: an empty path, flags of another length, a path whose first token is supervised, or a weight
            that is negative or not finite.
    """
    weights = [1.0] * len(paths) if weights is None else weights
    _check_paths(paths, weights)
    trie = _Trie()
    for number, (ids, flags) in enumerate(paths):
        trie.add(number, ids, flags)
    return trie.flatten(paths, weights)


class _Trie:
    """Shared prefixes as nested dictionaries, children in the order they first came."""

    def __init__(self) -> None:
        self.children: dict[int, _Trie] = {}
        self.order: list[tuple[str, int]] = []  # ("child", token) or ("branch", path), depth-first order
        self.depth = 0

    def add(self, number: int, ids: Sequence[int], flags: Sequence[int]) -> None:
        shared = next((i for i, flag in enumerate(flags) if flag), len(ids)) - 1
        node = self
        for token in ids[:shared]:
            if token not in node.children:
                child = node.children[token] = _Trie()
                child.depth = node.depth + 1
                node.order.append(("child", token))
            node = node.children[token]
        node.order.append(("branch", number))

    def flatten(self, paths: Sequence[Path], weights: Sequence[float]) -> Tree:
        input_ids: list[int] = []
        parent: list[int] = []
        supervised: list[int] = []
        token_weights: list[float] = []
        leaves = [0] * len(paths)
        stack = [(self, -1, entry) for entry in reversed(self.order)]
        while stack:
            node, above, (kind, value) = stack.pop()
            if kind == "child":
                here = len(input_ids)
                input_ids.append(value)
                parent.append(above)
                supervised.append(0)
                token_weights.append(0.0)
                child = node.children[value]
                stack += [(child, here, entry) for entry in reversed(child.order)]
                continue
            ids, flags = paths[value][0][node.depth :], paths[value][1][node.depth :]
            first = len(input_ids)
            input_ids += ids
            parent += [above, *range(first, first + len(ids) - 1)]
            supervised += flags
            token_weights += [weights[value] if flag else 0.0 for flag in flags]
            leaves[value] = len(input_ids) - 1
        return Tree(
            np.asarray(input_ids, np.int64),
            np.asarray(parent, np.int64),
            np.asarray(supervised, np.int8),
            np.asarray(token_weights, np.float64),
            np.asarray(leaves, np.int64),
        )


def _check_paths(paths: Sequence[Path], weights: Sequence[float]) -> None:
    if not paths or len(paths) != len(weights):
        raise ForestError(
            f"a tree needs at least one path and a weight for each: {len(paths)} paths, {len(weights)} weights"
        )
    for number, ((ids, flags), weight) in enumerate(zip(paths, weights, strict=True)):
        if len(ids) == 0 or len(ids) != len(flags):
            raise ForestError(
                f"path {number} has {len(ids)} tokens and {len(flags)} flags; both must be equal and above 0"
            )
        if flags[0]:
            raise ForestError(f"path {number} starts with a supervised token, which nothing predicts")
        if not (np.isfinite(weight) and weight >= 0):
            raise ForestError(f"path {number} has the weight {weight}; weights are finite and not negative")


def expand_images(tree: Tree, image_token_id: int, image_tokens: int) -> Tree:
    """Widen every image placeholder of the tree to a chain of `image_tokens` copies (576 for CLIP-L/14 at 336 px)."""
    copies = np.where(tree.input_ids == image_token_id, image_tokens, 1)
    last = np.cumsum(copies) - 1  # index of each old token's last copy
    parent = np.arange(last[-1] + 1) - 1
    parent[last - copies + 1] = np.where(tree.parent < 0, -1, last[tree.parent])
    return Tree(
        np.repeat(tree.input_ids, copies),
        parent,
        np.repeat(tree.supervised, copies),
        np.repeat(tree.weights, copies),
        last[tree.leaves],
    )


def image_order(tree: Tree, image_token_id: int) -> list[int]:
    """Which of its record's images each placeholder of an unexpanded tree stands for, in row order.

    The k-th placeholder on a path is the record's k-th image; a placeholder that was not shared occurs once a branch.
    """
    seen = np.zeros(len(tree), np.int64)  # placeholders up to and including a token, on its path
    for index, (token, above) in enumerate(zip(tree.input_ids, tree.parent, strict=True)):
        seen[index] = (seen[above] if above >= 0 else 0) + (token == image_token_id)
    return (seen[tree.input_ids == image_token_id] - 1).tolist()


def lay_out(trees: Sequence[Tree], *, row_length: int | None = None) -> list[Row]:
    """Place trees in rows, in order.

    Args:
        trees: trees with their images expanded.
        row_length: None puts one tree in a row (best for dense masks); a number packs trees, each into the first row
            that still has room for it.

    Raises:
        ForestError: naming the tree and token that breaks an invariant (see `check_tree`), or a tree that is longer
            than `row_length`.
    """
    bins: list[list[int]] = []
    used: list[int] = []
    for number, tree in enumerate(trees):
        check_tree(tree, number)
        if row_length is not None and len(tree) > row_length:
            raise ForestError(f"tree {number} has {len(tree)} tokens and rows hold {row_length}; raise the row length")
        room = (k for k, length in enumerate(used) if row_length is not None and length + len(tree) <= row_length)
        place = next(room, None)
        if place is None:
            bins.append([number])
            used.append(len(tree))
        else:
            bins[place].append(number)
            used[place] += len(tree)
    return [_row(trees, members) for members in bins]


def check_tree(tree: Tree, number: int = 0) -> None:
    """Raise `ForestError`, naming the token, unless every tree invariant holds.

    Parents come before their children, depth first; a supervised token directly follows its own parent in the row, so
    the usual shift by one reads its logits; hence a branch that is not its parent's first child starts unsupervised.
    """
    index = np.arange(len(tree))
    bad = (tree.parent >= index) | (tree.parent < -1)
    if bad.any():
        raise ForestError(f"tree {number}, token {bad.argmax()}: its parent does not come before it")
    bad = _subtree_end(tree.parent) - index != _subtree_size(tree.parent)
    if bad.any():
        raise ForestError(f"tree {number}, token {bad.argmax()}: its subtree is not contiguous (depth-first order)")
    bad = (tree.supervised > 0) & ((tree.parent != index - 1) | (index == 0))
    if bad.any():
        raise ForestError(
            f"tree {number}, token {bad.argmax()}: supervised, but does not follow the token that predicts it"
        )


def _subtree_end(parent: np.ndarray) -> np.ndarray:
    above = parent.tolist()  # Python walks a list several times as fast as an array
    end = list(range(1, len(above) + 1))
    for index in range(len(above) - 1, 0, -1):
        if above[index] >= 0 and end[index] > end[above[index]]:
            end[above[index]] = end[index]
    return np.asarray(end, np.int64)


def _subtree_size(parent: np.ndarray) -> np.ndarray:
    above = parent.tolist()
    size = [1] * len(above)
    for index in range(len(above) - 1, 0, -1):
        if above[index] >= 0:
            size[above[index]] += size[index]
    return np.asarray(size, np.int64)


def _depth(parent: np.ndarray) -> np.ndarray:
    depth: list[int] = []
    for above in parent.tolist():
        depth.append(depth[above] + 1 if above >= 0 else 0)
    return np.asarray(depth, np.int64)


def _row(trees: Sequence[Tree], members: list[int]) -> Row:
    placed = [trees[number] for number in members]
    starts = np.cumsum([0, *(len(tree) for tree in placed)])[:-1].tolist()
    input_ids = np.concatenate([tree.input_ids for tree in placed])
    supervised = np.concatenate([tree.supervised for tree in placed])
    return Row(
        input_ids=input_ids,
        position_ids=np.concatenate([_depth(tree.parent) for tree in placed]),
        subtree_end=np.concatenate([_subtree_end(tree.parent) + s for tree, s in zip(placed, starts, strict=True)]),
        labels=np.where(supervised > 0, input_ids, IGNORE_INDEX),
        supervised=supervised,
        weights=np.concatenate([tree.weights for tree in placed]).astype(np.float32),
        trees=members,
    )


def trim_leaves(row: Row) -> Row:
    """Leave out the supervised leaves behind which another branch of their tree begins.

    No token sees them and they predict none. They are still predicted: label, weight and kind of each move to the token
    that takes its place in the row, which had none of its own. The branch is a token shorter, and the loss the same.
    """
    leaf = row.subtree_end[:-1] == np.arange(1, len(row))
    dropped = np.flatnonzero(leaf & (row.supervised[:-1] > 0) & (row.position_ids[1:] > 0))
    moved = {}
    for name in ("labels", "supervised", "weights"):
        moved[name] = getattr(row, name).copy()
        moved[name][dropped + 1] = moved[name][dropped]
    kept = np.ones(len(row), bool)
    kept[dropped] = False
    ends = np.cumsum(kept)[row.subtree_end - 1]
    trimmed = {"input_ids": row.input_ids, "position_ids": row.position_ids, "subtree_end": ends, **moved}
    return replace(row, **{name: values[kept] for name, values in trimmed.items()})


def pad_rows(rows: Sequence[Row], pad_token_id: int, length: int | None = None) -> dict[str, np.ndarray]:
    """Stack rows to arrays [R, L], padded on the right with tokens that see and are seen by nothing but themselves.

    Padding has position 0, `subtree_end[i] = i + 1`, label -100, weight 0, and is not supervised.
    """
    length = max(len(row) for row in rows) if length is None else length
    shape = (len(rows), length)
    batch: dict[str, np.ndarray] = {
        "input_ids": np.full(shape, pad_token_id, np.int64),
        "position_ids": np.zeros(shape, np.int64),
        "subtree_end": np.tile(np.arange(1, length + 1), (len(rows), 1)),
        "labels": np.full(shape, IGNORE_INDEX, np.int64),
        "weights": np.zeros(shape, np.float32),
        "supervised": np.zeros(shape, np.int8),
    }
    for number, row in enumerate(rows):
        for name, values in batch.items():
            values[number, : len(row)] = getattr(row, name)
    return batch


def chain_length(rows: Sequence[Row]) -> int:
    """How many first tokens of every row are a chain, down to a first leaf: among them the mask is plainly causal.

    Behind a row that is all chain, padding counts too: no token sees it.
    """
    longest = max(map(len, rows))
    second_branches = [int((row.position_ids == np.arange(len(row))).argmin()) for row in rows]  # 0: there is none
    return min(second_branch or longest for second_branch in second_branches)


def path_starts(row: Row, length: int) -> np.ndarray:
    """Where each path begins in a row padded to `length`, and the end: [P + 1] int32. The padding counts as a path.

    Kernels for sequences of many lengths take this instead of a mask.

    Raises:
        ForestError: naming a tree that has branches.
    """
    starts = np.flatnonzero(row.position_ids == 0)
    forks = np.flatnonzero((np.diff(row.position_ids) != 1) & (row.position_ids[1:] > 0))
    if len(forks):
        tree = row.trees[np.searchsorted(starts, forks[0], side="right") - 1]
        raise ForestError(f"tree {tree} has branches, which need a mask; only a question with one answer has none")
    return np.unique([*starts, len(row), length]).astype(np.int32)


def attention_mask(subtree_end: torch.Tensor, chain: int = 0) -> torch.Tensor:
    """The dense mask of rows: `subtree_end` [R, L] int -> [R, 1, L, L] bool, True where query i may see key j.

    Without the first `chain` queries, [R, 1, L - chain, L].
    """
    index = torch.arange(subtree_end.shape[1], device=subtree_end.device)
    query, key = index[chain:, None], index[None, :]
    return ((key <= query) & (query < subtree_end[:, None, :]))[:, None]


def block_mask(subtree_end: torch.Tensor) -> BlockMask:
    """The same mask for FlexAttention, which skips the blocks in which no token sees another: [R, 1, L, L]."""

    def sees(row: torch.Tensor, _head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key <= query) & (query < subtree_end[row, key])

    rows, length = subtree_end.shape
    return create_block_mask(sees, rows, None, length, length, device=subtree_end.device, BLOCK_SIZE=BLOCK)
