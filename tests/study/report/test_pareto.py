"""What belongs together in a plot."""

import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.text import Text

from fovea.eval.interval import Interval
from fovea.study.report.drawing import drawings
from fovea.study.report.panels import panels_of, series
from fovea.study.report.pareto import draw, pareto, size
from fovea.study.report.style import figure
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
    found = series(
        named(("ras ratio=0.5", {"method.ratio": 0.5}), ("ras ratio=0.25", {"method.ratio": 0.25}))
    )
    assert [(c.name, len(c.rows), c.joined) for c in found] == [
        ("dense", 0, False),
        ("step reduction", 1, True),
        ("ras (ratio)", 2, True),
    ]


def test_points_bear_the_swept_value_whatever_was_written_after_it():
    values = [(ratio, every) for ratio in (0.5, 0.25, 0.125) for every in (4, 2)]
    points = [
        (f"ras ratio={ratio} every={every}", {"method.ratio": ratio, "method.every": every})
        for ratio, every in values
    ]
    (panel,) = panels_of(named(*points), "time")
    curves = {one.name: [point.text for point in one.points] for one in panel.series if one.role == "method"}
    assert curves == {f"ras every={every} (ratio)": ["0.5", "0.25", "0.125"] for every in (4, 2)}


def of_models(*methods_and_axes, size=""):
    """Rows of a dense run and of methods for each of two models; size: what their labels add to the name."""
    rows = []
    for name in ("sd3", "lumina"):
        model = f"{name}{size}"
        dense = row(f"{model} dense", "dense", 1.0, [1, 1, 1])
        rows.append(replace(dense, cell=replace(dense.cell, dense=dense.cell.id)))
        for method, axes in methods_and_axes:
            made = row(f"{model} {method}", "method", 2.0, [0.8, 0.9, 1.0])
            own = {"series": f"{model} {method.split()[0]}", "axes": {"model": name} | axes}
            rows.append(replace(made, cell=replace(made.cell, dense=f"{model} dense", **own)))
    return rows


def test_a_curve_is_along_a_setting_and_looks_alike_for_every_model():
    values = [(method, ratio) for method in ("ras", "random") for ratio in (0.5, 0.25)]
    rows = of_models(*((f"{m} ratio={r}", {"method": m, "method.ratio": r}) for m, r in values))
    for panel in panels_of(rows, "time"):
        curves = {one.name: [p.text for p in one.points] for one in panel.series if one.role == "method"}
        assert curves == {"ras (ratio)": ["0.5", "0.25"], "random (ratio)": ["0.5", "0.25"]}


@pytest.mark.parametrize("size", ["", " (tiny)"])
def test_methods_without_a_swept_setting_are_points_and_no_curve_of_a_model_s_name(size):
    rows = of_models(*((name, {"method": name}) for name in ("ras", "jit", "ralu")), size=size)
    for panel in panels_of(rows, "time"):
        found = [(one.name, one.joined, [p.text for p in one.points]) for one in panel.series]
        assert found[1:] == [(name, False, [""]) for name in ("ras", "jit", "ralu")]


@pytest.mark.parametrize("columns", [1, 2])
def test_the_legend_is_within_the_figure_and_its_panels_keep_their_height(columns):
    rows = of_models(*((f"m{i}{'-long' * 20}", {"method": f"m{i}", f"method.a{i}": i}) for i in range(14)))
    panels = panels_of(rows, "time")[:columns]
    with figure(*size(panels)) as made:
        draw(made, panels)
        box = made.legends[0].get_window_extent()
        assert 0 <= box.x0 < box.x1 <= made.bbox.width
        assert box.y0 >= 0
        assert made.axes[0].get_position().height * made.get_figheight() > 1.5


@pytest.mark.parametrize("more", ["", " at 2048 x 2048 pixels, Ampere"])
def test_a_title_does_not_touch_the_direction_beside_it(more):
    panels = panels_of(of_models(("ras", {"method": "ras"}), size=more), "time")
    with figure(*size(panels)) as made:
        draw(made, panels)
        made.canvas.draw()
        for axis in made.axes:
            (title,) = [text for text in axis.findobj(Text) if text.get_text().startswith("SSIM to dense, ")]
            (direction,) = [text for text in axis.texts if "better" in text.get_text()]
            assert title.get_window_extent().x1 < direction.get_window_extent().x0
            assert (title.get_fontsize() < rcParams["axes.titlesize"]) == bool(more)


def test_cells_written_out_make_a_cloud_per_method_told_apart_by_colour_and_marker():
    points = [(f"m{i} a=1", {"method": f"m{i}", f"method.a{i}": 1}) for i in range(14)]
    found = series(named(*points))[2:]
    assert not any(c.joined for c in found)
    assert len({(c.colour, c.marker) for c in found}) == 14


def test_each_baseline_has_a_step_reduction_curve_of_its_own():
    rows = []
    for model in ("sd3", "lumina"):
        for n in (4, 8):
            made = row(f"{model} {n} steps", "steps", 1.5, [0.7, 0.8, 0.9])
            rows.append(replace(made, cell=replace(made.cell, series=f"{model} step reduction")))
    assert [(c.name, len(c.rows)) for c in series(rows)] == [
        ("dense", 0),
        ("sd3 step reduction", 2),
        ("lumina step reduction", 2),
    ]


