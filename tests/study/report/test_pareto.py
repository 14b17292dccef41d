"""What belongs together in a plot."""

from dataclasses import replace

from fovea.study.report.curves import curves
from tests.study.report.test_table import row


def named(*labels_and_axes):
    """Method rows beside step reduction: label to axes."""
    methods = []
    for label, axes in labels_and_axes:
        made = row(label, "method", 2.0, [0.8, 0.9, 1.0])
        methods.append(replace(made, cell=replace(made.cell, axes=axes)))
    steps = row("4 steps", "steps", 1.5, [0.7, 0.8, 0.9])
    return [*methods, replace(steps, cell=replace(steps.cell, series="step reduction"))]


def test_a_swept_key_makes_one_joined_curve():
    found = curves(
        named(("ras ratio=0.5", {"method.ratio": 0.5}), ("ras ratio=0.25", {"method.ratio": 0.25}))
    )
    assert [(c.name, len(c.rows), c.joined) for c in found] == [
        ("step reduction", 1, True),
        ("ras (ratio)", 2, True),
    ]


def test_cells_written_out_make_a_cloud_per_method_told_apart_by_colour_and_marker():
    points = [(f"m{i} a=1", {"method": f"m{i}", f"method.a{i}": 1}) for i in range(14)]
    found = curves(named(*points))[1:]
    assert not any(c.joined for c in found)
    assert len({(c.colour, c.marker) for c in found}) == 14


def test_each_baseline_has_a_step_reduction_curve_of_its_own():
    rows = []
    for model in ("sd3", "lumina"):
        for n in (4, 8):
            made = row(f"{model} {n} steps", "steps", 1.5, [0.7, 0.8, 0.9])
            rows.append(replace(made, cell=replace(made.cell, series=f"{model} step reduction")))
    assert [(c.name, len(c.rows)) for c in curves(rows)] == [
        ("sd3 step reduction", 2),
        ("lumina step reduction", 2),
    ]
