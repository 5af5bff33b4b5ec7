"""Question 5: a decoder of image tokens with guidance, windows against one token a call.

LlamaGen's smallest model in its sizes: some 111 M parameters, 24 x 24 tokens of 16,384 categories, guidance 3, top-k
2000. The weights are random, so loud that a token holds `NATS` nats after guidance and top-k; calls are those of
untrained weights.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch

import arm_core
from arm_core import AutoregressiveModel, Layout, SampleTrace, sample_many
from benchmarks.gpu.exact import offered
from benchmarks.gpu.models import loudness
from benchmarks.gpu.rows import Row
from benchmarks.gpu.runner import NotThereError, Setting, attempt

NATS = 3.0
GUIDANCE = 3.0


@dataclass(frozen=True)
class Shape:
    """Of a Llama whose vocabulary is the categories, a token for each of some classes, and one for no class."""

    side: int
    categories: int
    hidden: int
    layers: int
    heads: int
    top_k: int
    windows: tuple[int, ...]
    classes: int = 1000

    @property
    def layout(self) -> Layout:
        """A token is a dimension."""
        return Layout(1, self.side, self.side, self.categories)


FULL = Shape(24, 16384, 768, 12, 12, 2000, (16, 32))
SMALL = Shape(4, 32, 16, 2, 2, 8, (4,), classes=3)
"""For `--small`."""


def decoder(slots: int) -> Callable[[Setting], Iterator[Row]]:
    """An item: windows and one token a call, at one number of slots."""

    def run(setting: Setting) -> Iterator[Row]:
        shape = SMALL if setting.small else FULL
        arm, processor, parameters = guided(shape, setting.device)
        height, width = shape.layout.height, shape.layout.width
        head: Row = {
            "model": f"Llama, {parameters / 1e6:.0f} M parameters, guidance {GUIDANCE:g}, top-k {shape.top_k}",
            "size": f"{height}x{width}x1x{shape.categories}",
            "trained": False,
            "dtype": "float32",
            "slots": slots,
        }
        for window in (shape.windows[0], 1, *shape.windows[1:]):
            draw = partial(_draw, arm, processor, shape, slots, window)
            yield attempt(setting, {**head, "what": _name(window), "window": window}, partial(_once, setting, draw))

    return run


@cache
def guided(shape: Shape, device: torch.device) -> tuple[AutoregressiveModel, Any, int]:
    """(the ARM with guidance, the logits processor, parameters of the model), on the device."""
    arms = importlib.import_module("arm_core.arms")
    wrapped, guide, top_k = offered(arms, "TransformersARM"), offered(arms, "Guided"), offered(arm_core, "top_k")
    offered(arm_core, "KeyedNoise")
    model = _llama(shape).to(device)
    arm = guide(wrapped(model, shape.layout), scale=GUIDANCE, null_context=[shape.categories + shape.classes])
    processor = top_k(shape.top_k)
    x = torch.randint(shape.categories, (1, shape.layout.dims), generator=torch.Generator().manual_seed(1)).to(device)
    with torch.inference_mode():
        logits = arm(x, context=[_context(shape, 0)]).logits[0, ::16]
        kept = logits.topk(min(shape.top_k, shape.categories), dim=-1).values
        model.lm_head.weight.mul_(loudness(kept, NATS))
    return arm, processor, sum(parameter.numel() for parameter in model.parameters())


def _llama(shape: Shape) -> Any:
    try:
        transformers = importlib.import_module("transformers")
    except ImportError:
        raise NotThereError("transformers is not installed") from None
    config = transformers.LlamaConfig(
        vocab_size=shape.categories + shape.classes + 1,
        hidden_size=shape.hidden,
        intermediate_size=shape.hidden * 8 // 3,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.layout.dims + 8,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.LlamaForCausalLM(config).eval().requires_grad_(False)


def _context(shape: Shape, sample: int) -> list[int]:
    return [shape.categories + sample % shape.classes]


def _name(window: int) -> str:
    return "one token a call" if window == 1 else "windows"


def _draw(arm: AutoregressiveModel, processor: Any, shape: Shape, slots: int, window: int) -> SampleTrace:
    """As many samples as there are slots."""
    context = [_context(shape, sample) for sample in range(slots)]
    return sample_many(
        arm, count=slots, seed=0, slots=slots, window=window, logits_processor=processor, context=context
    )


def _once(setting: Setting, draw: Callable[[], SampleTrace]) -> Row:
    if setting.left() < 0:
        return {"kind": "skipped", "note": "no time was left"}
    found = setting.meter(draw)
    trace = found.result
    calls, work = trace.arm_calls.double().mean().item(), trace.arm_work.double().mean().item()
    return {"kind": "once", "samples": len(trace.x), "calls": calls, "work": work, **found.costs()}
