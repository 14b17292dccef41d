"""Every method and cache at 1024 px on a pretended GPU, in bfloat16, from noise to the decoded image.

The models have their full width, tokens and text, and one or two blocks of each kind: what differs between
blocks of one kind is their weights. `test_full_depth` has them all.
"""

import inspect
from copy import deepcopy
from functools import cache
from itertools import product

import diffusers
import pytest
import torch

from fovea.methods import RALU, Baseline, JiT, Lift, Random
from fovea.models import adapt
from fovea.models.families import FAMILIES, SIZES
from fovea.models.flow import Flow
from fovea.models.pretend import pretend
from tests.methods.test_contract import METHODS

PROMPTS = ["a fox", "two red apples on a table"]
# one of each family, but FLUX.2-dev, whose transformer is FLUX.2-klein's; and SD3.5's other blocks
MODELS = [next(iter(family.sizes)) for name, family in FAMILIES.items() if name != "flux2"] + ["sd35"]
DEPTHS = {"num_layers": 2, "n_layers": 2, "num_refiner_layers": 1, "n_refiner_layers": 1}
DEPTHS_OF_TWO_KINDS = {"num_layers": 1, "num_single_layers": 2}
PAPERS = ("sd3", "sd35", "lumina", "flux")  # which the papers measure
IMAGES = {"square": (1, 1024, 1024), "wide": (2, 768, 1344)}  # images of a batch, height, width
# per image of the batch and evaluation, one number is read where a threshold decides
THRESHOLDS = ("teacache", "magcache", "fbcache", "dbcache", "seacache", "easycache", "dicache")


def shallow(name):
    architecture = deepcopy(SIZES[name].architecture)
    kind, config = architecture["transformer"]
    known = inspect.signature(getattr(diffusers, kind)).parameters
    depths = DEPTHS_OF_TWO_KINDS if "num_single_layers" in known else DEPTHS
    depths = {key: depth for key, depth in depths.items() if key in known}
    both = {"dual_attention_layers": (0,)} if "dual_attention_layers" in config else {}  # kinds of SD3.5's
    return architecture | {"transformer": (kind, config | depths | both)}


@pytest.fixture(scope="module", params=MODELS)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def gpu(family):
    with pretend() as device:
        pipe = device.build(shallow(family))
        with adapt(pipe) as model:
            yield device, model


@pytest.fixture(scope="module")
def encoded(gpu):
    """A batch of that size, its prompts encoded: what comes before any method."""
    _, model = gpu

    @cache
    def encoded(b, height, width):
        generators = [torch.Generator() for _ in range(b)]
        return model.flow(PROMPTS[:b], generators=generators, height=height, width=width)

    return encoded


def waits_in_the_loop(device, method, flow):
    """The final tokens, and the waits between the first evaluation's end and the last's beginning."""
    marks, begun = [], []

    def on_step(**_):
        marks.append(len(device.waits))
        begun.append(len(flow.block_runs))

    x = method(flow, on_step=on_step)
    return x, device.waits[marks[0] : marks[-2]] if len(marks) > 2 else []


def bound(name, method, flow):
    """How often the algorithm itself must decide on the host, or the scheduler of another library copies."""
    if name.startswith("caching/") and any(t in name for t in THRESHOLDS):
        return flow.steps + len(flow.block_runs)
    if getattr(method, "solver", None) == "unipc":
        return 8 * flow.steps
    if isinstance(method, Random):  # each image's own generator is on the host
        return flow.steps
    if getattr(method, "kv", True) is False:  # the ablation places its tokens alone, anew at each step
        return 4 * flow.steps
    if isinstance(method, JiT | Lift):  # draws of noise and anchors, and places, once per stage
        return 30
    if isinstance(method, RALU):
        return 30 + (len(flow.block_runs) if method.cache is not None else 0)
    return 0


def sizes(family, method):
    """Both sizes for the families that papers measure. The methods of the others alternate between the sizes,
    and a method's families do: every pair of family, method and size is run."""
    if family in PAPERS:
        return [*IMAGES]
    return [[*IMAGES][(MODELS.index(family) + [*METHODS].index(method)) % len(IMAGES)]]


def test_every_pair_of_family_method_and_size_is_run():
    runs = {(f, method, size) for f in MODELS for method in METHODS for size in sizes(f, method)}
    assert {run[::2] for run in runs} == {(family, size) for family in MODELS for size in IMAGES}
    assert {run[1:] for run in runs} == {(method, size) for method in METHODS for size in IMAGES}
    assert {run for run in runs if run[0] in PAPERS} == {*product(PAPERS, METHODS, IMAGES)}


@pytest.mark.parametrize("name", METHODS)
def test_from_noise_to_image(family, gpu, encoded, name):
    for size in sizes(family, name):
        from_noise_to_image(gpu, encoded, name, *IMAGES[size])


def from_noise_to_image(gpu, encoded, name, b, height, width):
    device, model = gpu
    generators = [torch.Generator().manual_seed(i) for i in range(b)]
    whole = encoded(b, height, width)
    flow = Flow(whole.transformer, whole.pipeline, whole.cond, whole.grid, generators, whole.steps)
    before = device.flops
    x, waits = waits_in_the_loop(device, METHODS[name], flow)
    assert (x.shape[:2], x.dtype, x.device.type) == ((b, flow.grid.n), model.transformer.latent_dtype, "cuda")
    assert device.flops - before == sum(map(flow.flops, range(b)))
    assert len(waits) <= bound(name, METHODS[name], flow), waits


@pytest.mark.parametrize("size", IMAGES.values(), ids=list(IMAGES))
def test_the_final_tokens_are_decoded(gpu, encoded, size):
    """Every method ends with tokens like these: of the noise's shape, in the sampler's precision."""
    b, height, width = size
    flow = encoded(*size)
    image = flow.decode(flow.noise().to(gpu[1].transformer.latent_dtype))
    assert (image.shape, image.dtype, image.device.type) == ((b, 3, height, width), torch.float32, "cuda")


class Reading(Baseline):
    """The baseline, with a look at a value in its loop."""

    def __call__(self, flow, on_step=None):
        def looking(**step):
            assert float(step["v"].abs().max()) > 0
            if on_step:
                on_step(**step)

        return super().__call__(flow, on_step=looking)


def test_a_wait_put_into_a_method_is_caught(gpu):
    device, model = gpu
    flow = model.flow(PROMPTS[:1], generators=[torch.Generator().manual_seed(0)], steps=4)
    waits = waits_in_the_loop(device, Reading(steps=4), flow)[1]
    assert waits
    assert {w.what for w in waits} == {"read"}