@pytest.fixture
def rows():
    return [
        row("dense", "dense", 1.0, [1, 1, 1]),
        row("ras $x^2$ a", "method", 2.0, [0.8, 1.0, 0.9]),
        row("4 steps", "steps", 1.5, [0.7, 0.8, 0.9]),
        row("3 steps", "steps", 3.0, [0.4, 0.5, 0.6]),
    ]


def test_the_front_is_of_the_point_estimates_the_cheapest_first(rows):
    (panel,) = panels_of(rows, "time")
    assert [(p.cell, p.x[0], p.y[0]) for p in panel.front] == [
        ("3 steps", 3.0, 0.5),
        ("ras $x^2$ a", 2.0, pytest.approx(0.9)),
        ("dense", 1.0, 1.0),
    ]
    failed = replace(rows[1], failure="no-op")
    (panel,) = panels_of([rows[0], failed, *rows[2:]], "time")
    assert [p.cell for p in panel.front] == ["3 steps", "4 steps", "dense"]


def test_the_drawn_front_promises_no_score_that_no_cell_reaches_at_that_cost(rows):
    (panel,) = panels_of(rows, "time")
    with figure(*size([panel])) as made:
        draw(made, [panel])
        (line,) = [line for line in made.axes[0].lines if line.get_gid() == "front"]
        corners = np.asarray(line.get_path().vertices)
    reached = [(point.x[0], point.y[0]) for one in panel.series for point in one.points]
    assert len(corners) == 2 * len(panel.front) - 1
    for x, y in corners:
        assert any(x <= fast and y <= score for fast, score in reached)
    assert corners.max(0).tolist() == np.max(reached, 0).tolist()


def test_a_rival_model_is_drawn_and_may_lead_and_what_is_no_method_does_neither(rows):
    rival = row("schnell 4 steps", "sibling", 3.5, [0.9, 1.0, 1.1])
    oracle = row("ras oracle", "diagnosis", 4.0, [1.0, 1.0, 1.0])
    (panel,) = panels_of([*rows, rival, oracle], "time")
    assert [(s.name, s.role) for s in panel.series][-1] == ("schnell", "sibling")
    assert [p.cell for p in panel.front] == ["schnell 4 steps"]
    *others, last = panel.series
    assert (last.colour, last.marker) not in {(s.colour, s.marker) for s in others}


def test_no_label_covers_another_and_the_front_and_step_reduction_keep_theirs():
    curves = named(*((f"ras ratio={i} steps={i % 2}", {"method.ratio": i}) for i in range(20)))
    shifted = [
        replace(r, speedup=Interval(2 + i / 50, 2, 3, 0.95)) if r.cell.role == "method" else r
        for i, r in enumerate(curves)
    ]
    (panel,) = panels_of([row("dense", "dense", 1.0, [1.0, 1.0, 1.0]), *shifted], "time")
    with figure(*size([panel])) as made:
        draw(made, [panel])
        shown = [text for text in made.axes[0].texts if text.get_visible()]
        boxes = [text.get_window_extent() for text in shown]
        assert not [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]
        names = {text.get_text() for text in shown}
        assert 3 < len(names) < len(made.axes[0].texts)
        assert next(point.text for point in panel.front) in names


def test_a_cell_without_a_time_is_drawn_where_the_cost_is_flops(rows, tmp_path):
    """As one whose batches were run in halves. The page draws it, too."""
    untimed = [replace(row, cost="flops", speedup=None, seconds=None) for row in rows]
    for scored in (True, False):
        given = untimed if scored else [replace(row, scores={}) for row in untimed]
        pareto(given, tmp_path, False)
        drawn = (tmp_path / "pareto.svg").read_text("utf-8")
        names = [f'id="cell-{row.cell.id}"' if scored else f">{row.cell.label}<" for row in given]
        assert all(name in drawn for name in names)


def test_what_is_drawn_is_drawn_as_it_is_written(rows, tmp_path):
    """Mathematics, an underscore that would hide a name from the legend, and what the font lacks."""
    for label in (r"$\nope$", "_hidden", "a $x$ b", "שלום 🦊"):
        named = replace(rows[1].cell, label=f"x {label}", series=label)
        pareto([rows[0], replace(rows[1], cell=named), *rows[2:]], tmp_path, False)
        text = (tmp_path / "pareto.svg").read_text("utf-8")
        assert label.replace("🦊", "▯").removeprefix("_") in text


def test_the_page_has_what_the_figure_has_in_its_own_colours(rows):
    time, flops = drawings(rows)
    assert (time.name, time.cost, flops.cost) == ("ssim", "time", "flops")
    assert all(f'data-cell="{r.cell.id}"' in time.svg for r in rows)
    assert time.svg.count('class="front"') == 1
    assert "style=" not in time.svg
    assert "<style" not in time.svg
    assert "#0072b2" not in time.svg
    ids = re.findall(r' id="([^"]+)"', time.svg + flops.svg)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', time.svg + flops.svg)) <= set(ids)
