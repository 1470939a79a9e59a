import math
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as torch_bce
from torch.nn.functional import cross_entropy as torch_cross_entropy
from torch.nn.functional import one_hot

from fivefold.objectives.losses import asymmetric, bce, cross_entropy, focal, lovasz_hinge, symmetric_lovasz

Loss = Callable[..., Tensor]

CELLS = {
    "bce": bce,
    "focal": partial(focal, gamma=2.0),
    "focal below 1": partial(focal, gamma=0.3),
    "asymmetric": partial(asymmetric, positive=1.0, negative=4.0, margin=0.05),
    "asymmetric below 1": partial(asymmetric, positive=0.5, negative=0.5, margin=0.05),
    "asymmetric without margin": partial(asymmetric, positive=0.0, negative=0.5, margin=0.0),
}
SETS = {"lovasz": lovasz_hinge, "symmetric lovasz": symmetric_lovasz}
WITH_MARGIN = ("asymmetric", "asymmetric below 1")
EXTREME = torch.tensor([-1e4, -100.0, -1.0, 0.0, 1.0, 100.0, 1e4])

every_loss = pytest.mark.parametrize("loss", [*CELLS.values(), *SETS.values()], ids=[*CELLS, *SETS])
cell_losses = pytest.mark.parametrize("loss", CELLS.values(), ids=CELLS)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def draw(rows: int = 12, labels: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, labels, generator=generator)
    return logits, (torch.rand(rows, labels, generator=generator) < 0.4).float()


def gradient(loss: Loss, logits: Tensor, targets: Tensor, **keys: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    loss(leaf, targets, **keys).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def literal_hinge(logits: list[float], targets: list[float]) -> float:
    """The formula of Berman et al. as written, a row at a time."""
    errors = [1 - z * (2 * y - 1) for z, y in zip(logits, targets, strict=True)]
    falling = sorted(range(len(errors)), key=lambda k: -errors[k])
    positives, present, absent, before, total = sum(targets), 0.0, 0.0, 0.0, 0.0
    for k in falling:
        present, absent = present + targets[k], absent + 1 - targets[k]
        jaccard = 1 - (positives - present) / (positives + absent)
        total += max(errors[k], 0) * (jaccard - before)
        before = jaccard
    return total


def literal_rows(logits: Tensor, targets: Tensor) -> Tensor:
    return torch.tensor([literal_hinge(z, y) for z, y in zip(logits.tolist(), targets.tolist(), strict=True)])


def test_bce_by_hand() -> None:
    losses = bce(torch.tensor([0.0, 0.0, math.log(3)]), torch.tensor([0.0, 1.0, 1.0]))
    torch.testing.assert_close(losses, torch.tensor([math.log(2), math.log(2), math.log(4 / 3)]))


@pytest.mark.parametrize("soft", ["hard", "soft"])
def test_bce_equals_torch(soft: str) -> None:
    logits, targets = draw()
    targets = targets if soft == "hard" else torch.rand_like(logits)
    torch.testing.assert_close(bce(logits, targets), torch_bce(logits, targets, reduction="none"))


def test_positive_sides_are_torchs_pos_weight() -> None:
    logits, _ = draw()
    targets, positive = torch.rand_like(logits), torch.rand(logits.shape[1]) * 5
    ours = bce(logits, targets, torch.stack([torch.ones_like(positive), positive], dim=1))
    torch.testing.assert_close(ours, torch_bce(logits, targets, reduction="none", pos_weight=positive))


def test_focal_by_hand() -> None:
    losses = focal(torch.tensor([math.log(3), math.log(3)]), torch.tensor([1.0, 0.0]), gamma=2.0)
    torch.testing.assert_close(losses, torch.tensor([math.log(4 / 3) / 16, math.log(4) * 9 / 16]))


def test_asymmetric_by_hand() -> None:
    # p = 3/4; absent: shifted probability 3/4 - 1/4 = 1/2.
    losses = asymmetric(torch.tensor([math.log(3)] * 2), torch.tensor([1.0, 0.0]), positive=1, negative=3, margin=0.25)
    torch.testing.assert_close(losses, torch.tensor([math.log(4 / 3) / 4, math.log(2) / 8]))


def test_asymmetric_absence_is_free_under_the_margin() -> None:
    logits, absent = torch.tensor([-6.0, -4.0, -3.0]), torch.zeros(3)  # sigmoid(-3) = .0474
    loss = partial(asymmetric, positive=0.0, negative=2.0, margin=0.05)
    assert not loss(logits, absent).any()
    assert not gradient(loss, logits, absent).any()
    assert loss(torch.tensor([-2.9]), torch.zeros(1)) > 0


def test_asymmetric_absence_costs_at_most_what_the_margin_says() -> None:
    """Confident presence of an absent label is taken for a wrong label: bounded, and without a gradient."""
    loss, logits = CELLS["asymmetric"], torch.tensor([100.0, 1e4])
    torch.testing.assert_close(loss(logits, torch.zeros(2)), torch.full((2,), -math.log(0.05) * 0.95**4))
    assert not gradient(loss, logits, torch.zeros(2)).any()


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_losses_of_cells_reduce_to_bce(scale: float) -> None:
    logits, targets = draw()
    for plain in (partial(focal, gamma=0.0), partial(asymmetric, positive=0.0, negative=0.0, margin=0.0)):
        torch.testing.assert_close(plain(scale * logits, targets), bce(scale * logits, targets))
        torch.testing.assert_close(gradient(plain, scale * logits, targets), gradient(bce, scale * logits, targets))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_asymmetric_with_one_gamma_and_no_margin_is_focal(gamma: float) -> None:
    logits, targets = draw()
    ours = partial(asymmetric, positive=gamma, negative=gamma, margin=0.0)
    torch.testing.assert_close(ours(logits, targets), focal(logits, targets, gamma))


@cell_losses
def test_a_soft_target_is_the_expected_loss(loss: Loss) -> None:
    logits, _ = draw()
    share = torch.rand_like(logits)
    expected = share * loss(logits, torch.ones_like(share)) + (1 - share) * loss(logits, torch.zeros_like(share))
    torch.testing.assert_close(loss(logits, share), expected)


@cell_losses
def test_sides_weigh_cells(loss: Loss) -> None:
    logits, targets = draw()
    sides = torch.rand(logits.shape[1], 2)
    weights = torch.where(targets == 1, sides[:, 1], sides[:, 0])
    torch.testing.assert_close(loss(logits, targets, sides=sides), weights * loss(logits, targets))


@cell_losses
def test_gradients_equal_finite_differences(loss: Loss) -> None:
    logits, targets = draw(rows=3)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets.double()), logits.double().requires_grad_())


