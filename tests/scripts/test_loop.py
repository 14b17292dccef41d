"""The training loop: killed and resumed, it gives the very same weights."""

import pytest
import torch
from torch import nn

from scripts import loop


def network() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(4, 4)]), "last": nn.Linear(4, 2)})


def fit(folder, *stops: int | None, muon: float | None = None) -> tuple[dict, dict]:
    """Train 12 steps with an interruption at each stop, from a fresh process' state each time."""
    averaged, net = {}, network()
    for stop in stops:
        net = network()

        def data(step: int, part: float) -> loop.Batch:
            return {"x": torch.randn(8, 4, generator=torch.Generator().manual_seed(step))}

        def loss(x: torch.Tensor, net=net) -> torch.Tensor:
            return (net["last"](torch.tanh(net["blocks"].get_submodule("0")(x))) - x[:, :2]).pow(2).mean()

        averaged = loop.train(
            net,
            data,
            loss,
            steps=12,
            lr=1e-2,
            folder=folder,
            decay=0.01,
            muon=muon,
            ema=0.9,
            warmup=3,
            stop=stop,
        )
    return averaged, net.state_dict()


@pytest.mark.parametrize("muon", [None, 3e-3])
def test_resumed_training_is_bit_for_bit_the_same(tmp_path, muon):
    whole = fit(tmp_path / "whole", None, muon=muon)
    parts = fit(tmp_path / "parts", 5, 9, None, muon=muon)
    for one, other in zip(whole, parts, strict=True):
        assert all(torch.equal(one[k], other[k]) for k in one)
    last = loop.read_log(tmp_path / "parts")[-1]
    assert (last["step"], last["images"]) == (12, 12 * 8)


def test_minutes_end_a_training_at_whatever_step_it_is(tmp_path):
    net, parts = network(), []

    def data(step: int, part: float) -> loop.Batch:
        parts.append(part)
        return {"x": torch.ones(1, 4)}

    def loss(x: torch.Tensor) -> torch.Tensor:
        return net["last"](x).sum()

    loop.train(net, data, loss, steps=1, minutes=1e-3, lr=0.0, folder=tmp_path)
    assert parts[0] == 0
    assert parts == sorted(parts)
    assert parts[-1] < 1
    assert torch.load(tmp_path / "state.pt", weights_only=True)["images"] == len(parts)
    with pytest.raises(ValueError, match="more than 0"):
        loop.train(net, data, loss, steps=1, minutes=-0.1, lr=0.0, folder=tmp_path)


@pytest.mark.parametrize(
    ("broken", "stop", "seen"), [(5, None, 10), (10, 11, 11)], ids=["the loss", "the weights"]
)
def test_what_is_not_finite_ends_a_training_and_keeps_the_last_checkpoint(tmp_path, broken, stop, seen):
    net = network()

    def data(step: int, part: float) -> loop.Batch:
        return {"x": torch.full((1, 4), torch.inf if step == broken else 1.0)}

    def loss(x: torch.Tensor) -> torch.Tensor:
        return (net["last"](net["blocks"].get_submodule("0")(x)) ** 2).mean()

    run = {"steps": 12, "lr": 1e-2, "folder": tmp_path}
    loop.train(net, data, loss, **run, stop=4)
    saved = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(FloatingPointError, match=f"step {seen}; the last checkpoint is kept"):
        loop.train(net, data, loss, **run, stop=stop)
    assert (tmp_path / "state.pt").read_bytes() == saved


def test_what_has_gone_on_beyond_a_stop_does_not_go_on(tmp_path):
    fit(tmp_path, 9, 5)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 9


def test_batches_made_ahead_are_those_of_their_steps():
    def make(step: int) -> tuple[torch.Tensor, list[str]]:
        return torch.full((2,), step), [f"caption {step}"]

    made, ahead = loop.prefetched(make, 0), loop.prefetched(make, 2, end=9)
    for step in range(5, 9):
        (x, said), (same, again) = made(step), ahead(step)
        assert torch.equal(x, same)
        assert said == again


def test_a_checkpoint_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    loop.save(path, {"step": 1})
    monkeypatch.setattr(torch, "save", lambda state, file: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        loop.save(path, {"step": 2})
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_the_rate_warms_up_holds_and_falls_to_zero():
    rates = [loop.rate(step, step / 100, warmup=10, hold=0.7) for step in range(101)]
    assert rates[0] == 0.1
    assert set(rates[10:70]) == {1.0}
    assert rates[69:] == sorted(rates[69:], reverse=True)
    assert rates[100] == 0
