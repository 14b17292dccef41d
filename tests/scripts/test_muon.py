"""Muon of all matrices of a shape at once is torch's, which goes from one to the next."""

import torch
from torch import nn

from scripts.muon import Muon, orthogonal

SHAPES = [(8, 24), (8, 24), (24, 8), (16, 16)]


def test_singular_values_come_near_one_in_any_shape():
    torch.manual_seed(0)
    for shape in SHAPES:
        x = torch.randn(3, *shape)
        found = orthogonal(x).float()
        assert found.shape == x.shape
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.5
        assert values.max() < 1.3
        alone = torch.cat([orthogonal(one[None]) for one in x]).float()
        torch.testing.assert_close(found, alone, atol=1e-2, rtol=0)


def test_steps_are_those_of_torchs_muon():
    torch.manual_seed(0)
    own = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    other = [nn.Parameter(p.detach().clone()) for p in own]
    one = Muon(own, torch.tensor(0.1), weight_decay=0.1)
    own[1].requires_grad_(False)  # it stays as it is, in torch's and here
    reference = torch.optim.Muon(other, lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        for p, q in zip(own, other, strict=True):
            if p.requires_grad:
                p.grad = torch.randn(p.shape)
                q.grad = p.grad.clone()
        one.step()
        reference.step()
    for p, q in zip(own, other, strict=True):  # bfloat16 inside
        torch.testing.assert_close(p, q, atol=5e-3, rtol=0)


def test_its_rate_may_change_between_steps():
    p = nn.Parameter(torch.eye(4))
    optim = Muon([p], torch.tensor(0.1))
    p.grad = torch.eye(4)
    optim.param_groups[0]["lr"].fill_(0.0)
    optim.step()
    assert torch.equal(p.detach(), torch.eye(4))
