"""Stock pipelines with random weights: full size for timing, any size for tests.

Their images are noise; `weights_are_random(pipe)` identifies such pipelines.
"""

import string
from typing import Any

import diffusers
import torch
import transformers
from torch import nn
from transformers.convert_slow_tokenizer import bytes_to_unicode

from fovea.models.family import Architecture


def build(architecture: Architecture, device: torch.device | str, dtype: torch.dtype, seed: int = 0) -> Any:
    """Build the pipeline `architecture["pipeline"]` directly on the device, in eval mode."""
    parts = dict(architecture)
    pipeline, extra = parts.pop("pipeline")
    components = {name: component(kind, config, device, dtype) for name, (kind, config) in parts.items()}
    for i, module in enumerate(m for m in components.values() if isinstance(m, nn.Module)):
        randomise(module, seed + i)
    pipe = getattr(diffusers, pipeline)(**components, **extra)
    pipe.random_weights = True
    return pipe


def weights_are_random(pipe: Any) -> bool:
    return getattr(pipe, "random_weights", False)


def component(kind: str, config: dict[str, Any], device: torch.device | str, dtype: torch.dtype) -> Any:
    if kind in TOKENIZERS:
        return TOKENIZERS[kind](config)
    if kind.endswith("Scheduler"):
        return getattr(diffusers, kind)(**config)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            if hasattr(diffusers, kind):
                return kept_in_float32(getattr(diffusers, kind)(**config).eval())
            model = getattr(transformers, kind)
            return model(model.config_class(**config)).eval()
    finally:
        torch.set_default_dtype(default)


def kept_in_float32(model: Any) -> Any:
    """Cast the weights that diffusers loads in float32 whatever the dtype (Krea 2's norms)."""
    kept = {*(model._keep_in_fp32_modules or ())}
    for name, p in [*model.named_parameters()]:
        owner, _, key = name.rpartition(".")
        if kept & {*owner.split(".")}:
            setattr(model.get_submodule(owner), key, nn.Parameter(p.detach().float()))
    return model


@torch.no_grad()
def randomise(module: nn.Module, seed: int) -> None:
    """Initialise every parameter randomly, with activations of order one.

    Library defaults set gates and modulation to zero.
    """
    generators: dict[torch.device, torch.Generator] = {}
    for name, p in module.named_parameters():
        g = generators.setdefault(p.device, torch.Generator(p.device).manual_seed(seed))
        if p.ndim > 1:
            p.normal_(0, p[0].numel() ** -0.5, generator=g)
        elif name.endswith("gate"):  # Lumina's, one per head
            p.normal_(0, 1, generator=g)
        elif "norm" in name and name.endswith("weight"):
            p.normal_(1, 0.1, generator=g)
        else:
            p.normal_(0, 0.05, generator=g)
    for norm in module.modules():
        if type(norm).__name__ == "Krea2RMSNorm":  # multiplies by 1 + weight
            norm.get_parameter("weight").sub_(1)
        if (
            isinstance(norm, nn.BatchNorm2d)
            and norm.running_mean is not None
            and norm.running_var is not None
        ):
            g = generators[norm.running_mean.device]
            norm.running_mean.normal_(0, 0.5, generator=g)
            norm.running_var.normal_(0, 0.5, generator=g).exp_()


def clip_tokenizer(config: dict[str, Any]) -> Any:
    """One token per byte."""
    symbols = list(bytes_to_unicode().values())
    pieces = ["<|startoftext|>", "<|endoftext|>", *symbols, *(s + "</w>" for s in symbols)]
    return transformers.CLIPTokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=[], **config)


def t5_tokenizer(config: dict[str, Any]) -> Any:
    """One token per printable ASCII character."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    characters = [(c, -3.0) for c in string.printable.strip()]
    return transformers.T5Tokenizer(vocab=pieces + characters, extra_ids=0, **config)


def gemma_tokenizer(config: dict[str, Any]) -> Any:
    """One token per printable ASCII character and per word of `config["words"]`.

    <bos> comes first: without it an empty prompt is all mask.
    """
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *string.printable.strip()]
    vocab = {p: i for i, p in enumerate(pieces)}
    words, options = config.get("words", ()), {name: config[name] for name in config if name != "words"}
    tokenizer = transformers.GemmaTokenizer(vocab=vocab, merges=[], add_bos_token=True, **options)
    tokenizer.add_tokens([*words])
    return tokenizer


CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)


INSTRUCTIONS = (
    "{{ bos_token }}{% for m in messages %}{% set mark = 'SYSTEM_PROMPT' if m.role == 'system' else 'INST' %}"
    "[{{ mark }}]{% for part in m.content %}{{ part.text }}{% endfor %}[/{{ mark }}]{% endfor %}"
)


def qwen2_tokenizer(config: dict[str, Any]) -> Any:
    """One token per byte and per word of `config["words"]`, given in byte symbols; chat template of Qwen3."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    merges: Any = [(word[:i], word[i]) for word in config.get("words", ()) for i in range(1, len(word))]
    pieces = [*special, *bytes_to_unicode().values(), *(a + b for a, b in merges)]
    vocab = {p: i for i, p in enumerate(dict.fromkeys(pieces))}
    options = {"chat_template": CHAT, "additional_special_tokens": special[1:]} | config
    options.pop("words", None)
    return transformers.Qwen2Tokenizer(vocab=vocab, merges=[*dict.fromkeys(merges)], **options)


def pixtral_processor(config: dict[str, Any]) -> Any:
    """One token per byte; chat template of Mistral Small."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    marks = ["[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    pieces = ["<unk>", "<s>", "</s>", "<pad>", *marks, *bytes_to_unicode().values()]
    bytewise = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bytewise,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=marks,
        padding_side="left",
    )
    images = transformers.PixtralImageProcessor()
    return transformers.PixtralProcessor(images, tokenizer, chat_template=INSTRUCTIONS, **config)


TOKENIZERS = {
    "CLIPTokenizer": clip_tokenizer,
    "T5Tokenizer": t5_tokenizer,
    "GemmaTokenizer": gemma_tokenizer,
    "Qwen2Tokenizer": qwen2_tokenizer,
    "Qwen2TokenizerFast": qwen2_tokenizer,
    "PixtralProcessor": pixtral_processor,
}
