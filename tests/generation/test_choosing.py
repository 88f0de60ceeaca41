"""Drawing tokens: how often each comes, and which never do."""

import pytest
import torch

from hf_llava_vqa.generation.choosing import Chooser, Sampling

PROBABILITIES = torch.tensor([0.1, 0.4, 0.2, 0.3])
DRAWS = 4000


def shares(**settings: float) -> list[float]:
    """How often each of four tokens is drawn."""
    choose = Chooser(Sampling(**settings), [str(number) for number in range(DRAWS)])
    logits = PROBABILITIES.log().expand(1, DRAWS, 4)
    tokens, log_probs = choose(logits, torch.arange(DRAWS)[None])
    torch.testing.assert_close(log_probs, PROBABILITIES.log()[tokens])  # the model's own, whatever the settings
    return (tokens.flatten().bincount(minlength=4) / DRAWS).tolist()


def test_greedy_takes_the_likeliest() -> None:
    assert shares() == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"temperature": 1.0}, PROBABILITIES),
        ({"temperature": 0.5}, PROBABILITIES**2),
        ({"temperature": 1.0, "top_p": 0.6}, torch.tensor([0, 0.4, 0, 0.3])),  # 0.4 is too little, 0.7 enough
        ({"temperature": 1.0, "top_k": 3}, torch.tensor([0, 0.4, 0.2, 0.3])),
        ({"temperature": 1.0, "top_k": 3, "top_p": 0.44}, torch.tensor([0, 0.4, 0, 0])),  # 0.4 of 0.9 is enough
        ({"temperature": 1.0, "top_p": 0.1}, torch.tensor([0, 1.0, 0, 0])),
    ],
)
def test_tokens_come_as_often_as_they_should(settings: dict[str, float], expected: torch.Tensor) -> None:
    drawn = shares(**settings)
    assert drawn == pytest.approx((expected / expected.sum()).tolist(), abs=0.03)
    assert [share == 0 for share in drawn] == (expected == 0).tolist()


def test_places_without_an_answer_draw_nothing() -> None:
    """An answer's draws do not move when a branch beside it is empty."""
    logits = PROBABILITIES.log().expand(1, 3, 4)
    alone = Chooser(Sampling(1.0), ["a", "b"])(logits[:, :2], torch.tensor([[0, 1]]))[0]
    beside = Chooser(Sampling(1.0), ["a", "b"])(logits, torch.tensor([[0, -1, 1]]))[0]
    assert beside[0, [0, 2]].tolist() == alone[0].tolist()
