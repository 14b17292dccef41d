"""methods/lift.py: what each lift is by hand, the noise at the change, and diffusers' img2img from there on;
methods/upscaling.py: networks from files."""

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.pipelines.flux.pipeline_flux_img2img import FluxImg2ImgPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from fovea.methods import Baseline, Lift, upscaling
from fovea.models import adapt, generator
from fovea.models.tokens import Grid, pack, unpack
from tests.pipelines import PIPELINES

PROMPTS = ["a fox", "a map"]
SIZE = {"height": 64, "width": 96}


@pytest.fixture(scope="module")
def model():
    with adapt(PIPELINES["flux"]()) as own:
        yield own


def flow_of(model, steps=4, prompts=PROMPTS):
    generators = [generator(prompt, 0) for prompt in prompts]
    return model.flow(prompts, generators=generators, steps=steps, max_sequence_length=16, **SIZE)


def traced(method, flow):
    steps = []
    x = method(flow, on_step=lambda **step: steps.append(step))
    return x, steps


def at_half(flow, levels):
    """The last estimate of the image by the half grid, written out."""
    half = Grid(flow.grid.rows // 2, flow.grid.columns // 2)
    x = image = flow.noise(half)
    for s, s_next in pairwise(levels):
        v = flow.velocity(x, s, encodings=flow.encodings(grid=half))
        image, x = x - s * v, x + (s_next - s) * v
    return image, half


def repeated(image, half, grid):
    latent = F.interpolate(unpack(image, half, 2), scale_factor=2, mode="nearest-exact")
    assert latent.shape[2] == 2 * grid.rows
    return latent


def upscaled(flow, image, half):
    """Decoded, twice as large by bicubic interpolation, encoded."""
    picture = flow.decode(image, half)
    large = F.interpolate(picture, scale_factor=2, mode="bicubic").clamp(0, 1)
    return flow.encode(large)


@pytest.mark.parametrize("lift", ["latent", "pixel", "corrected"])
def test_off_is_the_baseline_bit_for_bit(model, lift):
    off = Lift(lift=lift, **Lift.off)
    assert torch.equal(off(flow_of(model)), Baseline()(flow_of(model)))


def test_without_full_steps_it_is_the_lifted_image(model):
    """So it is at restart=0, whatever runs there."""
    image, half = at_half(flow := flow_of(model), flow.sigmas(3, Grid(2, 3)))
    expected = upscaled(flow, image, half)
    for method in (Lift(steps=3, low=3, restart=0.4), Lift(steps=5, low=3, restart=0.0)):
        torch.testing.assert_close(method(flow_of(model)), expected, rtol=1e-4, atol=1e-5)


def test_the_latent_is_repeated(model):
    image, half = at_half(flow := flow_of(model), flow.sigmas())
    expected = pack(repeated(image, half, flow.grid), 2)
    torch.testing.assert_close(Lift(low=4, lift="latent")(flow_of(model)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("risk", [0.0, 0.3, 1.0])
def test_the_pixels_that_differ_most_are_moved(model, risk):
    """None of them is the latent's lift; all of them in full the pixels'."""
    image, half = at_half(flow := flow_of(model), flow.sigmas())
    latent, pixel = repeated(image, half, flow.grid), unpack(upscaled(flow, image, half), flow.grid, 2)
    away = (pixel - latent).abs().mean(1)  # (b, h, w)
    found = unpack(Lift(low=4, lift="corrected", risk=risk, weight=(0.5, 0.8))(flow_of(model)), flow.grid, 2)
    share = ((found - latent) / (pixel - latent)).median(1).values
    for i in range(2):
        chosen = away[i] >= away[i].flatten().quantile(1 - risk) if risk else away[i] > torch.inf
        least, most = (away[i][chosen].min(), away[i][chosen].max()) if risk else (0, 1)
        expected = torch.where(chosen, 0.5 + 0.3 * (away[i] - least) / (most - least), 0.0)
        torch.testing.assert_close(share[i], expected, rtol=0, atol=2e-3)
    if risk == 1:
        whole = Lift(low=4, lift="corrected", risk=1.0, weight=(1.0, 1.0))(flow_of(model))
        torch.testing.assert_close(whole, Lift(low=4, lift="pixel")(flow_of(model)), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("restart", "level"), [(None, 2), (0.3, None)])
def test_it_goes_on_from_noise_of_its_own(model, restart, level):
    method = Lift(steps=4, low=2, restart=restart)
    _, steps = traced(method, flow_of(model))
    flow = flow_of(model)
    levels = flow.sigmas()[:3] if restart is None else flow.sigmas(2, Grid(2, 3))
    image, half = at_half(flow, levels)
    s = flow.sigmas()[level] if level else torch.tensor(restart)
    expected = (1 - s) * upscaled(flow, image, half) + s * flow.noise()
    torch.testing.assert_close(steps[2]["before"], expected, rtol=1e-4, atol=1e-4)
    rest = flow.sigmas()[2:4].tolist() if restart is None else [0.3, 0.15]
    assert [step["sigma"].item() for step in steps[2:]] == pytest.approx(rest)
    assert [len(step["x"][0]) for step in steps] == [6, 6, 24, 24]


def test_the_full_steps_are_diffusers_img2img():
    """From the same state, at levels that no shift moves, as MrFlow gives them."""
    own = PIPELINES["flux"]()
    own.scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    with adapt(own) as model:
        x, steps = traced(Lift(steps=4, low=2, restart=0.3), flow_of(model, prompts=PROMPTS[:1]))
    theirs: Any = FluxImg2ImgPipeline(**own.components)
    theirs.set_progress_bar_config(disable=True)
    found = theirs(
        PROMPTS[:1],
        image=torch.zeros(1, 3, 64, 96),
        latents=steps[2]["before"],
        sigmas=[0.3, 0.15],
        num_inference_steps=2,
        strength=1.0,
        guidance_scale=3.5,
        max_sequence_length=16,
        output_type="latent",
        **SIZE,
    ).images
    assert torch.equal(found, x)


@pytest.mark.parametrize("family", PIPELINES)
def test_what_is_encoded_is_what_is_decoded(family):
    """`normalise` undoes `denormalise`; FLUX.2's own pipeline encodes images, and so do we."""
    pipe = PIPELINES[family]()
    with adapt(pipe) as model:
        own = model.pipeline
        latents = torch.randn(
            2, model.transformer.channels, 8, 12, generator=torch.Generator().manual_seed(0)
        )
        torch.testing.assert_close(own.normalise(own.denormalise(latents)), latents, rtol=1e-4, atol=1e-4)
        images = 2 * torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1)) - 1
        found = own.encode_raw(images)
        with FlopCounterMode(display=False) as counter:
            own.encode_raw(images)
        assert counter.get_total_flops() == own.encode_flops(own.grid(64, 96))
        if family.startswith("flux2"):
            theirs = pipe._encode_vae_image(images, None)
            assert torch.equal(found, theirs.flatten(2).transpose(1, 2))


@pytest.fixture
def network(tmp_path):
    """Writes a small Real-ESRGAN of a scale; its file."""
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    def write(scale):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            weights = RRDBNet(num_filters=4, num_blocks=1, scale=scale).state_dict()
        file = tmp_path / f"x{scale}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, file)
        return str(file)

    return write


@pytest.mark.parametrize("scale", [2, 4])
def test_a_network_makes_the_image_larger_and_its_flops_count(model, network, scale):
    file = network(scale)
    plain, learned = flow_of(model), flow_of(model)
    bicubic = Lift(low=2)(plain)
    with FlopCounterMode(display=False) as counter:
        x = Lift(low=2, upscaler=file)(learned)
    assert not torch.equal(x, bicubic)
    counted = sum(map(learned.flops, range(2)))
    assert counted > sum(map(plain.flops, range(2)))
    assert counter.get_total_flops() == pytest.approx(counted, rel=5e-3)
    images = torch.rand(1, 3, 16, 24)
    expected = upscaling.load(file)(images)
    if scale == 2:
        assert torch.equal(upscaling.upscale(learned, images, file), expected.clamp(0, 1))
    assert upscaling.upscale(learned, images, file).shape == (1, 3, 32, 48)


def test_files_that_are_no_upscaler_are_refused(tmp_path):
    wrong, pickled = tmp_path / "wrong.safetensors", tmp_path / "net.pth"
    save_file({"weight": torch.zeros(2, 2)}, wrong)
    torch.save({"weight": torch.zeros(2, 2)}, pickled)
    for file in (pickled, tmp_path / "none.safetensors"):
        with pytest.raises(ValueError, match=r"must be bicubic or an existing \.safetensors file"):
            Lift(upscaler=str(file))
    with pytest.raises(ValueError, match="holds none of the architectures"):
        Lift(upscaler=str(wrong)).check((4, 6), 4)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"steps": 4, "low": 5}, "low=5: must be at most steps=4"),
        ({"low": 0, "restart": 0.2}, "nothing to restart"),
        ({"weight": (0.9, 0.1)}, "must be in ascending order"),
        ({"lift": "nearest"}, "latent"),
        ({"restart": 1.0}, "less than 1"),
    ],
)
def test_wrong_settings_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Lift(**wrong)


def test_an_odd_grid_is_refused():
    with pytest.raises(ValueError, match="5 x 4 tokens cannot be halved"):
        Lift().check((5, 4), 4)
