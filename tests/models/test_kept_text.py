"""Sparse calls that keep the text: no text token runs, and the image attends to its keys from before."""

from typing import Any

import pytest
import torch

from fovea.models import adapt
from fovea.models.kv import KV
from tests.models.conftest import made
from tests.models.test_sparse import rows_of

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


def text_rows(t, transformer, n):
    """The rows of a cache (b, s, heads, d) that are not the n of the image."""
    return t[:, : t.shape[1] - n] if transformer.text_first else t[:, n:]


class Restoring(KV):
    """Whose text stays as it was, though it is computed: brute force for `keep_text`."""

    def __init__(self, transformer, n):
        super().__init__()
        self.transformer, self.n = transformer, n

    def update(self, pass_index, layer, k, v, slots):
        before = [t.clone() for t in self.layers.get((pass_index, layer), ())]
        found = super().update(pass_index, layer, k, v, slots)
        for old, now in zip(before, found, strict=slots is not None):
            text_rows(now, self.transformer, self.n).copy_(text_rows(old, self.transformer, self.n))
        return found


def two_kept_steps(flow, first, second, kv, **settings):
    x, sigmas = flow.noise(), flow.sigmas()
    x = x + (sigmas[1] - sigmas[0]) * flow.velocity(x, sigmas[0], kv=kv)
    v1 = flow.velocity(x, sigmas[1], kv=kv, rows=first, **settings)
    x = x.scatter_add(1, first[..., None].expand_as(v1), (sigmas[2] - sigmas[1]) * v1)
    return v1, flow.velocity(x, sigmas[2], kv=kv, rows=second, **settings)


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "unguided"])
def test_the_image_attends_to_the_text_of_the_last_dense_call(name, flow_of, guided):
    with adapt(made(name, torch.float32)) as model:
        one, other, third = (flow_of(model, guided=guided) for _ in range(3))  # the same noise each
        rows = rows_of(one, 13, 1), rows_of(one, 13, 2)
        kept = two_kept_steps(one, *rows, one.new_kv(), keep_text=True)
        brute = two_kept_steps(other, *rows, Restoring(model.transformer, other.grid.n))
        for v, expected in zip(kept, brute, strict=True):
            torch.testing.assert_close(v, expected, **CLOSE)
        ran = two_kept_steps(third, *rows, third.new_kv())
        if name == "lumina":  # no block changes its text
            assert all(map(torch.equal, kept, ran))
        else:
            assert not torch.allclose(kept[0], ran[0], atol=1e-4)


def test_only_active_image_rows_are_written(name, flow_of):
    with adapt(made(name, torch.float32)) as model:
        flow = flow_of(model)
        x, kv, sigmas, n = flow.noise(), flow.new_kv(), flow.sigmas(), flow.grid.n
        flow.velocity(x, sigmas[0], kv=kv)
        before = {layer: (k.clone(), v.clone()) for layer, (k, v) in kv.layers.items()}
        rows = rows_of(flow, 13, 3)
        flow.velocity(x + 1, sigmas[1], kv=kv, rows=rows, keep_text=True)
        for layer, pair in kv.layers.items():
            for old, now in zip(before[layer], pair, strict=True):
                same = (old == now).flatten(2).all(2)  # (b', s)
                text = same.shape[1] - n
                first = text if model.transformer.text_first else 0
                expected = torch.ones_like(same)
                expected.scatter_(1, first + rows.repeat(len(same) // len(rows), 1), False)
                assert torch.equal(same, expected)


def test_with_the_text_of_the_same_step_it_is_a_call_that_runs_it(name, flow_of):
    """After a call that ran the text, the same call keeps the text and gives the same velocity."""
    with adapt(made(name, torch.float32)) as model:
        flow = flow_of(model)
        x, kv, sigmas, rows = flow.noise(), flow.new_kv(), flow.sigmas(), rows_of(flow, 13, 4)
        flow.velocity(x, sigmas[0], kv=kv)
        ran = flow.velocity(x + 1, sigmas[1], kv=kv, rows=rows)
        kept = flow.velocity(x + 1, sigmas[1], kv=kv, rows=rows, keep_text=True)
        torch.testing.assert_close(kept, ran, **CLOSE)


@pytest.mark.parametrize("guided", [True, False], ids=["guided", "unguided"])
def test_batched_equals_alone(name, flow_of, guided):
    with adapt(made(name, torch.float32)) as model:
        together = flow_of(model, guided=guided)
        first, second = rows_of(together, 13, 5), rows_of(together, 13, 6)
        batched = two_kept_steps(together, first, second, together.new_kv(), keep_text=True)
        for i in range(3):
            one, flow = slice(i, i + 1), flow_of(model, b=1, first=i, guided=guided)
            alone = two_kept_steps(flow, first[one], second[one], flow.new_kv(), keep_text=True)
            for a, b in zip(alone, batched, strict=True):
                torch.testing.assert_close(a, b[one], **CLOSE)


def test_a_call_on_all_tokens_runs_the_text(pipe, flow_of):
    with adapt(pipe) as model:
        flow = flow_of(model, b=1)
        with pytest.raises(ValueError, match="keep_text needs rows"):
            flow.velocity(flow.noise(), flow.sigmas()[0], kv=flow.new_kv(), keep_text=True)


def test_in_bfloat16_it_runs(name, flow_of):
    with adapt(made(name, torch.bfloat16)) as model:
        flow = flow_of(model)
        rows = rows_of(flow, 13, 7), rows_of(flow, 13, 8)
        assert all(v.isfinite().all() for v in two_kept_steps(flow, *rows, flow.new_kv(), keep_text=True))
