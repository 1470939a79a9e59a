import pytest
import torch
import transformers
from torch import Tensor, nn

from fivefold.training.dropout import SparingDropout, drop_nothing, dropped_places, spare_dropout, zeroed


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_drops_its_share_and_keeps_the_mean(share: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ones = torch.ones(401, 1003, dtype=dtype)
    dropped = SparingDropout(share).train()(ones)
    # Four standard errors of a share of 400,000 draws.
    error = 4 * (share * (1 - share) / ones.numel()) ** 0.5
    assert (dropped == 0).double().mean().item() == pytest.approx(share, abs=error)
    assert dropped.max().item() == pytest.approx(1 / (1 - share), rel=1e-4 if dtype is torch.float32 else 8e-3)
    assert dropped.dtype is dtype


def test_activations_are_drawn_independently() -> None:
    torch.manual_seed(1)
    kept = (SparingDropout(0.5).train()(torch.ones(400_000)) > 0).double()
    for distance in (1, 2, 3, 4, 8, 384):
        together = (kept[:-distance] * kept[distance:]).mean().item()
        assert together == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 400_000) ** 0.5 * 1.5)


def test_gradients_pass_where_activations_do() -> None:
    torch.manual_seed(2)
    x = torch.randn(7, 5, requires_grad=True)
    y = SparingDropout(0.4).train()(x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


def test_the_same_seed_drops_the_same() -> None:
    layer, x = SparingDropout(0.2).train(), torch.ones(50, 3)
    first, second = (torch.manual_seed(3) and layer(x) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(second, layer(x))


@pytest.mark.parametrize("share", [0.0, 1e-9, 0.999999, 1.0])
def test_shares_at_the_ends(share: float) -> None:
    y = SparingDropout(share).train()(torch.ones(64))
    assert torch.equal(y, torch.full((64,), 0.0 if share > 0.5 else 1.0))
    assert torch.equal(SparingDropout(share).eval()(torch.ones(64)), torch.ones(64))


def test_replaces_plain_dropout_only_and_leaves_weights() -> None:
    class Own(nn.Dropout):
        pass

    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3), nn.Sequential(nn.Dropout(0.2)), Own(0.1))
    names = list(net.state_dict())
    spare_dropout(net)
    assert [type(m) for m in net.modules() if isinstance(m, nn.Dropout)] == [SparingDropout, SparingDropout, Own]
    assert net[1].p == 0.3
    assert list(net.state_dict()) == names


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.97])
def test_places_are_drawn_one_by_one(share: float) -> None:
    torch.manual_seed(4)
    count = 400_000
    places = dropped_places(count, share)
    assert bool((places.diff() > 0).all())
    assert int(places[0]) >= 0
    assert int(places[-1]) < count
    assert len(places) / count == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5)
    dropped = torch.zeros(count).index_fill(0, places, 1.0).double()
    for distance in (1, 2, 7):
        together = (dropped[:-distance] * dropped[distance:]).mean().item()
        error = (share**2 * (1 - share**2) / count) ** 0.5
        assert together == pytest.approx(share**2, abs=6 * error), distance


def test_too_few_draws_are_followed_by_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fivefold.training.dropout.math.sqrt", lambda expected: -expected / 7)
    torch.manual_seed(6)
    places = dropped_places(100_000, 0.05)
    assert bool((places.diff() > 0).all())
    assert len(places) / 100_000 == pytest.approx(0.05, abs=0.004)
    assert int(places[-1]) > 99_000


def test_zeros_stand_at_their_places_of_any_layout() -> None:
    x = torch.arange(1.0, 13.0).view(3, 4).T
    found = zeroed(x, torch.tensor([1, 11]))
    assert found.flatten().tolist() == [1.0, 0.0, 9.0, 2.0, 6.0, 10.0, 3.0, 7.0, 11.0, 4.0, 8.0, 0.0]


def test_without_dropout_layers_are_still_computed_again() -> None:
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    torch.manual_seed(0)
    model = transformers.BertModel(config, add_pooling_layer=False)
    ids = torch.arange(12).reshape(2, 6)

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        model(input_ids=ids).last_hidden_state.pow(2).sum().backward()
        return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}

    model.eval()
    expected = gradients()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    passes = []
    for layer in model.encoder.layer:
        layer.attention.register_forward_hook(lambda *_: passes.append(1))
    drop_nothing(model)
    found = gradients()
    assert len(passes) == 4
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)
