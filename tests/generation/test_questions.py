"""What is asked: trees of prompts, their batches, and the order of what comes out."""

from examples import MIXED, Loaded, colour, question, record
from hypothesis import given
from hypothesis import strategies as st

from hf_llava_vqa.generation.questions import WINDOW, batches, in_order, in_step, prompt_trees


def planted(loaded: Loaded, records: list, most: int = 16) -> list:
    return list(prompt_trees(loaded[1], records, template="v1", instruction=None, max_branches=most))


def test_a_record_with_many_questions_becomes_several_trees(loaded: Loaded) -> None:
    row = record("r", [question(str(number)) for number in range(5)], colours=[colour(1)])
    trees = planted(loaded, [row], most=2)
    assert [[dialogue["id"] for dialogue in tree.dialogues] for tree in trees] == [["0", "1"], ["2", "3"], ["4"]]
    assert [tree.pictures for tree in trees] == [[0]] * 3


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 5), st.integers(1, 120))
def test_batches_hold_every_tree_once_within_their_limits(lengths: list[int], size: int, tokens: int) -> None:
    trees = [range(length) for length in lengths]  # all that is asked of a tree here is its length
    made = list(batches(trees, batch_size=size, batch_tokens=tokens))
    assert sorted(number for batch in made for number, _ in batch) == list(range(len(trees)))
    for batch in made:
        padded = len(batch) * max(len(tree) for _, tree in batch)
        assert len(batch) <= size
        assert padded <= tokens or len(batch) == 1
        assert [len(tree) for _, tree in batch] == sorted((len(tree) for _, tree in batch), reverse=True)


@given(st.permutations(range(8)), st.integers(1, 3))
def test_results_come_in_the_order_of_their_numbers(numbers: list[int], size: int) -> None:
    done = [{n: str(n) for n in numbers[start : start + size]} for start in range(0, 8, size)]
    assert list(in_order(done)) == [str(n) for n in range(8)]


def test_few_records_are_read_ahead() -> None:
    taken = []
    trees = (taken.append(number) or range(3) for number in range(1000))
    next(batches(trees, batch_size=2, batch_tokens=100))
    assert len(taken) == 2 * WINDOW


def test_a_rank_out_of_records_reads_padding(loaded: Loaded) -> None:
    trees = planted(loaded, MIXED[:2])  # the first has no picture
    work = iter([[(0, trees[0])], [(1, trees[1])]])
    others = iter([True, True, True, False])
    made = list(in_step(work, lambda mine: next(others) or mine, loaded[1]))
    assert [[number for number, _ in batch] for batch in made] == [[0, -1], [1], [-1]]
    assert all(any(tree.pictures for _, tree in batch) for batch in made)
    assert [len(tree.leaves) for _, tree in made[2]] == [0]
