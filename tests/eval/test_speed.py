"""The clock, the counter and the memory mark on work whose cost is known, and the order of turns."""

import time

import pytest
import torch
from torch.nn.functional import conv2d, scaled_dot_product_attention

from fovea.eval.speed import alternating, compile_seconds, count_flops, timed


def test_all_of_the_work_is_timed_and_the_result_given():
    result, seconds, memory, state = timed(lambda: time.sleep(0.05) or "made", "cpu")
    assert result == "made"
    assert 0.05 <= seconds < 0.5
    assert memory.allocator is None
    assert state["cores_used"] < 1
    assert memory.process > 1e7


def test_only_clocks_that_are_known_are_read():
    with pytest.raises(ValueError, match="device=meta"):
        timed(lambda: None, "meta")


def test_peak_memory_is_of_the_region():
    def takes(megabytes):
        return timed(lambda: bool(torch.ones(megabytes * 2**20, dtype=torch.uint8).sum()), "cpu").memory

    large, small = takes(80), takes(1)
    assert large.process - small.process > 60 * 2**20 or large.since_start


def test_turns_go_there_and_back():
    assert "".join("".join(alternating("ABC", i)) for i in range(3)) == "ABCCBAABC"
    assert list(alternating(["dense"], 1)) == ["dense"]


def test_compiling_is_timed():
    compiled = torch.compile(lambda x: x + 1, backend="eager")
    before = compile_seconds()
    compiled(torch.ones(2))
    first = compile_seconds()
    compiled(torch.ones(2))
    assert before < first == compile_seconds()


@pytest.mark.parametrize("grad", [True, False])
def test_flops_of_products_attention_and_convolution(grad):
    b, h, n, m, d = 2, 3, 40, 50, 8
    q, k = torch.randn(b, h, n, d), torch.randn(b, h, m, d)
    x, kernel = torch.randn(1, 3, 10, 10), torch.randn(5, 3, 3, 3)
    with torch.set_grad_enabled(grad):
        assert count_flops(lambda: torch.ones(4, 5) @ torch.ones(5, 6))[1] == 2 * 4 * 5 * 6
        result, flops = count_flops(lambda: scaled_dot_product_attention(q, k, k))
        assert flops == 4 * b * h * n * m * d
        assert torch.equal(result, scaled_dot_product_attention(q, k, k))
        mask = torch.ones(n, m, dtype=torch.bool)
        assert count_flops(lambda: scaled_dot_product_attention(q, k, k, attn_mask=mask))[1] == flops
        assert count_flops(lambda: conv2d(x, kernel))[1] == 2 * 5 * 8 * 8 * 27


def test_flops_of_a_transformer_block_are_its_closed_form():
    d, n, f = 32, 20, 64
    block = torch.nn.TransformerDecoderLayer(d, 4, f, dropout=0.0, batch_first=True).eval()
    x = torch.randn(1, n, d)
    attention = 4 * 2 * n * d * d + 4 * n * n * d
    with torch.no_grad():
        assert count_flops(lambda: block(x, x))[1] == 2 * attention + 2 * 2 * n * d * f
