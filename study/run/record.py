"""What is stored of one image: what it is of, what it cost, what went on meanwhile."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fovea.study.config.prompts import Sample
from fovea.study.picture import packed, png
from fovea.study.plan.fingerprint import digest
from fovea.study.run.cell import Made


def record(
    made: Made, i: int, sample: Sample, batch: Sequence[Sample], random_weights: bool
) -> tuple[bytes, dict[str, Any]]:
    """The PNG and the record of the i-th image of a batch."""
    times = {"seconds": made.seconds, "encode_seconds": made.encode, "decode_seconds": made.decode}
    what = {
        "key": sample.key,
        "prompt": sample.prompt.text,
        "prompt_id": sample.prompt.id,
        "seed": sample.seed,
        "noise": made.noise[i],
        "time": now(),
        "batch": {"id": digest([s.key for s in batch]), "size": len(batch), **times, **_around(made)},
        "tokens": made.tokens[i],
        "blocks": made.blocks[i],
        "flops": made.flops[i],
        "focus": packed(None if made.focus is None else made.focus[i], made.grid),
        "random_weights": random_weights,
    }
    return png(made.images[i], random_weights), what


def _around(made: Made) -> dict[str, Any]:
    """Peak memory in bytes, of torch's allocator on CUDA and of the process everywhere; the machine's
    state."""
    of_gpu, of_process, since_start = made.memory
    return {
        "memory": of_process if of_gpu is None else of_gpu,
        "memory_process": of_process,
        "memory_since_start": since_start,
        "state": made.state,
    }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
