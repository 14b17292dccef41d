"""Vision-language models of transformers, asked about an image: the probability of an answer."""

from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fovea.eval import Unavailable
from fovea.eval.caches import remembered, unchanged
from fovea.eval.encoder import as_picture
from fovea.eval.hub import WEIGHTS, digests, files, folder
from fovea.eval.network import Device, place

NEEDED = ("tokenizer.json", "vocab.json", "tokenizer.model")


class Respondent(NamedTuple):
    """A model that answers questions.

    identity: what its answers depend on besides image and question, as JSON.
    """

    model: Any
    processor: Any
    device: str
    identity: dict[str, Any]

    def token(self, answer: str) -> int:
        """Return the answer's token. Raises Unavailable if it has several."""
        ids = self.processor.tokenizer.encode(answer, add_special_tokens=False)
        if len(ids) != 1:
            raise Unavailable(
                f"the answer {answer!r} has {len(ids)} tokens", "give one of a single token, Yes"
            )
        return ids[0]

    def asked(self, question: str) -> str:
        """Return the chat in which the user shows an image and asks; tokens with a meaning of their own, such
        as an image's, are left out of the question."""
        for token in self.processor.tokenizer.get_added_vocab():
            question = question.replace(token, "")
        content = [{"type": "image"}, {"type": "text", "text": question}]
        chat = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)

    @torch.inference_mode()
    def probability(self, image: Tensor, question: str, answer: str) -> float:
        """Return the probability that the reply to a question about uint8 (3, H, W) begins with `answer`."""
        token = self.token(answer)
        inputs = self.processor(images=[as_picture(image)], text=[self.asked(question)], return_tensors="pt")
        # cuDNN's TF32, on by default, changes the third digit
        with torch.backends.flags(fp32_precision="ieee"):
            logits = self.model(**inputs.to(self.device), logits_to_keep=1).logits
        return logits[0, -1].double().softmax(-1)[token].item()


def weights(model: str, key: str) -> Path:
    """Return the model's folder. Raises Unavailable if it is not on this machine."""
    folder(model, NEEDED, key)
    return folder(model, WEIGHTS, key)


@lru_cache(maxsize=1)
def load(model: str, key: str, device: Device) -> Respondent:
    """Load a model, in bfloat16 on a GPU. Raises Unavailable for missing or invalid files."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    here, on = weights(model, key), place(device)
    dtype = torch.bfloat16 if on == "cuda" else torch.float32
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(here, local_files_only=True, dtype=dtype)
        processor: Any = AutoProcessor.from_pretrained(here, local_files_only=True)
        chat = processor.chat_template
    except Exception as e:  # invalid files fail in json, safetensors, tokenizers or torch
        raise Unavailable(f"transformers cannot load {here} ({e})", "check or fetch the files again") from e
    if not chat:
        raise Unavailable(
            f"{here} has no chat template", "give a model that was trained to answer, an -Instruct"
        )
    of = ["vision-language", version("transformers"), unchanged(files(here))]
    identity = {"weights": remembered(of, lambda: digests(here)), "dtype": str(dtype), "chat": chat}
    return Respondent(loaded.eval().to(on), processor, on, identity)
