"""methods/ralu.py, on a flow that knows every token's place, and on tiny pipelines."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

from fovea.methods import RALU, RAS, Baseline, ntdm, ralu
from fovea.methods.caches import FORA, TaylorOutput
from fovea.methods.ralu_presets import PRESETS
from fovea.models import adapt, generator
from fovea.models.tokens import Grid, pack, unpack
from tests.pipelines import PIPELINES, text_limit

GRID = Grid(4, 6)


class PlacedFlow:
    """Every token goes straight to an image that is its own place, (row, column) on the full grid.

    numbers: which step each noise level belongs to. calls: state and places (b, n, 2) of every evaluation.
    """

    pixels, shift, device = 4, 3.0, torch.device("cpu")

    def __init__(self, grid=GRID, seeds=(0, 1, 2)):
        self.grid, self.generators = grid, [torch.Generator().manual_seed(seed) for seed in seeds]
        self.calls, self.decoded_grids = [], []

    def noise(self):
        return torch.stack([torch.randn(self.grid.n, 16, generator=g) for g in self.generators])

    def sigmas(self, steps):
        u = torch.linspace(1, 0, steps + 1)
        return 3 * u / (1 + 2 * u)

    def new_kv(self):
        return None

    def encodings(self, positions=None, grid=None):
        grid = grid or self.grid
        at = grid.positions() if positions is None else positions
        return (at * (self.grid.rows / grid.rows)).expand(len(self.generators), -1, -1)

    def velocity(self, x, sigma, kv=None, rows=None, encodings=None, keep_text=False):
        at = self.encodings() if encodings is None else encodings
        self.calls.append(SimpleNamespace(x=x, at=at, sigma=sigma, rows=rows))
        v = (x - at.repeat(1, 1, 8)) / sigma
        return v if rows is None else v.gather(1, rows[..., None].expand(-1, -1, 16))


def trace(method, flow):
    steps = []
    x = method(flow, on_step=lambda **step: steps.append(step))
    return x, steps


def whole(flow):
    """Where each token of the full grid stands, as an image (n, 16)."""
    return flow.grid.positions().repeat(1, 8)


def silent(monkeypatch):
    """No noise when tokens split."""
    monkeypatch.setattr(
        ralu, "coupled_noise", lambda g, kept, copies, c, *_, **__: torch.zeros(len(g), kept + copies, c)
    )


TWO = {"stages": (3, 4), "ends": (0.3, 1.0), "shifts": (5.0, 2.0), "c": 0.02}


@pytest.mark.parametrize("settings", [{}, {"ratio": 0.5}, {"ratio": 0.0}, {"ratio": 1.0}, TWO])
@pytest.mark.parametrize("grid", [Grid(4, 6), Grid(8, 2)])
def test_every_token_ends_as_its_place(settings, grid):
    flow = PlacedFlow(grid)
    x, steps = trace(RALU(selection="random", **settings), flow)
    torch.testing.assert_close(x, whole(flow).expand(3, -1, -1), rtol=0, atol=1e-5)
    assert [step["i"] for step in steps] == list(range(len(steps)))


@pytest.mark.parametrize("ratio", [0.2, 0.5])
@pytest.mark.parametrize("grid", [Grid(4, 6), Grid(8, 2)])
def test_every_token_goes_on_from_its_parents_state(monkeypatch, grid, ratio):
    """Without noise, the state at the start of the last stage is known in closed form: the path of the parent
    on the half grid, then the token's own, each scaled at its restart."""
    silent(monkeypatch)
    flow, method = PlacedFlow(grid), RALU(selection="random", ratio=ratio)
    monkeypatch.setattr(flow, "noise", lambda: torch.zeros(3, grid.n, 16))
    _, steps = trace(method, flow)
    chosen, (first, second, _) = method.schedule(flow)
    own = whole(flow).expand(3, -1, -1)
    parent = own // 2 * 2
    refined = steps[len(first) - 1]["density"][..., None] == 1
    aim = torch.where(refined, own, parent)
    assert refined[..., 0].sum(1).tolist() == [4 * round(grid.n // 4 * ratio)] * 3
    assert not torch.equal(refined[0], refined[1])
    starts = [ntdm.restart(end, chosen.c) for end in chosen.ends[:2]]
    middle = aim + (starts[0][0] * parent - aim) * second[-1] / second[0]
    found = flow.calls[sum(chosen.steps[:2])].x
    torch.testing.assert_close(found, starts[1][1] * middle, rtol=0, atol=1e-5)


def test_the_tokens_of_each_stage():
    """15 steps of the preset, 24 tokens: 6 at half resolution; one of them refined to 4; all."""
    flow = PlacedFlow()
    _, steps = trace(RALU(selection="random"), flow)
    assert [call.x.shape[1] for call in flow.calls] == [6] * 4 + [9] * 5 + [24] * 6
    told = [24 if step["density"] is None else step["density"].sum(1).tolist() for step in steps]
    assert told == [[6.0] * 3] * 4 + [[9.0] * 3] * 5 + [24] * 6


def test_an_image_has_regions_of_its_own_that_do_not_depend_on_its_batch():
    batch, steps = trace(RALU(selection="random", ratio=0.5), PlacedFlow(Grid(8, 6), (0, 1, 2)))
    regions = steps[4]["density"]
    assert not torch.equal(regions[0], regions[1])
    for i in range(3):
        alone, own = trace(RALU(selection="random", ratio=0.5), PlacedFlow(Grid(8, 6), (i,)))
        assert torch.equal(own[4]["density"][0], regions[i])
        torch.testing.assert_close(alone[0], batch[i], rtol=1e-5, atol=1e-5)


def two_resolutions(flow, method, at_half):
    """Half resolution in the first `at_half` stages and full in the others, written out."""
    chosen, stages = method.schedule(flow)
    half = Grid(flow.grid.rows // 2, flow.grid.columns // 2)
    x = pack(unpack(flow.noise(), flow.grid, 2)[..., ::2, ::2], 2)
    for k, sigmas in enumerate(stages):
        if k == 1 and len(stages) == 3:
            for g in flow.generators:
                torch.rand(half.n, generator=g)  # the scores' ties
        if k:
            x = renoised(flow, x, half, chosen.ends[k - 1], chosen.c, split=k == at_half)
        for s, s_next in pairwise(sigmas):
            x = x + (s_next - s) * flow.velocity(
                x, s, encodings=flow.encodings(grid=half if k < at_half else None)
            )
    return x


def renoised(flow, x, half, end, c, split):
    """Noised anew. Split: the four's noise by the matrix."""
    start, scale = ntdm.restart(end, c)
    n = x.shape[1] * (4 if split else 1)
    z = torch.stack([torch.randn(n, 16, generator=g) for g in flow.generators])
    if not split:
        z = raster(z, half) if n > half.n else z  # drawn by fours
        return scale * x + (1 - start) * (1 - c) ** 0.5 * z
    values, vectors = torch.linalg.eigh(torch.eye(4) - c)
    root = vectors @ values.sqrt().diag() @ vectors.T
    z = torch.einsum("ij,bnjc->bnic", root, z.unflatten(1, (-1, 4)))
    return raster((scale * x[:, :, None] + (1 - start) * z).flatten(1, 2), half)


def raster(x, half):
    """Tokens by fours of one parent (b, n, c), row by row."""
    cells = x.unflatten(1, (*half, 2, 2))  # (b, rows, columns, 2, 2, c)
    return cells.transpose(2, 3).flatten(1, 4)


@pytest.mark.parametrize(
    ("settings", "at_half"), [(TWO, 1), ({"ratio": 1.0}, 1), ({"ratio": 0.0}, 2)], ids=["two", "all", "none"]
)
def test_without_a_mixed_stage_it_is_two_plain_resolutions(settings, at_half):
    """Two stages; all regions refined, or none."""
    flow, method = PlacedFlow(), RALU(selection="random", **settings)
    states = [step["x"] for step in trace(method, flow)[1]]
    plain = PlacedFlow()
    torch.testing.assert_close(states[-1], two_resolutions(plain, method, at_half), rtol=0, atol=1e-5)
    assert [c.x.shape for c in flow.calls] == [c.x.shape for c in plain.calls]
    last = method.schedule(flow)[0].steps[-1]
    torch.testing.assert_close(flow.calls[-last].x, plain.calls[-last].x, rtol=0, atol=1e-5)


def test_the_noise_left_in_each_token_is_that_of_its_time():
    """The Gaussian toy x_t = t x1 + (1 - t) n: exact paths through all three stages. What is left of the
    noise at the start of a stage is independent with variance (1 - s)^2 in every entry: many channels."""
    flow, method = WideFlow(), RALU(selection="random", ratio=0.5)
    chosen, stages = method.schedule(flow)
    trace(method, flow)
    for k, stage in enumerate(stages):
        left = flow.calls[sum(chosen.steps[:k])].x[0].double()
        covariance = left @ left.T / left.shape[1]
        expected = stage[0].item() ** 2 * torch.eye(len(left)).double()
        torch.testing.assert_close(covariance, expected, rtol=0, atol=6 / left.shape[1] ** 0.5)


class WideFlow(PlacedFlow):
    """The image is 0 everywhere, tokens have many channels: a state is what is left of the noise."""

    def __init__(self):
        super().__init__(Grid(4, 4), (0,))

    def noise(self):
        return torch.randn(1, self.grid.n, 40_000, generator=self.generators[0])

    def velocity(self, x, sigma, kv=None, rows=None, encodings=None, keep_text=False):
        self.calls.append(SimpleNamespace(x=x))
        return x / sigma


# caches inside


def test_a_cache_starts_anew_in_each_stage_or_goes_on():
    """TaylorOutput(3, 1, 2) runs steps 0, 1, 3, 6, 9 ...: in stages of 5, 6 and 7 steps 3 + 3 + 4, or of 18
    steps 7."""
    settings = {"preset": "released_4x", "selection": "random", "cache": TaylorOutput(3, 1, 2)}
    for carry, sizes in ((False, [6] * 3 + [12] * 3 + [24] * 4), (True, [6] * 3 + [12] * 2 + [24] * 2)):
        flow = PlacedFlow()
        _, steps = trace(RALU(carry=carry, **settings), flow)
        assert len(steps) == 18
        assert [call.x.shape[1] for call in flow.calls] == sizes


def test_a_history_that_is_carried_is_each_parents(monkeypatch):
    """A velocity that is a line in the step's number for each parent is forecast across both splits."""
    method = RALU(preset="released_4x", selection="random", cache=TaylorOutput(4, 1, 2), carry=True)
    flow = PlacedFlow()
    levels = [s.item() for stage in method.schedule(flow)[1] for s in stage[:-1]]
    number = {level: i for i, level in enumerate(levels)}
    line = torch.randn(2, 24, 16, generator=torch.Generator().manual_seed(9))
    evaluated = []

    def exact(at, i):
        cell = at // 2  # its parent's
        of = (cell[..., 0] * 3 + cell[..., 1]).long()
        return line[0][of] + i * line[1][of]

    def velocity(x, sigma, encodings=None, **_):
        evaluated.append(number[sigma.item()])
        return exact(flow.encodings() if encodings is None else encodings, evaluated[-1])

    monkeypatch.setattr(flow, "velocity", velocity)
    _, steps = trace(method, flow)
    assert len(number) == len(steps) == 18
    assert evaluated == [0, 1, 3, 7, 11, 15]
    encodings = (
        [flow.encodings(grid=Grid(2, 3))] * 5 + [mixed(steps[5]["density"])] * 6 + [flow.encodings()] * 7
    )
    for i, (step, at) in enumerate(zip(steps, encodings, strict=True)):
        torch.testing.assert_close(step["v"], exact(at, i), rtol=0, atol=2e-4)


def mixed(density):
    """Places of stage 2's tokens: those at half resolution, then each refined one's four."""
    found = []
    for image in density.view(-1, 4, 6):
        cells = [(r, c) for r in (0, 2) for c in (0, 2, 4)]
        coarse = [cell for cell in cells if image[cell] < 1]
        fine = [(r + i, c + j) for r, c in cells if image[r, c] == 1 for i in (0, 1) for j in (0, 1)]
        found.append(torch.tensor(coarse + fine).float())
    return torch.stack(found)


def test_ras_in_the_last_stage():
    for ratio, sizes in ((1.0, [24] * 6), (0.5, [24] + [12] * 5)):
        flow = PlacedFlow()
        x, steps = trace(RALU(selection="random", last=RAS(ratio=ratio, start=1, resets=())), flow)
        ran = [24 if call.rows is None else call.rows.shape[1] for call in flow.calls[9:]]
        assert ran == sizes
        assert [step["i"] for step in steps] == list(range(15))
        assert all(step["density"] is None for step in steps[9:])
        if ratio == 1:
            assert torch.equal(x, RALU(selection="random")(PlacedFlow()))


# settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ends": (0.3, 1.0)}, "one end per stage"),
        ({"ends": (0.45, 0.3, 1.0)}, "must ascend"),
        ({"ends": (0.0, 0.3, 1.0)}, "must ascend"),
        ({"ends": (0.3, 0.45, 0.9)}, "must ascend"),
        ({"ends": (0.3, 1.0, 1.0)}, "must ascend"),
        ({"stages": (4, 5)}, "one end per stage"),
        ({"steps": 10, "stages": (2, 3, 5)}, "give one of them"),
        ({"steps": 2}, "at least 3"),
        ({"shifts": (3.0, 2.0)}, "one shift per stage"),
        ({"shifts": (3.0, 2.0, 2.0), "preset": "distilled_4nfe"}, "need a coupling"),
        ({"c": 0.02, "steps": 9}, "give both or neither"),
        ({"c": 0.3}, "less than or equal to 0.25"),
        ({"carry": True}, "only the cache taylor_output"),
        ({"carry": True, "cache": FORA()}, "only the cache taylor_output"),
        ({"last": RAS(steps=12)}, "last.steps=12"),
        ({"stages": ()}, "at least 1 item"),
        ({"stages": (0, 2, 3)}, "greater than or equal to 1"),
        ({"selection": "edge"}, "Input should be 'edges'"),
        ({"ratios": 0.3}, "Unexpected keyword"),
    ],
)
def test_wrong_settings_are_refused(settings, said):
    with pytest.raises(ValidationError, match=said) as refused:
        RALU(**settings)
    assert refused.value.error_count() == 1


def test_an_odd_grid_is_refused():
    with pytest.raises(ValueError, match="5 x 4 tokens cannot be halved"):
        RALU(selection="random")(PlacedFlow(Grid(5, 4)))


@pytest.mark.parametrize(
    ("total", "stages"), [(3, (1, 1, 1)), (15, (4, 5, 6)), (30, (8, 10, 12)), (10, (3, 3, 4)), (4, (1, 1, 2))]
)
def test_steps_are_shared_out_as_the_preset_does(total, stages):
    assert RALU(steps=total).resolved_preset().steps == stages


def test_what_is_left_open_is_matched():
    """The preset's own curve where its stages stand; matched to the model's shift, at least 3, elsewhere."""
    flow = PlacedFlow()
    assert RALU().schedule(flow)[0] == PRESETS["flux_5x"]
    for settings, steps, target in (
        ({"shifts": "auto"}, (4, 5, 6), 3.0),
        ({"steps": 30}, (8, 10, 12), 3.0),
        ({"steps": 30, "target": 4.0}, (8, 10, 12), 4.0),
    ):
        chosen = RALU(**settings).schedule(flow)[0]
        assert (chosen.shifts, chosen.c) == ntdm.match_shifts(steps, (0.3, 0.45, 1.0), target)[:2]
    flow.shift = 1.0
    assert RALU(steps=30).schedule(flow)[0] == RALU(steps=30, target=3.0).schedule(flow)[0]


# tiny pipelines


@pytest.fixture(scope="module", params=PIPELINES)
def pipe(request):
    return PIPELINES[request.param]()


def made(pipe, method, **options):
    """Final tokens of one image, and the flow that made it."""
    with adapt(pipe) as model:
        size = {"height": 64, "width": 96, "guidance": 4.0} | text_limit(pipe) | options
        flow = model.flow(["a fox"], generators=[generator("a fox", 0)], **size)
        return method(flow), flow


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_on_every_family(pipe, preset):
    x, flow = made(pipe, RALU(preset))
    k = round(6 * PRESETS[preset].ratio)
    stages = zip(PRESETS[preset].steps, (6, 6 + 3 * k, 24), strict=True)
    ran = [w.k for w in flow.block_runs if w.outer]
    assert ran == [size for steps, size in stages for _ in range(steps)]
    assert x.isfinite().all()
    assert flow.decoded_grids == [Grid(2, 3)]


def test_one_stage_is_the_baseline_bit_for_bit(pipe):
    assert torch.equal(made(pipe, RALU(stages=(5,)))[0], made(pipe, Baseline(5))[0])


def test_ras_at_ratio_one_in_the_last_stage_changes_nothing(pipe):
    plain, both = (made(pipe, RALU(preset="flux_7x", last=last))[0] for last in (None, RAS(ratio=1, start=1)))
    assert torch.equal(plain, both)


@pytest.mark.parametrize(
    "settings", [{"as_released": True}, {"selection": "variance"}, {"selection": "latent_gradient"}]
)
def test_the_same_image_twice(pipe, settings):
    method = RALU(preset="released_7x", **settings)
    assert torch.equal(made(pipe, method)[0], made(pipe, method)[0])