def test_lovasz_by_hand() -> None:
    # Errors 2, .5, -1 of cells absent, present, present: J = 1/3, 2/3, 1.
    logits, targets = torch.tensor([[0.5, 1.0, 2.0]]), torch.tensor([[1.0, 0.0, 1.0]])
    torch.testing.assert_close(lovasz_hinge(logits, targets), torch.tensor([2 / 3 + 0.5 / 3]))
    # Of absence, the same errors: J = 1, 1, 1.
    torch.testing.assert_close(symmetric_lovasz(logits, targets), torch.tensor([(2 / 3 + 0.5 / 3 + 2) / 2]))


@pytest.mark.parametrize("seed", range(4))
def test_lovasz_equals_the_literal_formula(seed: int) -> None:
    logits, targets = draw(seed=seed)
    targets[0], targets[1] = 0, 1
    torch.testing.assert_close(lovasz_hinge(logits, targets), literal_rows(logits, targets))
    mirrored = (literal_rows(logits, targets) + literal_rows(-logits, 1 - targets)) / 2
    torch.testing.assert_close(symmetric_lovasz(logits, targets), mirrored)
    soft = torch.rand_like(logits)
    torch.testing.assert_close(lovasz_hinge(logits, soft), literal_rows(logits, soft))


def test_lovasz_of_transposed_inputs_is_per_label() -> None:
    logits, targets = draw()
    torch.testing.assert_close(lovasz_hinge(logits.T, targets.T), literal_rows(logits.T, targets.T))


def test_lovasz_is_the_jaccard_loss_at_the_corners() -> None:
    """On errors of 0 and 1 the extension is the set function itself: 1 - intersection / union."""
    _, targets = draw(rows=30)
    wrong = torch.rand_like(targets) < 0.5
    logits = (2 * targets - 1) * (~wrong).float()  # error 1 where wrong, 0 elsewhere
    guesses = torch.where(wrong, 1 - targets, targets)
    intersection, union = (guesses * targets).sum(1), ((guesses + targets) > 0).sum(1)
    expected = torch.where(union > 0, 1 - intersection / union.clamp(min=1), 0)
    torch.testing.assert_close(lovasz_hinge(logits, targets), expected)


@pytest.mark.parametrize("loss", SETS.values(), ids=SETS)
def test_a_lovasz_weight_of_two_is_the_cell_twice(loss: Loss) -> None:
    logits, targets = draw()
    sides = torch.tensor([1.0, 2.0])
    for z, y in zip(logits, targets, strict=True):
        doubled = torch.cat([z, z[y == 1]]), torch.cat([y, y[y == 1]])
        torch.testing.assert_close(loss(z, y, sides=sides), loss(*doubled))


@pytest.mark.parametrize("loss", SETS.values(), ids=SETS)
def test_lovasz_gradients_equal_finite_differences(loss: Loss) -> None:
    logits, targets = draw(rows=3)
    assert torch.autograd.gradcheck(lambda z: loss(z, targets.double()), logits.double().requires_grad_())


@every_loss
@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_extreme_logits_have_finite_losses_and_gradients(loss: Loss, target: float) -> None:
    for logits in (EXTREME[None], EXTREME[:, None]):  # together and each alone
        targets = torch.full_like(logits, target)
        assert loss(logits, targets).isfinite().all()
        assert gradient(loss, logits, targets).isfinite().all()


