"""Which weights to load and whether they are available, decided before any heavy import."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainValidator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticKnownError

from fovea.models.autoencoder import vae_scale_factor
from fovea.models.families import FAMILIES, SIZES
from fovea.models.folder import incomplete_reason, parameters, read, token_size
from fovea.models.quantize import KINDS, config, quantise, unsupported_reason

ROOT = Path(__file__).resolve().parent.parent
RECOMPILE_LIMIT = 64  # compiled graphs per function, for all models and sizes in a process
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class MissingWeights(RuntimeError):
    """The weights of a checkpoint are not available or do not fit in memory; the message names remedies."""


def one_of(names: Collection[str]) -> Callable[[Any], str]:
    """Return a validator for one of `names`, with pydantic's message for a Literal."""
    *most, last = map(repr, names)
    expected = f"{', '.join(most)} or {last}" if most else last

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in names:
            raise PydanticKnownError("literal_error", {"expected": expected})
        return value

    return check


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Checkpoint:
    """A pipeline's weights and default settings.

    path: hub id, or local folder with a model_index.json, relative to the working directory or the
        repository.
    weights: "random" builds `architecture` at full size without training, for timing only.
    dtype: "auto" is bfloat16 on a GPU and float32 on a CPU.
    height, width: image size in pixels.
    guidance: see `Pipeline.encode`.
    max_sequence_length: maximum number of text tokens; None for the pipeline's own default. Fixed for
        Lumina-Next.
    offload: "model" keeps only the running component on the device, "sequential" only the running layer
        (diffusers' own, for GPUs).
    compile: "blocks" compiles each transformer block with torch.compile.
    quantize: quantisation of the transformer's linear layers (models/quantize.py); text encoders are
        unchanged.
    attention: torch's attention kernel for the transformer (models/attention.py); "auto" lets torch choose.
    """

    family: Annotated[str, PlainValidator(one_of(FAMILIES))]
    path: Annotated[str, Field(min_length=1)]
    weights: Literal["pretrained", "random"] = "pretrained"
    architecture: Annotated[str, PlainValidator(one_of(SIZES))] | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    height: Annotated[int, Field(gt=0, le=65_536)] = 1024
    width: Annotated[int, Field(gt=0, le=65_536)] = 1024
    steps: Annotated[int, Field(gt=0, le=10_000)] = 28
    guidance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 4.0
    negative: str = ""
    max_sequence_length: Annotated[int, Field(gt=0)] | None = None
    offload: Literal["none", "model", "sequential"] = "none"
    compile: Literal["none", "blocks"] = "none"
    quantize: Annotated[str, PlainValidator(one_of(("none", *KINDS)))] = "none"
    attention: Literal["auto", "math", "efficient", "flash", "cudnn"] = "auto"

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens of an image."""
        side = token_size(self.local_folder if self.weights == "pretrained" else None)
        return self.height // side, self.width // side

    def __post_init__(self) -> None:
        if self.compile != "none" and self.offload == "sequential":
            raise ValueError(
                "compile=blocks with offload=sequential: compiled blocks hold weights that come and go with "
                "each layer; use offload=model"
            )
        if self.quantize != "none" and self.offload == "sequential":
            raise ValueError(
                f"quantize={self.quantize} with offload=sequential: quantised weights do not move layer by "
                "layer; use offload=model"
            )
        if self.weights == "random" and self.architecture is None:
            names = ", ".join(SIZES)
            raise ValueError(f"weights=random needs a full-size architecture, model.architecture={names}")
        text, most = self.max_sequence_length or 0, FAMILIES[self.family].pipeline.max_text_tokens
        if text > most:
            raise ValueError(f"max_sequence_length={text}: {self.family} takes at most {most} tokens of text")
        side = token_size(self.local_folder if self.weights == "pretrained" else None)
        for name, size in (("height", self.height), ("width", self.width)):
            if size % side:
                near = max(side, round(size / side) * side)
                raise ValueError(f"{name}={size} is not a multiple of {side} pixels; the nearest is {near}")

        if self.negative.strip() and not self.guided:
            raise ValueError(
                f"negative={self.negative}: has no effect at guidance={self.guidance:g}, where this model "
                "evaluates only the prompt; leave it out"
            )

    @property
    def guided(self) -> bool:
        """Whether the model is evaluated with and without the prompt: classifier-free guidance."""
        configs = self.configs if any(self.configs) else self.published_configs
        return FAMILIES[self.family].pipeline.guides(self.guidance, *configs)

    @property
    def configs(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Configs of the transformer and the pipeline; empty if they are not on this machine."""
        if self.weights == "random":
            return self.published_configs
        if (folder := self.folder) is None:
            return {}, {}
        return read(folder / "transformer" / "config.json"), read(folder / "model_index.json")

    @property
    def published_configs(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Configs of the transformer and the pipeline of `architecture`; empty without one."""
        parts = SIZES[self.architecture].architecture if self.architecture else {}
        transformer, pipeline = (parts.get(name, ("", {}))[1] for name in ("transformer", "pipeline"))
        return transformer, pipeline

    @property
    def blocks(self) -> int | None:
        """Number of transformer blocks; None if the config is not on this machine."""
        config = self.configs[0]
        layers = config.get("num_layers", config.get("n_layers"))
        return None if layers is None else layers + config.get("num_single_layers", 0)

    @property
    def pipelines(self) -> tuple[str, ...]:
        """Names of the pipeline's class, the current one first."""
        return FAMILIES[self.family].pipelines

    @property
    def schedule_depends_on_steps(self) -> bool:
        """Whether the schedule depends on the number of steps; see `Pipeline`."""
        return FAMILIES[self.family].pipeline.schedule_depends_on_steps

    @property
    def local(self) -> list[Path]:
        """Possible locations of `path` on this machine, empty for a hub id.

        The embedded models are never looked up on the hub, where anyone could register such a name.
        """
        path = Path(self.path).expanduser()
        places = [base / path for base in (Path.cwd(), ROOT)]
        return [place for place in places if place.parent.is_dir() or self.embedded]

    @property
    def embedded(self) -> bool:
        return self.path.startswith("assets/")

    @property
    def local_folder(self) -> Path | None:
        return next((place for place in self.local if place.is_dir()), None)

    @property
    def folder(self) -> Path | None:
        """The folder of `path`, or the complete copy in the local hub cache; None if there is neither."""
        if self.local:
            return self.local_folder
        from huggingface_hub import try_to_load_from_cache

        try:
            index = try_to_load_from_cache(self.path, "model_index.json")
        except ValueError:  # not a hub id
            return None
        copy = Path(index).parent if isinstance(index, str) else None
        return copy if copy and not incomplete_reason(copy, self.pipelines) else None

    def check(self) -> None:
        """Raise MissingWeights if `load` cannot succeed. Takes seconds and loads nothing."""
        self.check_device()
        if self.offload == "sequential" and self.device_and_dtype()[0] == "cpu":
            raise MissingWeights(
                "model.offload=sequential moves layers to a GPU and back, and this machine has none: use "
                "model.offload=none or model"
            )
        if (
            self.quantize != "none"
            and (why := unsupported_reason(self.quantize, self.device_and_dtype()[0])) is not None
        ):
            raise MissingWeights(why)
        if self.attention != "auto":
            self.check_attention()
        if self.weights == "random":
            return self.check_memory(SIZES[str(self.architecture)].billions[1])
        folder = self.folder
        if folder is None:
            self.check_hub()
            return self.check_memory(SIZES[self.architecture].billions[0] if self.architecture else 0.0)
        reason = incomplete_reason(folder, self.pipelines)
        if reason:
            raise self.missing(reason)
        self.check_memory(parameters(folder) / 1e9)

    def check_device(self) -> None:
        """Check that torch has the GPU."""
        name, _, index = self.device.partition(":")
        if name == "cuda":
            import torch

            if (there := torch.cuda.device_count()) <= int(index or 0):
                allowed = ", ".join(["auto", "cpu", *(f"cuda:{i}" for i in range(there))])
                raise MissingWeights(f"model.device={self.device}: torch has no such GPU here: {allowed}")

    def check_attention(self) -> None:
        """Check that torch has the attention kernel for this family, dtype and device."""
        import torch

        from fovea.models.attention import KERNELS, kernel_unavailable

        device, dtype = self.device_and_dtype()
        processor = FAMILIES[self.family].processor
        needs = device, getattr(torch, dtype), processor.masked, processor.grouped
        if kernel_unavailable(self.attention, *needs):
            available = [name for name in KERNELS if not kernel_unavailable(name, *needs)]
            under = " under a mask" * processor.masked
            raise MissingWeights(
                f"model.attention={self.attention}: torch has no such kernel for {self.family}'s "
                f"attention{under} in {dtype} on {device}: {', '.join(['auto', *available])}"
            )

    def check_hub(self) -> None:
        """Check that the weights can be downloaded from the hub."""
        if self.embedded:
            raise self.missing("it comes with a checkout of the repository, not with the package")
        if self.local:
            raise self.missing("there is no such folder")
        from huggingface_hub import HfApi, errors

        try:
            if HfApi().model_info(self.path, timeout=5).gated:
                HfApi().auth_check(self.path)
        except errors.GatedRepoError:
            raise self.missing("it is gated: accept its licence on the hub, then `hf auth login`") from None
        except errors.RepositoryNotFoundError:
            raise self.missing("the hub has no such model, or it is private: `hf auth login`") from None
        except errors.HFValidationError:
            raise self.missing("it is neither a folder here nor a hub id") from None
        except Exception as error:  # the hub's HTTP library differs between versions, and so do its errors
            raise self.missing(f"not on this machine, and the hub cannot be reached ({error})") from None

    def check_memory(self, billions: float) -> None:
        device, dtype = self.device_and_dtype()
        if device == "cpu":
            import psutil

            free = psutil.virtual_memory().available
        elif device.startswith("cuda"):
            import torch

            free = torch.cuda.mem_get_info(device)[0]
        else:
            return
        if self.offload != "none" and device != "cpu":
            return  # only a component or a layer at a time is on the device
        size = KINDS[self.quantize].bits / 8 if self.quantize != "none" else BYTES[dtype]
        need, has = billions * 1e9 * size / 2**30, free / 2**30
        if need > has:
            hint = "" if BYTES[dtype] == 2 else "; model.dtype=bfloat16 takes half"
            hint += "" if device == "cpu" else "; model.offload=model takes the largest component's"
            raise self.missing(f"in {dtype} they take {need:.1f} GiB, {device} has {has:.1f} GiB free{hint}")

    def device_and_dtype(self) -> tuple[str, str]:
        """Return device and dtype with "auto" resolved."""
        device = self.device
        if device == "auto":
            import torch

            device = "cuda" if torch.cuda.is_available() else "cpu"
        return device, self.dtype if self.dtype != "auto" else "float32" if device == "cpu" else "bfloat16"

    def missing(self, reason: str) -> MissingWeights:
        return MissingWeights(
            f"no weights for {self.path}: {reason}.\nThree ways out:\n"
            "  model.path=ID_OR_FOLDER   a hub id (gated: after `hf auth login`) or a diffusers folder\n"
            "  model=lumina_tiny         the trained model that comes with a checkout of the repository\n"
            "  model.weights=random      a full-size architecture without training, for timing only"
        )

    def load(self) -> Any:
        """Load the stock diffusers pipeline with these settings; safetensors only, no remote code."""
        import torch

        from fovea.models.adapters import adapt
        from fovea.models.supported import set_attention_kernel

        device, dtype = self.device_and_dtype()
        pipe = self.load_pipeline("cpu" if self.offload != "none" else device, dtype)
        if self.attention != "auto":
            set_attention_kernel(pipe.transformer, self.attention)
        if self.offload == "model":
            pipe.enable_model_cpu_offload(device=device)
        elif self.offload == "sequential":
            pipe.enable_sequential_cpu_offload(device=device)
        if self.compile == "blocks":
            torch._dynamo.config.recompile_limit = (
                RECOMPILE_LIMIT  # beyond this, torch silently runs blocks eagerly
            )
            with adapt(pipe) as model:
                for block in model.blocks:
                    block.compile()
        return pipe

    def load_pipeline(self, device: str, dtype: str) -> Any:
        """Load or build the pipeline, quantised if requested."""
        import diffusers
        import torch

        from fovea.models.random_weights import build

        pipeline, torch_dtype = getattr(diffusers, self.pipelines[0]), getattr(torch, dtype)
        quantised = (
            None
            if self.quantize == "none"
            else config(self.quantize, self.device_and_dtype()[0], torch_dtype)
        )
        if self.weights == "random":
            pipe, quantised = build(SIZES[str(self.architecture)].architecture, device, torch_dtype), None
        else:
            options = {"dtype": torch_dtype, "use_safetensors": True, "quantization_config": quantised}
            pipe = pipeline.from_pretrained(self.folder or self.path, **options).to(device)
        if self.family == "lumina":  # the pipeline hard-codes a factor of 8
            pipe.vae_scale_factor = vae_scale_factor(pipe.vae.config)
        if self.quantize != "none" and quantised is None:
            quantise(pipe.transformer, self.quantize)
        return pipe
