"""Benchmarks run as they stand; their times are for who runs them."""

from scripts import benchmark_overhead


def test_the_overhead_is_over_what_was_slept(tmp_path):
    share, last, own, every = benchmark_overhead.overhead(0.5, 1, tmp_path)
    assert share > 0
    assert last > 0
    assert 0 < own < every