@pytest.mark.parametrize("loss", [loss for name, loss in (CELLS | SETS).items() if name not in WITH_MARGIN])
def test_confident_mistakes_still_have_a_gradient(loss: Loss) -> None:
    slopes = gradient(loss, torch.tensor([[1e4], [-1e4]]), torch.tensor([[0.0], [1.0]]))
    assert slopes[0] > 0
    assert slopes[1] < 0


@every_loss
def test_losses_are_not_negative(loss: Loss) -> None:
    logits, targets = draw(rows=100)
    assert (loss(logits, targets) >= 0).all()


@every_loss
def test_a_missing_cell_is_as_if_it_were_not_there(loss: Loss) -> None:
    logits, targets = draw()
    missing = torch.rand_like(logits) < 0.3
    missing[0] = True
    targets[missing] = math.nan
    assert not gradient(loss, logits, targets)[missing].any()
    assert gradient(loss, logits, targets).isfinite().all()
    for z, y, m in zip(logits, targets, missing, strict=True):
        torch.testing.assert_close(loss(z, y).sum(), loss(z[~m], y[~m]).sum())
        torch.testing.assert_close(gradient(loss, z, y)[~m], gradient(loss, z[~m], y[~m]))


@every_loss
def test_the_order_of_labels_means_nothing(loss: Loss) -> None:
    logits, targets = draw()
    order = torch.randperm(logits.shape[1], generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        loss(logits[:, order], targets[:, order]).reshape(12, -1).sum(1), loss(logits, targets).reshape(12, -1).sum(1)
    )


@every_loss
def test_a_row_depends_on_itself_alone(loss: Loss) -> None:
    logits, targets = draw()
    torch.testing.assert_close(gradient(loss, logits, targets)[3], gradient(loss, logits[3:4], targets[3:4])[0])


@pytest.mark.parametrize("loss", CELLS.values(), ids=CELLS)
def test_training_a_logit_finds_the_side_of_its_target(loss: Loss) -> None:
    targets = torch.tensor([0.0, 1.0])
    logits = nn.Parameter(torch.zeros(2))
    for _ in steps(torch.optim.SGD([logits], lr=1.0)):
        loss(logits, targets).sum().backward()
    assert logits[0] < -0.5
    assert logits[1] > 0.5


def steps(optimiser: torch.optim.Optimizer) -> Iterator[None]:
    for _ in range(50):
        optimiser.zero_grad()
        yield
        optimiser.step()


def test_cross_entropy_by_hand() -> None:
    logits, targets = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 0.0]])  # probabilities ¼, ¾
    torch.testing.assert_close(cross_entropy(logits, targets, 0.0), torch.tensor([math.log(4)]))
    mixed = 0.9 * math.log(4) + 0.1 * math.log(4 / 3)
    torch.testing.assert_close(cross_entropy(logits, targets, 0.2), torch.tensor([mixed]))
    torch.testing.assert_close(cross_entropy(logits, targets, 0.2, torch.tensor([3.0, 7.0])), torch.tensor([3 * mixed]))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_torch(smoothing: float) -> None:
    logits, codes = torch.randn(20, 5), torch.arange(20) % 5
    ours = partial(cross_entropy, logits, smoothing=smoothing)
    for targets, truth in ((one_hot(codes).float(), codes), *[(torch.rand(20, 5).softmax(1),) * 2]):
        theirs = torch_cross_entropy(logits, truth, label_smoothing=smoothing, reduction="none")
        torch.testing.assert_close(ours(targets), theirs)


def test_class_weights_equal_torchs_on_hard_and_soft_targets() -> None:
    logits, codes, weights = torch.randn(20, 5), torch.arange(20) % 5, torch.rand(5) * 3
    for targets, truth in ((one_hot(codes).float(), codes), *[(torch.rand(20, 5).softmax(1),) * 2]):
        theirs = torch_cross_entropy(logits, truth, weight=weights, reduction="none")
        torch.testing.assert_close(cross_entropy(logits, targets, 0.0, weights), theirs)


def test_cross_entropy_of_two_classes_is_bce_of_their_difference() -> None:
    logits, targets = draw(labels=1)
    classes = torch.cat([torch.zeros_like(logits), logits], dim=1), torch.cat([1 - targets, targets], dim=1)
    torch.testing.assert_close(cross_entropy(*classes, 0.0), bce(logits, targets)[:, 0])


def test_cross_entropy_of_extreme_logits_and_missing_rows() -> None:
    logits = EXTREME.repeat(3, 1)
    targets = torch.stack([one_hot(torch.tensor(0), 7), one_hot(torch.tensor(6), 7), torch.full((7,), math.nan)])
    losses = cross_entropy(logits, targets, 0.1)
    slopes = gradient(partial(cross_entropy, smoothing=0.1), logits, targets)
    assert losses.isfinite().all()
    assert slopes.isfinite().all()
    assert losses[2] == 0
    assert not slopes[2].any()
    assert slopes[:2].any(dim=1).all()
