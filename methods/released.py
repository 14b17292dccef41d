"""Token counts of the authors' RAS code (microsoft/RAS, a9c5ec8), where they differ from the paper's."""

from methods.sparsity import Sparsity


def skipped(sparsity: Sparsity, n: int, steps: int) -> list[int]:
    """Tokens left out at each step: truncated where the paper's ratio is exact; in multiples of 64 where the ratio falls."""
    sparse = sparsity.sparse_steps(steps) if sparsity.ratio < 1 else []
    average, fall = int((1 - sparsity.ratio) * n), round(sparsity.fall * n)
    centre = (steps + sparsity.start) // sparsity.every // 2

    def at(i):
        return (average + fall * (i // sparsity.every - centre)) // 64 * 64 if fall else average

    return [at(i) if i in sparse else 0 for i in range(steps)]


def ends(skips: list[int], high_ratio: float) -> list[tuple[int, int]]:
    """Tokens left out at the bottom and the top of the ranking at each step.

    ValueError where none is left out at the top of a sparse step: the released code then slices with [-0:], which is every token.
    """
    counts = [(int(skip * (1 - high_ratio)), int(skip * high_ratio)) for skip in skips]
    if any(low + high > 0 == high for low, high in counts):
        raise ValueError(
            f"high_ratio={high_ratio}: the released rule needs tokens left out at the top; use as_released=false"
        )
    return counts
