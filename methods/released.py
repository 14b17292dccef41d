"""RAS as its authors released it (microsoft/RAS, a9c5ec8), where that differs from the paper and is sound.

A token left out at the top of the ranking climbs further each time, which keeps it out (`down = up` in RAS).
Counts truncate, so that one token more may run, and are multiples of 64 where the ratio falls. The released
code never reads its `starvation_scale`: it is 0.1.
"""


def check(ras):
    """ValueError for settings that the released code does not have."""
    if ras.starvation != 0.1:
        raise ValueError(f"starvation={ras.starvation}: the released rule knows only 0.1")
    if ras.selection == "random":
        raise ValueError("selection=random: the released rule knows std and l2norm")


def ends(ras, n, steps):
    """How many tokens each step leaves out at the bottom and at the top of the ranking.

    ValueError where a sparse step would leave none out at the top: the released code then slices with [-0:],
    which is every token.
    """
    sparse = ras.sparse_steps(steps)
    average, fall = int((1 - ras.ratio) * n), round(ras.fall * n)
    middle = (steps + ras.start) // ras.every // 2
    counts = [(0, 0)] * steps
    for i in sparse:
        m = (average + fall * (i // ras.every - middle)) // 64 * 64 if fall else average
        counts[i] = int(m * (1 - ras.high_ratio)), int(m * ras.high_ratio)
        if counts[i][1] <= 0:
            raise ValueError(
                f"high_ratio={ras.high_ratio}, ratio={ras.ratio}: the released rule must leave tokens out at "
                "the top of the ranking; raise high_ratio, lower ratio or set as_released=false"
            )
    return counts
