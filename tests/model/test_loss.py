"""The loss against section 5 of the reference by brute force, and what several positives must and must not do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from carzero.model.alignment import ALIGNMENTS
from carzero.model.loss import contrastive_loss, multi_positive_loss, pairwise_loss
from tests.support.tiny import build_model, random_inputs, tiny_config


def seeded(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cross_entropy(rows: list[list[float]]) -> float:
    """Mean over rows of -log softmax at the diagonal."""
    losses = [math.log(sum(math.exp(value) for value in row)) - row[i] for i, row in enumerate(rows)]
    return sum(losses) / len(losses)


def by_hand(logits: Tensor, match: Tensor, known: Tensor) -> float:
    """Per positive pair -log(e^p / (e^p + sum over negatives)), mean in a row, mean over telling rows, both ways."""
    total = 0.0
    for table, right, sure in ((logits, match, known), (logits.T, match.T, known.T)):
        rows = []
        for row in range(len(table)):
            rivals = sum(math.exp(x) for x, m, k in zip(table[row], right[row], sure[row], strict=True) if k and not m)
            pairs = [
                -math.log(math.exp(x) / (math.exp(x) + rivals))
                for x, m, k in zip(table[row], right[row], sure[row], strict=True)
                if m and k and rivals
            ]
            rows += [sum(pairs) / len(pairs)] if pairs else []
        total += sum(rows) / len(rows) if rows else 0.0
    return total / 2


def test_the_released_loss_by_brute_force() -> None:
    i2t, t2i = seeded(5, 5).double(), seeded(5, 5, seed=1).double()
    forward, backward = i2t.tolist(), t2i.tolist()
    expected = (cross_entropy(forward) + cross_entropy(i2t.T.tolist())) / 2
    expected += (cross_entropy(backward) + cross_entropy(t2i.T.tolist())) / 2
    assert pairwise_loss(i2t, t2i).item() == pytest.approx(expected, abs=1e-12)


def test_one_positive_a_row_is_the_released_loss() -> None:
    i2t, t2i = seeded(5, 5), seeded(5, 5, seed=1)
    match = torch.eye(5, dtype=torch.bool)
    assert pairwise_loss(i2t, t2i, match).item() == pytest.approx(pairwise_loss(i2t, t2i).item(), abs=1e-5)


def test_several_positives_by_hand() -> None:
    match = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 1, 0, 1]], dtype=torch.bool)
    known = torch.tensor([[1, 1, 1, 0, 1], [0, 1, 1, 1, 1], [1, 1, 1, 1, 0]], dtype=torch.bool)
    logits = seeded(3, 5)
    everything = torch.ones_like(known)
    assert contrastive_loss(logits, match).item() == pytest.approx(by_hand(logits, match, everything), abs=1e-5)
    assert contrastive_loss(logits, match, known).item() == pytest.approx(by_hand(logits, match, known), abs=1e-5)
    other = seeded(5, 3, seed=3)
    both = by_hand(logits, match, known) + by_hand(other.T, match, known)
    assert pairwise_loss(logits, other, match, known).item() == pytest.approx(both, abs=1e-5)


def test_a_worked_example() -> None:
    """Logits 0 everywhere: a positive with n negatives costs log(1 + n)."""
    match = torch.tensor([[True, True, False], [False, False, True]])
    rows = (math.log(2) + math.log(3)) / 2
    columns = math.log(2)
    assert contrastive_loss(torch.zeros(2, 3), match).item() == pytest.approx((rows + columns) / 2)


def test_equal_sentences_no_longer_push_each_other_away() -> None:
    """Texts 0 and 1 are the same sentence: its second copy is a rival in the released loss, a positive in ours."""
    match = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    gradients = []
    for target in (None, match):
        logits = torch.zeros(3, 3, requires_grad=True)
        contrastive_loss(logits, target).backward()
        gradients.append(logits.grad)
    assert gradients[0][0, 1] > 0, "descent lowers the score of a right pair"
    assert gradients[1][0, 1] < 0, "descent raises it"
    assert torch.allclose(gradients[1][0, 1], gradients[1][0, 0])


def test_unknown_pairs_have_no_gradient() -> None:
    logits = seeded(4, 4).requires_grad_()
    match = torch.eye(4, dtype=torch.bool)
    known = torch.ones(4, 4, dtype=torch.bool)
    known[0, 1] = known[2, 3] = known[3, 3] = False
    contrastive_loss(logits, match, known).backward()
    assert not logits.grad[~known].any()
    assert logits.grad[known].abs().min() > 0
    moved = logits.detach().clone()
    moved[~known] += 100
    assert contrastive_loss(moved, match, known).item() == pytest.approx(
        contrastive_loss(logits.detach(), match, known).item()
    )


@pytest.mark.parametrize(
    ("match", "known"),
    [
        (torch.zeros(3, 3, dtype=torch.bool), None),
        (torch.ones(3, 3, dtype=torch.bool), None),
        (torch.eye(3, dtype=torch.bool), torch.zeros(3, 3, dtype=torch.bool)),
        (torch.eye(3, dtype=torch.bool), torch.eye(3, dtype=torch.bool)),
    ],
    ids=["no positive", "no negative", "nothing known", "only positives known"],
)
def test_a_batch_that_says_nothing_costs_nothing(match: Tensor, known: Tensor | None) -> None:
    logits = seeded(3, 3).requires_grad_()
    loss = contrastive_loss(logits, match, known)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(3, 3))


def test_rows_that_say_nothing_leave_the_others_alone() -> None:
    logits = seeded(4, 5).requires_grad_()
    match = torch.zeros(4, 5, dtype=torch.bool)
    match[0] = True  # no negative
    match[2, 1] = match[3, 4] = True  # row 1 has no positive
    loss = contrastive_loss(logits, match)
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[2, 1] < 0
    assert loss.item() == pytest.approx(by_hand(logits.detach(), match, torch.ones_like(match)), abs=1e-5)


def test_large_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4], [1e4, -1e4]], requires_grad=True)
    for match in (None, torch.eye(2, dtype=torch.bool)):
        logits.grad = None
        loss = contrastive_loss(logits, match)
        loss.backward()
        # One row of two is wrong by 2e4, each column by a draw.
        assert loss.item() == pytest.approx((2e4 / 2 + 2 * math.log(2) / 2) / 2, rel=1e-5)
        assert torch.isfinite(logits.grad).all()


def test_images_and_texts_must_pair_or_be_matched() -> None:
    with pytest.raises(ValueError, match="2 images against 3 texts need `match`"):
        contrastive_loss(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="need `match`"):
        pairwise_loss(torch.zeros(2, 3), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="3 images against 2 texts"):
        build_model(tiny_config())(**random_inputs(3, 2), return_loss=True)


# Both directions of SimR are trained, a cosine has one: the CLIP loss.
LOSSES = {
    "simr": lambda output: contrastive_loss(output.logits_i2t) + contrastive_loss(output.logits_t2i.T),
    "cosine": lambda output: contrastive_loss(output.logits_per_image),
    "similarity_map": lambda output: multi_positive_loss(output.logits_i2t),
}


@pytest.mark.parametrize("alignment", list(ALIGNMENTS))
@torch.no_grad()
def test_the_model_takes_the_loss_of_its_alignment(alignment: str) -> None:
    model = build_model(tiny_config(alignment=alignment))
    output = model(**random_inputs(3, 3), return_loss=True)
    expected = LOSSES[alignment](output)
    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_the_cosine_loss_is_clips_by_brute_force() -> None:
    logits = seeded(4, 4).double()
    expected = (cross_entropy(logits.tolist()) + cross_entropy(logits.T.tolist())) / 2
    assert contrastive_loss(logits).item() == pytest.approx(expected, abs=1e-12)
