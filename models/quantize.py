"""Weights of the transformer's linear layers in fewer bits: torchao's layers and bitsandbytes', by diffusers'
own configurations where it loads a checkpoint. All of them treat each token for itself."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any


@dataclass(frozen=True)
class Kind:
    """package: whose layers they are. bits: of a weight, with what it is scaled by. gpu: compute capability
    of the first NVIDIA GPU that has the arithmetic; None where any device does."""

    package: str
    bits: float
    gpu: tuple[int, int] | None = None


KINDS = {
    "int8": Kind("torchao", 8),
    "int8_dynamic": Kind("torchao", 8),  # what a layer is given too, token by token
    "fp8": Kind("torchao", 8),
    "fp8_dynamic": Kind("torchao", 8, gpu=(8, 9)),
    "nf4": Kind("bitsandbytes", 4.5),  # arXiv:2305.14314; float32 of scale for each 64
}
INSTALL = "pip install -e .[quantize]"


def obstacle(how: str, device: str) -> str | None:
    """Why the device has no such layers, with what to do; None if it has."""
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
    """What `from_pretrained` of the pipeline takes, to keep no weight as it was; None where diffusers has
    none: of integers in other than bfloat16, of bitsandbytes on a CPU."""
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
    """The linear layers of a module that is there, in place."""
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
    """torchao's own configuration, which is to leave the compiler's settings alone."""
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
    """The layer with its weights in 4 bits, which it is given where it moves to its device."""
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    sizes, dtype, device = (layer.in_features, layer.out_features), layer.weight.dtype, layer.weight.device
    small = Linear4bit(*sizes, layer.bias is not None, compute_dtype=dtype, quant_type=how, device="meta")
    packed: Any = Params4bit  # made by its __new__
    small.weight = packed(layer.weight.data, requires_grad=False, quant_type=how)
    small.bias = layer.bias
    return small.to(device)
