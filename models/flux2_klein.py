"""FLUX.2-klein: FLUX.2 without embedded guidance, with Qwen3 instead of Mistral as text encoder."""

from functools import partial

import torch

from fovea.models.components import QWEN2_TOKENIZER, qwen3
from fovea.models.family import Architecture, Family, Size
from fovea.models.flux2 import PARTS, SCHEDULER, Flux2Attention, Flux2Pipeline, Flux2Transformer
from fovea.models.text_limits import TextLimit
from fovea.models.tokens import Conditioning


class KleinPipeline(Flux2Pipeline):
    """diffusers' Flux2KleinPipeline.

    Classifier-free guidance takes two passes, with and without the prompt; distilled transformers have none,
    whatever the scale.
    """

    @classmethod
    def guides(cls, guidance, transformer, pipeline):
        return guidance > 1 and not pipeline.get("is_distilled", False)

    @torch.no_grad()
    def encode(self, prompts, negative=None, guidance=None, *, max_sequence_length=None) -> Conditioning:
        guidance = self.default("guidance_scale") if guidance is None else guidance
        kwargs_of = partial(self.encode_kwargs, limit=max_sequence_length)
        return self.encode_in_passes(kwargs_of, prompts, negative, guidance)

    def text_limits(self, max_sequence_length=None):
        tokenizer, limit = self.pipe.tokenizer, self.limit(max_sequence_length)

        def template(prompt: str) -> str:
            return tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )

        return [TextLimit(tokenizer, limit, template)]


def klein(double: int, single: int, heads: int, text: int, distilled: bool) -> Architecture:
    """Return the architecture. text: width of Qwen3, of which the states of three layers are concatenated."""
    transformer = {
        "num_layers": double,
        "num_single_layers": single,
        "num_attention_heads": heads,
        "joint_attention_dim": 3 * text,
        "guidance_embeds": False,
    }
    return {
        "pipeline": ("Flux2KleinPipeline", {"is_distilled": distilled}),
        "transformer": ("Flux2Transformer2DModel", transformer),
        "vae": ("AutoencoderKLFlux2", {}),
        "scheduler": SCHEDULER,
        "text_encoder": qwen3("Qwen3ForCausalLM", text, 28),
        "tokenizer": QWEN2_TOKENIZER,
    }


FAMILY = Family(
    name="flux2_klein",
    pipelines=("Flux2KleinPipeline",),
    components=PARTS,
    transformer=Flux2Transformer,
    pipeline=KleinPipeline,
    processor=Flux2Attention,
    sizes={
        "flux2_klein_base_4b": Size(klein(5, 20, 24, 2560, False), (8.0, 4.0), 3876),
        "flux2_klein_4b": Size(klein(5, 20, 24, 2560, True), (8.0, 4.0), 3876),
        "flux2_klein_9b": Size(klein(8, 24, 32, 4096, True), (17.4, 9.2), 9079),
        "flux2_klein_base_9b": Size(klein(8, 24, 32, 4096, False), (17.4, 9.2), 9079),
    },
)
