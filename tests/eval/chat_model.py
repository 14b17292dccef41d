"""A small random Qwen2.5-VL, and what transformers itself says that it replies."""

import torch
from PIL import Image
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
PADS = ("<|image_pad|>", "<|video_pad|>")
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer():
    """One token for each byte, and `Yes`."""
    from tokenizers.pre_tokenizers import ByteLevel

    words = [*sorted(ByteLevel.alphabet()), "Ye", "Yes", *SPECIAL, *PADS]
    vocab = {word: i for i, word in enumerate(words)}
    kept = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return Qwen2Tokenizer(
        vocab=vocab, merges=[("Y", "e"), ("Ye", "s")], extra_special_tokens=[*SPECIAL, *PADS], **kept
    )


def save(folder):
    """Save a small random model in the published layout."""
    words = tokenizer()
    ids = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    ids |= {name: words.convert_tokens_to_ids(f"<|{name}_pad|>") for name in ("image", "video")}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    text = {"vocab_size": len(words), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1, "rope_parameters": rope}
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 16}
    vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        **{f"{name}_token_id": value for name, value in ids.items()},
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    for x in model.parameters():
        torch.nn.init.normal_(x, std=0.3)
    model.save_pretrained(folder)
    pictures = Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=56 * 56)
    Qwen2_5_VLProcessor(pictures, words, Qwen2VLVideoProcessor(), chat_template=CHAT).save_pretrained(folder)


def replies(folder):
    """Probabilities of the first token of the reply to a question about uint8 (3, H, W), by transformers' own
    generation, and the token of a piece of text."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder).eval()
    processor = Qwen2_5_VLProcessor.from_pretrained(folder)

    def reply(image, question):
        text = f"<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{question}<|im_end|>\n"
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        inputs = processor(images=picture, text=f"{text}<|im_start|>assistant\n", return_tensors="pt")
        told = {"max_new_tokens": 1, "do_sample": False, "output_logits": True}
        out = model.generate(**inputs, **told, return_dict_in_generate=True)
        return out.logits[0][0].softmax(-1)

    return reply, processor.tokenizer.convert_tokens_to_ids
