"""Kernels, the bytes that they move, and memory: of a dense call no more than of diffusers' own forward, of a
sparse one in proportion."""

import torch

from fovea.models import adapt
from fovea.models.cost import Costs


def moved(costs):
    return sum(operation.bytes * count for operation, count in costs.operations.items())


def test_dense_call_costs_no_more_than_the_stock_forward(pipe, flow_of):
    with adapt(pipe) as model:
        flow, own = flow_of(model, b=2), model.transformer
        x, sigma, encodings = flow.noise(), flow.sigmas()[0], flow.encodings()
        with Costs("cpu") as ours:
            v = flow.velocity(x, sigma)
    found = []
    with torch.no_grad(), Costs("cpu") as stock:  # with its own attention processors again
        for half in flow.cond.passes:
            both = x.to(own.dtype).repeat(half.halves, 1, 1)
            found.append(own.stock_forward(both, sigma, half, encodings))
        expected = own.guide(torch.cat(found) if len(found) > 1 else found[0], flow.cond, encodings)
    assert torch.equal(v, expected)
    assert ours.operations.total() <= stock.operations.total()
    assert moved(ours) <= moved(stock)
    assert ours.peak <= stock.peak


def test_tokens_lie_in_rows(pipe, flow_of):
    """Between blocks, too: where the channels of a token lie apart, every block copies them together."""
    with adapt(pipe) as model:
        flow = flow_of(model, b=2)
        e = flow.prepare(flow.noise(), flow.sigmas()[0])
        after = e.run(e.hidden, 0, 1)
        assert [state.image.stride(-1) for state in (e.hidden, after)] == [1, 1]


def test_sparse_call_moves_less_with_every_token_left_out(pipe, flow_of):
    """All in proportion to the tokens that run; of all tokens it moves what a dense call does, and writes
    their keys and values into the memory once."""
    with adapt(pipe) as model:
        flow = flow_of(model, b=2)
        x, kv, sigma, n = flow.noise(), flow.new_kv(), flow.sigmas()[0], flow.grid.n
        flow.velocity(x, sigma)
        with Costs("cpu") as dense:
            flow.velocity(x, sigma, kv=kv)
        found = []
        for k in (n // 6, n // 3, n // 2, n):
            with Costs("cpu") as costs:
                flow.velocity(x, sigma, kv=kv, rows=torch.arange(k).expand(2, -1))
            found.append(moved(costs))
    few, some, half, every = found
    assert half - some == some - few > 0
    assert every - half == 3 * (half - some)
    assert 2 * kv.nbytes < every - moved(dense) < 4 * kv.nbytes
