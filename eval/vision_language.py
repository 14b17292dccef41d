"""Vision-language models of transformers, asked about an image: the probability of an answer."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fovea.eval import Unavailable
from fovea.eval.encoder import as_picture
from fovea.eval.hub import WEIGHTS, Pretrained, folder, read
from fovea.eval.network import Device, exact_float32, place

NEEDED = ("tokenizer.json", "vocab.json", "tokenizer.model")


class Respondent(Pretrained):
    """A model that answers questions."""

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

    def probability(self, image: Tensor, question: str, answer: str) -> float:
        """Return the probability that the reply to a question about uint8 (3, H, W) begins with `answer`."""
        token = self.token(answer)
        return self.reply(image, question)[token].item()

    def probability_of_any(self, image: Tensor, question: str, answers: Iterable[str]) -> float:
        """Return the probability that the reply begins with the first token of any of the answers."""
        encode = self.processor.tokenizer.encode
        tokens = {encode(answer, add_special_tokens=False)[0] for answer in answers}
        return self.reply(image, question)[sorted(tokens)].sum().item()

    @torch.inference_mode()
    def reply(self, image: Tensor, question: str) -> Tensor:
        """Return the probability of each token to begin the reply, float64 (tokens,)."""
        inputs = self.processor(images=[as_picture(image)], text=[self.asked(question)], return_tensors="pt")
        with exact_float32():
            logits = self.network(**inputs.to(self.device), logits_to_keep=1).logits
        return logits[0, -1].double().softmax(-1).cpu()


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

    def network() -> Any:
        return read(AutoModelForImageTextToText, here, dtype=dtype).eval().to(on)

    found = Respondent(here, processor, network, on)
    found.identity |= {"dtype": str(dtype), "chat": chat}
    return found
