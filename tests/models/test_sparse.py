"""A call on some tokens is the dense call at these tokens."""

import pytest
import torch

from fovea.models import adapt
from fovea.models.tokens import gather_tokens
from tests.models.conftest import made


def rows_of(flow, k, seed):
    draw = torch.rand(len(flow.generators), flow.grid.n, generator=torch.Generator().manual_seed(seed))
    return draw.argsort(1)[:, :k]


def two_sparse_steps(flow, first, second):
    x, kv, sigmas = flow.noise(), flow.new_kv(), flow.sigmas()
    x = x + (sigmas[1] - sigmas[0]) * flow.velocity(x, sigmas[0], kv=kv)
    v1 = flow.velocity(x, sigmas[1], kv=kv, rows=first)
    x = x.scatter_add(1, first[..., None].expand_as(v1), (sigmas[2] - sigmas[1]) * v1)
    return v1, flow.velocity(x, sigmas[2], kv=kv, rows=second)


def test_rows_give_the_dense_velocity(name, dtype, flow_of):
    """All rows: the same bits. Some, at the state the memory was filled with, or all in another order: up to
    the rounding of a matrix product of another height."""
    close = {"atol": 1e-5, "rtol": 0} if dtype == torch.float32 else {"atol": 2**-5, "rtol": 2**-6}
    with adapt(made(name, dtype)) as model:
        flow = flow_of(model)
        x, kv, sigmas = flow.noise(), flow.new_kv(), flow.sigmas()
        stored = flow.velocity(x, sigmas[0], kv=kv)
        assert torch.equal(stored, flow.velocity(x, sigmas[0]))
        quarter = rows_of(flow, flow.grid.n // 4, 0)
        some = flow.velocity(x, sigmas[0], kv=kv, rows=quarter)
        torch.testing.assert_close(some, gather_tokens(stored, quarter), **close)
        x = x + (sigmas[1] - sigmas[0]) * stored
        dense = flow.velocity(x, sigmas[1])
        every = torch.arange(flow.grid.n).expand(3, -1)
        assert torch.equal(flow.velocity(x, sigmas[1], kv=kv, rows=every), dense)
        shuffled = rows_of(flow, flow.grid.n, 1)
        found = flow.velocity(x, sigmas[1], kv=kv, rows=shuffled)
        torch.testing.assert_close(found, gather_tokens(dense, shuffled), **close)
        assert [w.k for w in flow.block_runs] == [54, 54, 13, 54, 54, 54]


def test_memory_holds_each_token_as_last_seen(name, flow_of):
    """Against brute force: attention over keys and values recomputed from every token's last state."""
    with adapt(made(name, torch.float32)) as model:
        flow = flow_of(model)
        x, kv, sigmas = flow.noise(), flow.new_kv(), flow.sigmas()
        flow.velocity(x, sigmas[0], kv=kv)
        before = {layer: (k.clone(), v.clone()) for layer, (k, v) in kv.layers.items()}
        rows = rows_of(flow, 13, 2)
        flow.velocity(x + 1, sigmas[0], kv=kv, rows=rows)
        fresh = flow.new_kv()
        flow.velocity(x + 1, sigmas[0], kv=fresh)
        first = min(kv.layers)  # deeper layers have seen mixtures of both
        for old, now, new in zip(before[first], kv.layers[first], fresh.layers[first], strict=True):
            start = now.shape[1] - flow.grid.n if model.transformer.text_first else 0  # the text before it
            image = slice(start, start + flow.grid.n)
            ran = torch.zeros(len(now), flow.grid.n, dtype=torch.bool)
            ran.scatter_(1, rows.repeat(len(now) // len(rows), 1), True)
            old, now, new = old[:, image], now[:, image], new[:, image]
            assert torch.equal(now[~ran], old[~ran])
            torch.testing.assert_close(now[ran], new[ran], atol=1e-6, rtol=1e-6)
            assert not torch.equal(old[ran], new[ran])


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "unguided"])
def test_batched_equals_alone(name, flow_of, guided):
    """Two sparse steps in a row with other rows for every image."""
    with adapt(made(name, torch.float32)) as model:
        together = flow_of(model, guided=guided)
        k = together.grid.n // 4
        first, second = rows_of(together, k, 3), rows_of(together, k, 4)
        batched = two_sparse_steps(together, first, second)
        for i in range(3):
            one = slice(i, i + 1)
            alone = two_sparse_steps(flow_of(model, b=1, first=i, guided=guided), first[one], second[one])
            for a, b in zip(alone, batched, strict=True):
                torch.testing.assert_close(a, b[one], atol=1e-5, rtol=1e-5)
        swapped = two_sparse_steps(flow_of(model, guided=guided), first.flip(0), second)
        assert not torch.allclose(swapped[1], batched[1], atol=1e-3)


def test_rows_need_a_memory_of_their_size(name, flow_of):
    with adapt(made(name, torch.float32)) as model:
        flow = flow_of(model, b=1)
        x, sigma, kv = flow.noise(), flow.sigmas()[0], flow.new_kv()
        rows = rows_of(flow, 5, 5)
        with pytest.raises(ValueError, match="rows need the kv of a dense call"):
            flow.velocity(x, sigma, rows=rows)
        with pytest.raises(ValueError, match="rows need the kv of a dense call"):
            flow.velocity(x, sigma, kv=kv, rows=rows)
        flow.velocity(x, sigma, kv=kv)
        other = flow_of(model, b=2)
        with pytest.raises(ValueError, match=r"size \(4, 54\), not \(2, 54\)"):
            other.velocity(other.noise(), sigma, kv=kv, rows=rows_of(other, 5, 5))


def test_dense_call_refills_the_memory(name, flow_of):
    with adapt(made(name, torch.float32)) as model:
        flow = flow_of(model, b=2)
        x, sigmas, kv, fresh = flow.noise(), flow.sigmas(), flow.new_kv(), flow.new_kv()
        rows = rows_of(flow, 13, 6)
        flow.velocity(x, sigmas[0], kv=kv)
        flow.velocity(x, sigmas[1], kv=kv, rows=rows)
        flow.velocity(x, sigmas[2], kv=kv)
        flow.velocity(x, sigmas[2], kv=fresh)
        assert kv.nbytes == fresh.nbytes > 0
        after = [flow.velocity(x, sigmas[3], kv=memory, rows=rows) for memory in (kv, fresh)]
        assert torch.equal(*after)
