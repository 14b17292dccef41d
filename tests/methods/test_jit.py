"""methods/jit.py: levels and counts as printed, filling and stages by hand, off as the baseline."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from fovea.methods import Baseline, JiT
from fovea.methods.jit import blur, interpolate
from fovea.models import adapt, generator
from fovea.models.tokens import Grid
from tests.methods.gaussian import GaussianFlow
from tests.pipelines import PIPELINES


class GridFlow(GaussianFlow):
    """Whose tokens are a picture of 8 x 8."""

    grid, device = Grid(8, 8), torch.device("cpu")

    def encodings(self, positions):
        return positions


def traced(method, flow):
    steps = []
    x = method(flow, on_step=lambda **step: steps.append(step))
    return x, steps


def test_off_is_the_baseline_bit_for_bit():
    off = JiT(steps=12, **JiT.off)
    assert torch.equal(off(GridFlow()), Baseline(steps=12)(GridFlow()))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (18, "1 .999 .996 .989 .979 .965 .945 .921 .891 .854 .810 .758 .697 .625 .538 .433 .296 .056 0"),
        (11, "1 .997 .986 .964 .929 .878 .808 .715 .591 .418 .091 0"),
    ],
)
def test_noise_levels_are_the_authors(steps, expected):
    found = JiT(steps=steps).noise_levels(GridFlow())
    assert found.dtype == torch.float32  # as the pipelines'; a Mac's GPU has no other
    assert found.tolist() == pytest.approx([float(s) for s in expected.split()], abs=6e-4)


def test_the_presets_take_the_printed_share_of_fifty_dense_steps():
    four, seven = JiT(), JiT(steps=11, ratio=(0.32, 0.6))
    assert 50 * 4096 / sum(four.anchor_counts(4096, 18)) == pytest.approx(4.19, abs=0.01)
    assert 50 * 4096 / sum(seven.anchor_counts(4096, 11)) == pytest.approx(7.06, abs=0.01)
    counts = four.anchor_counts(4096, 18)
    assert [counts.count(m) for m in sorted(set(counts))] == [7, 4, 7]


@pytest.mark.parametrize("selection", ["variance", "random", "grid"])
def test_anchors_only_grow_and_run_alone(selection):
    flow = GridFlow()
    _, steps = traced(JiT(steps=10, selection=selection), flow)
    assert flow.evaluated == [22] * 4 + [39] * 2 + [64] * 4
    first, second = steps[3]["rows"], steps[4]["rows"]
    for image in range(2):
        assert set(first[image].tolist()) < set(second[image].tolist())
        assert len(second[image].unique()) == 39
    assert steps[6]["rows"] is None


def test_the_first_anchors_are_every_second_row_and_column():
    flow = GridFlow()
    found = JiT().initial_anchors(flow, flow.noise(), 22)  # 16 of the grid, for the border is too many
    row, column = found // 8, found % 8
    assert (((row % 2 == 0) & (column % 2 == 0)).sum(1) == 16).all()
    bordered = JiT().initial_anchors(flow, flow.noise(), 40)
    row, column = bordered // 8, bordered % 8
    assert ((row % 7 == 0) | (column % 7 == 0)).sum() == 2 * 28


def test_new_anchors_are_where_the_velocity_varies_most():
    v = torch.zeros(1, 64, 16)
    v.view(1, 8, 8, 16)[:, 2, 5] = 3.0
    rows = torch.tensor([[0, 2, 4]])
    found = JiT().additional_anchors(GridFlow(seeds=(0,)), v, rows, 9)[0]
    assert set(found.tolist()) == {8 * r + c for r in (1, 2, 3) for c in (4, 5, 6)}


def test_the_field_is_the_anchors_own_there_and_the_nearests_blur_between():
    grid = Grid(8, 8)
    values = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([[0, 7, 27, 56, 63]]).expand(2, -1)
    field = interpolate(values, rows, grid)
    assert torch.equal(field[:, rows[0]], values)
    at = grid.positions()
    nearest = torch.tensor(
        [min(range(5), key=lambda j: ((at[i] - at[rows[0, j]]) ** 2).sum().item()) for i in range(64)]
    )
    plain = values[:, nearest].transpose(1, 2).unflatten(2, grid)
    expected = blur(plain, 0.4 / (5 / 64) ** 0.5).flatten(2).transpose(1, 2)
    others = [i for i in range(64) if i not in rows[0]]
    torch.testing.assert_close(field[:, others], expected[:, others])
    assert torch.allclose(interpolate(torch.ones(1, 5, 3), rows[:1], grid), torch.ones(1, 64, 3))


@pytest.mark.parametrize("size", [(8, 8), (9, 12), (3, 3)])
def test_the_blur_is_a_convolution(size):
    field = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    kernel = torch.exp(-0.5 * torch.arange(-3.0, 4) ** 2)
    both = (kernel[:, None] * kernel / kernel.sum() ** 2).expand(3, 1, -1, -1)
    padded = F.pad(field, (3,) * 4, mode="reflect" if min(size) > 3 else "replicate")
    torch.testing.assert_close(blur(field, 1.0), F.conv2d(padded, both, groups=3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("relax", [1.0, 1 / 3, 0.0])
def test_a_new_anchor_goes_towards_the_old_ones_image(relax):
    """By the states told, at the change of stage; others stay."""
    method, flow = JiT(steps=10, relax=relax), GridFlow(seeds=(3,))
    _, steps = traced(method, flow)
    sigmas = method.noise_levels(flow)
    before, old, new = steps[3]["x"], steps[3]["rows"], steps[4]["rows"]
    started = steps[4]["x"] - (sigmas[5] - sigmas[4]) * steps[4]["v"]
    again = GridFlow(seeds=(3,))
    again.noise()
    torch.rand(64, generator=again.generators[0])  # the first anchors'
    added = [i for i in new[0].tolist() if i not in old[0]]
    kept = [i for i in range(64) if i not in added]
    torch.testing.assert_close(started[0, kept], before[0, kept], rtol=0, atol=1e-5)
    image = interpolate((before - sigmas[4] * steps[3]["v"])[:, old[0]], old, flow.grid)
    noise = (started - before) / max(relax, 1e-9) + before - (1 - sigmas[4]) * image
    if relax:
        assert (noise[0, added] / sigmas[4]).std().item() == pytest.approx(1, abs=0.15)
    else:
        torch.testing.assert_close(started, before, rtol=0, atol=1e-5)


def test_an_image_does_not_depend_on_its_batch():
    both = JiT(steps=10)(GridFlow(seeds=(0, 1)))
    torch.testing.assert_close(JiT(steps=10)(GridFlow(seeds=(1,)))[0], both[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", PIPELINES)
def test_anchors_are_evaluated_at_their_own_places(family):
    """All tokens as anchors of the model itself are its own picture."""
    with adapt(PIPELINES[family]()) as model:
        flow = model.flow(["a fox"], generators=[generator("a fox", 0)], steps=4)
        x, s = flow.noise(), flow.sigmas()[1]
        at = flow.grid.positions(x.device)[None]
        torch.testing.assert_close(
            flow.velocity(x, s, encodings=flow.encodings(at)), flow.velocity(x, s), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    "wrong", [{"ratio": (0.5,)}, {"ratio": (0.6, 0.3)}, {"ends": (0.7, 0.2)}, {"relax": 2}, {"levels": "x"}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        JiT(**wrong)


@pytest.mark.parametrize(("grid", "steps"), [((1, 4), 4), ((4, 1), 4), ((4, 4), 1)])
def test_a_line_of_tokens_and_a_single_step_are_refused(grid, steps):
    with pytest.raises(ValueError, match="at least 2"):
        JiT(steps=None).check(grid, steps)
