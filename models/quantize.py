"""Quantised linear layers for the transformer, from torchao and bitsandbytes.

Uses diffusers' own configurations where it loads a checkpoint. All of these layers treat each token
independently.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A kind of quantisation.

    package: package of the layers.
    bits: bits per weight, including scales.
    gpu: minimum compute capability of an NVIDIA GPU with this arithmetic; None for any device.
    """

    package: str
    bits: float
    gpu: tuple[int, int] | None = None


KINDS = {
    "int8": Kind("torchao", 8),
    "int8_dynamic": Kind("torchao", 8),  # also quantises activations, per token
    "fp8": Kind("torchao", 8),
    "fp8_dynamic": Kind("torchao", 8, gpu=(8, 9)),
    "nf4": Kind("bitsandbytes", 4.5),  # arXiv:2305.14314; one float32 scale per 64 weights
}
INSTALL = "pip install -e .[quantize]"


def unsupported_reason(how: str, device: str) -> str | None:
    """Return why the device does not support these layers, with a remedy; None if it does."""
    kind = KINDS[how]
    if find_spec(kind.package) is None:
        return f"model.quantize={how} needs {kind.package}, which is not installed: {INSTALL}"
    if kind.gpu is None:
        return None
    first = ".".join(map(str, kind.gpu))
    if device == "cpu":
        return (
            f"model.quantize={how} needs a GPU of compute capability {first}, and this is a CPU: fp8 or int8"
        )
    import torch

    own = torch.cuda.get_device_capability(device)
    if own >= kind.gpu:
        return None
    has = ".".join(map(str, own))
    return f"model.quantize={how} needs compute capability {first}, and {device} has {has}: fp8 or int8"


def config(how: str, device: str, dtype: Any) -> Any:
    """Return the quantization_config with which the pipeline's `from_pretrained` quantises on load.

    None if diffusers has none: integers in dtypes other than bfloat16, and bitsandbytes on a CPU.
    """
    import torch
    from diffusers.quantizers.pipe_quant_config import PipelineQuantizationConfig
    from diffusers.quantizers.quantization_config import BitsAndBytesConfig, TorchAoConfig

    if KINDS[how].package == "bitsandbytes":
        if device == "cpu":
            return None
        own: Any = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=how, bnb_4bit_compute_dtype=dtype
        )
    elif how.startswith("int") and dtype != torch.bfloat16:
        return None
    else:
        own = TorchAoConfig(_torchao(how))
    return PipelineQuantizationConfig(quant_mapping={"transformer": own})


def quantise(module: Any, how: str) -> None:
    """Replace the linear layers of a loaded module in place."""
    if KINDS[how].package == "torchao":
        from torchao.quantization import quantize_

        quantize_(module, _torchao(how))
        return
    from torch import nn

    for name, layer in [*module.named_modules()]:
        if type(layer) is nn.Linear:
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, _bitsandbytes(layer, how))


def _torchao(how: str) -> Any:
    """Return torchao's configuration, without changing compiler settings."""
    from torchao import quantization as ao

    if how == "fp8_dynamic":
        return ao.Float8DynamicActivationFloat8WeightConfig(
            granularity=ao.PerRow(), set_inductor_config=False
        )
    kinds = {
        "int8": ao.Int8WeightOnlyConfig,
        "int8_dynamic": ao.Int8DynamicActivationInt8WeightConfig,
        "fp8": ao.Float8WeightOnlyConfig,
    }
    return kinds[how](set_inductor_config=False)


def _bitsandbytes(layer: Any, how: str) -> Any:
    """Return the layer with 4-bit weights, which are quantised when moved to their device."""
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    sizes, dtype, device = (layer.in_features, layer.out_features), layer.weight.dtype, layer.weight.device
    small = Linear4bit(*sizes, layer.bias is not None, compute_dtype=dtype, quant_type=how, device="meta")
    packed: Any = Params4bit  # arguments are those of __new__
    small.weight = packed(layer.weight.data, requires_grad=False, quant_type=how)
    small.bias = layer.bias
    return small.to(device)
