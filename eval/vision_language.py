"""Vision-language models of transformers, asked about an image: the probability of an answer."""

from collections.abc import Callable
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fovea.eval import Unavailable
from fovea.eval.caches import remembered, unchanged
from fovea.eval.encoder import as_picture
from fovea.eval.hub import WEIGHTS, digests, files, folder, read, settings
from fovea.eval.network import Device, place
from fovea.eval.weights import digest

NEEDED = ("tokenizer.json", "vocab.json", "tokenizer.model")


class Respondent:
    """A model that answers questions; its weights are read for the first answer.

    identity: what its answers depend on besides image and question, as JSON.
    """

    def __init__(self, load: Callable[[], Any], processor: Any, device: str, identity: dict[str, Any]):
        self._load, self.processor = load, processor
        self.device, self.identity = device, identity

    @cached_property
    def model(self) -> Any:
        return self._load()

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
    """Return a model, in bfloat16 on a GPU. Raises Unavailable for missing or invalid files."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    here, on = weights(model, key), place(device)
    dtype = torch.bfloat16 if on == "cuda" else torch.float32
    processor: Any = read(AutoProcessor, here)
    chat = processor.chat_template
    if not chat:
        raise Unavailable(
            f"{here} has no chat template", "give a model that was trained to answer, an -Instruct"
        )
    of = ["vision-language", version("transformers"), unchanged(files(here))]
    identity = {"weights": remembered(of, lambda: digests(here)), "config": digest(here / "config.json")}
    identity |= {"dtype": str(dtype), "chat": chat, "resize": settings(processor.image_processor)}
    return Respondent(
        lambda: read(AutoModelForImageTextToText, here, dtype=dtype).eval().to(on), processor, on, identity
    )
