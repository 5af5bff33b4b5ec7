"""Any decoder of `transformers` as an ARM, unmodified, and the keys and values that its spans stand on.

The token before a dimension is what the model reads to predict it. With a prompt of P tokens the row of dimension i is
that of position P - 1 + i, where x_{i-1} stands; for the first dimension it is the prompt's last token.
"""

import copy
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.pytorch_utils import Conv1D

from arm_core.arms.transformers.attention import takes_native_attention, with_native_attention
from arm_core.arms.transformers.limits import check_drivable, check_numbers, longest_sequence
from arm_core.contracts import ArmOutput, AutoregressiveModel, Contexts, SpanCache, SpanOutput
from arm_core.errors import InputError
from arm_core.layout import Layout
from arm_core.native import serves
from arm_core.product import Linear, linear

FIXED_WORK = 2**28
"""Multiplications of a call up to which the Python of a model costs a CPU more than what fixed shapes add to them."""


class TransformersARM(AutoregressiveModel):
    """A decoder of `transformers` over the dimensions of a layout: category c is the token offset + c.

    A context is the prompt of a sample: token ids, as a list or a tensor, of any length; None in a list of contexts,
    like no contexts at all, stands for the start token.

    Args:
        model: a ...ForCausalLM with sdpa or eager attention.
        layout: of the images; n tokens of text are `Layout(1, 1, n, vocabulary)`.
        start: token before the first dimension of samples without a context (BOS); None: each sample needs a context.
        offset: token of category 0; tokens outside the categories are left out of the logits.

    Raises:
        InputError: the model cannot be driven in spans, or has too few tokens or positions: the message says why.

    Note:
        Building one compares a few tokens, in ragged spans over wrong drafts, with the model's own forward.
    """

    granule = 1

    def __init__(self, model: Any, layout: Layout, *, start: int | None = None, offset: int = 0) -> None:
        cache_argument = check_drivable(model)
        tokens, width = model.get_output_embeddings().weight.shape
        super().__init__(layout, hidden_features=width)
        self.model, self.start, self.offset, self.tokens = model, start, offset, tokens
        self.cache_argument, self.fixed_shapes = cache_argument, False
        self.native = takes_native_attention(model)
        self.longest, self.limit = longest_sequence(model)
        if not 0 <= offset <= tokens - layout.categories:
            last = offset + layout.categories - 1
            raise InputError(f"the categories are the tokens {offset} to {last}, but the model has 0 to {tokens - 1}")
        if start is not None and not 0 <= start < tokens:
            raise InputError(f"start must be a token in [0, {tokens - 1}], got {start}")
        self._check_length(1)
        self.register_state_dict_post_hook(_drop_aliases)
        self.register_load_state_dict_pre_hook(_add_aliases)
        if not next(model.parameters()).is_meta:
            self.fixed_shapes = check_numbers(self, partial(KeyValues, self))

    def forward(self, x: Int[Tensor, "batch dims"], context: Contexts | None = None) -> ArmOutput:
        """Logits and last hidden states of every dimension, in one pass without a cache."""
        prompts, lengths = self.prompts(context, len(x))
        tokens = F.pad(prompts, (0, self.layout.dims - 1), value=self.offset)
        first = lengths[:, None] - 1
        tokens.scatter_(1, first + 1 + torch.arange(self.layout.dims - 1, device=x.device), x[:, :-1] + self.offset)
        place = torch.arange(tokens.shape[1], device=x.device)
        wanted = (first <= place) & (place < first + self.layout.dims)
        logits, hidden = self.rows(tokens, wanted, use_cache=False)
        return ArmOutput(logits.unflatten(0, x.shape), hidden.unflatten(0, x.shape))

    def span_cache(self, slots: int, window: int) -> SpanCache:
        """See `AutoregressiveModel`. Calls have fixed shapes on a GPU, if the model allows it."""
        return KeyValues(self, slots, window, compact=not (self.fixed_shapes and next(self.parameters()).is_cuda))

    def recorded_cache(self, slots: int, window: int) -> SpanCache:
        """See `AutoregressiveModel`: fixed shapes also on a CPU, where calls are small, if the model allows it."""
        cache = self.span_cache(slots, window)
        if not self.fixed_shapes or type(cache) is not KeyValues:  # a subclass's own stays as it is
            return cache
        rows, cost = slots * min(cache.window, self.layout.width * self.layout.channels), cache.cost  # spans of a row
        small = cost.of(rows, self.layout.dims, rows) * cost.whole <= FIXED_WORK
        return KeyValues(self, slots, cache.window, compact=False) if small else cache

    def example_contexts(self, count: int) -> Contexts:
        """Prompts of one to three tokens, as far as the model has positions for them."""
        most = min(3, self.longest - self.layout.dims + 1)
        return [[self.offset + (k + j) % self.layout.categories for j in range(1 + k % most)] for k in range(count)]

    def rows(
        self,
        tokens: Int[Tensor, "batch n"],
        wanted: Bool[Tensor, "batch n"] | None,
        *,
        model: Any = None,
        **inputs: Any,
    ) -> ArmOutput:
        """The model's own forward; logits (rows, categories) and hidden states (rows, width) where wanted, in order.

        The logits are at least float32, as `generate` reads them. wanted None: all are; model None: the ARM's own.
        """
        model = self.model if model is None else model
        head = model.get_output_embeddings()
        pick = _Rows(head, wanted, slice(self.offset, self.offset + self.layout.categories))
        parts = {name: pick if part is head else part for name, part in model._modules.items()}
        logits = _shell(model, parts)(input_ids=tokens, return_dict=True, **inputs).logits.squeeze(0)
        return ArmOutput(logits.to(torch.promote_types(logits.dtype, torch.float32)), pick.hidden)

    def prompts(
        self, context: Contexts | None, count: int
    ) -> tuple[Int[Tensor, "count longest"], Int[Tensor, " count"]]:
        """The prompts of `count` samples, padded on the right, and their lengths.

        Raises:
            InputError: a prompt is empty, no tokens of the model, or too long; or there is none and no start token.
        """
        device = next(self.model.parameters()).device
        start = [] if self.start is None else [self.start]
        if context is None:
            context = [start] * count
        if len(context) != count:
            raise InputError(f"{count} samples need as many contexts, got {len(context)}")
        given = [start if prompt is None else prompt for prompt in context]
        rows = [_row(prompt, device) for prompt in given]
        for k, row in enumerate(rows):
            if len(row) == 0 or row.is_floating_point() or row.dtype == torch.bool:
                raise InputError(
                    f"the context of sample {k} must be token ids, at least one, got {given[k]!r}; "
                    "samples without a context need TransformersARM(..., start=), a text its tokenizer's input_ids"
                )
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64, device=device)
        padded = nn.utils.rnn.pad_sequence([row.long() for row in rows], batch_first=True, padding_value=self.offset)
        low, high = int(padded.min()), int(padded.max())
        if not 0 <= low <= high < self.tokens:
            raise InputError(f"contexts must hold tokens in [0, {self.tokens - 1}], got {low} to {high}")
        self._check_length(padded.shape[1])
        return padded, lengths

    def _check_length(self, prompt: int) -> None:
        if (needed := prompt + self.layout.dims - 1) > self.longest:
            raise InputError(
                f"a prompt of {prompt} tokens and {self.layout.dims} dims need {needed} positions, "
                f"but {self.limit} of {type(self.model).__name__} is {self.longest}"
            )


class KeyValues:
    """The `SpanCache` of a decoder: keys and values by slot and place, as many heads as the model has of them.

    A span's keys and values are computed anew and overwritten. A row reads the places up to its own, so that what lies
    beyond it, of earlier drafts or of an earlier sample, needs no clearing.

    Args:
        arm: in its final dtype and on its device.
        slots: how many samples are in work.
        window: most dims of a span.
        compact: compute the rows of spans only, over places that grow as samples do. Else all slots, `window` rows and
            all places at every call: fixed shapes, which can be recorded.
    """

    def __init__(self, arm: TransformersARM, slots: int, window: int, *, compact: bool = True) -> None:
        self.arm, self.window, self.compact, self.recordable = arm, min(window, arm.layout.dims), compact, not compact
        like = next(arm.model.parameters())
        self.dtype, self.device = like.dtype, like.device
        self.memory = _Memory(slots, arm.layout.dims, like.device)
        if arm.start is not None:
            self.memory.last.fill_(arm.start)
        self.memory.room = 0 if compact else self.memory.most
        self.ahead = torch.arange(self.window, device=like.device)
        self.read = torch.zeros((), dtype=like.dtype, device=like.device)
        self.unread = torch.full_like(self.read, torch.finfo(like.dtype).min)
        self.cost = _Cost(arm)
        configs: dict[int, Any] = {}
        if serves(like):
            own = {id(part.config): part.config for part in arm.model.modules() if "config" in part.__dict__}
            configs = {key: with_native_attention(config) for key, config in own.items()}
        self.model = _faster(arm.model, configs)

    @property
    def version(self) -> int:
        """Changes when what was recorded of calls before no longer holds: memory has moved."""
        return self.memory.room if self.recordable else 0

    def narrowed(self, window: int) -> "KeyValues":
        """The same keys and values, for spans of at most `window` dims."""
        other = copy.copy(self)
        other.window = min(window, self.window)
        return other

    def begin(self, slots: list[int], contexts: Contexts) -> float:
        """Compute the prompts of the samples that begin in these slots, except for the last token of each.

        Returns:
            The work of it, in passes over one image.

        Raises:
            InputError: see `TransformersARM.prompts`.
        """
        at = torch.tensor(slots, dtype=torch.int64, device=self.device)
        prompts, lengths = self.arm.prompts(contexts, len(slots))
        before, self.memory.is_told = prompts.shape[1] - 1, True
        self.memory.skip[at] = lengths - 1
        self.memory.last[at] = prompts.gather(1, lengths[:, None] - 1).squeeze(1)
        self.memory.most = max(self.memory.most, before + self.arm.layout.dims)
        self.memory.reserve(before if self.compact else self.memory.most)
        if before == 0:
            return 0.0
        place = torch.arange(before, device=self.device).expand(len(slots), -1)
        inside = place < lengths[:, None] - 1
        self._run(at, prompts[:, :-1], place, inside, torch.zeros_like(inside), before)
        return self.cost.of(place.numel(), before, 0)

    def evaluate(
        self, x: Int[Tensor, "slots dims"], start: Int[Tensor, " slots"], stop: Int[Tensor, " slots"]
    ) -> SpanOutput:
        """See `SpanCache`."""
        dims, memory = self.arm.layout.dims, self.memory
        if self.arm.start is None and not memory.is_told:
            self.arm.prompts(None, 1)  # raises
        slots: Tensor | None = None  # all
        width, parts = self.window, [memory.every, start, stop, x, memory.last, memory.skip]
        if self.compact:
            width, busy = int((stop - start).max()), start < stop
            if not bool(busy.all()):
                slots = busy.nonzero().flatten()
                parts = [part[slots] for part in parts]
        slot, first, end, fed, last, skip = (part.unsqueeze(1) if part.ndim == 1 else part for part in parts)
        at = first + self.ahead[:width]
        inside = at < end
        tokens = torch.cat([last, fed[:, :-1] + self.arm.offset], dim=1).gather(1, at.clamp_max(dims - 1))
        where = slot * dims + at
        if self.compact:
            reach = int((end + skip).max())
            memory.reserve(reach)
            wanted = None if bool(inside.all()) else inside
            where = where.flatten() if wanted is None else where[inside]
        else:
            reach, wanted, where = memory.room, None, torch.where(inside, where, len(memory.every) * dims).flatten()
        logits, hidden = self._run(slots, tokens, skip + at, inside, wanted, reach)
        return SpanOutput(where, logits, hidden, self.cost.of(tokens.numel(), reach, len(where)))

    def _run(
        self, slots: Tensor | None, tokens: Tensor, place: Tensor, inside: Tensor, wanted: Tensor | None, reach: int
    ) -> ArmOutput:
        """Tokens (n, width) of slots at their places, of which those inside count; the rest only fill up the shape."""
        position = place.clamp_max(reach - 1)
        unread = torch.arange(reach, device=self.device) > position[:, None, :, None]
        mask, memory = torch.where(unread, self.unread, self.read), self.memory
        places = torch.where(inside, place, memory.room)  # of a slot; then of all of them, as they lie in memory
        places = (memory.every if slots is None else slots)[:, None] * (memory.room + 1) + places
        cache = _Places(memory, slots, places.flatten(), reach)
        given = {self.arm.cache_argument: cache, "use_cache": True, "attention_mask": mask, "position_ids": position}
        with torch.no_grad():
            return self.arm.rows(tokens, wanted, model=self.model, **given)


class _Memory:
    """What slots keep between calls: keys and values of every layer, and the last token of each prompt."""

    def __init__(self, slots: int, most: int, device: torch.device) -> None:
        self.every = torch.arange(slots, device=device)
        self.skip = torch.zeros_like(self.every)  # places before that of dimension 0
        self.last = torch.zeros_like(self.every)  # the token that stands there
        self.is_told = False  # of prompts
        self.room, self.most = 0, most
        self.kept: list[list[Tensor]] = []  # layer -> keys and values (slots, room + 1, heads, features)

    def reserve(self, reach: int) -> None:
        """Have room for `reach` places from the next call on; it grows by doubling, to the `most` there can be."""
        if reach > self.room:
            self.room = min(max(reach, 2 * self.room), self.most)

    def of_layer(self, layer: int, like: list[Tensor]) -> list[Tensor]:
        """Keys and values of a layer; those that have no room for a place more than there are get it."""
        while len(self.kept) <= layer:
            self.kept.append([part.new_zeros(len(self.every), 0, *part.shape[2:]) for part in like])
        if (more := self.room + 1 - self.kept[layer][0].shape[1]) > 0:  # the last place takes what fills up a shape
            self.kept[layer] = [F.pad(part, (0, 0, 0, 0, 0, more)) for part in self.kept[layer]]
        return self.kept[layer]


class _Places(Cache):
    """What the attention layers of one call see: they write to the places of the call and read those up to `reach`."""

    def __init__(self, memory: _Memory, slots: Tensor | None, places: Tensor, reach: int) -> None:
        self.layers: list[Any] = []  # where `Cache` would keep tensors
        self.memory, self.slots, self.places, self.reach = memory, slots, places, reach

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Any, ...]:
        """Keys and values (n, heads, width, features) of a layer in; those of all places out."""
        new, seen = [key_states.transpose(1, 2), value_states.transpose(1, 2)], []
        for kept, part in zip(self.memory.of_layer(layer_idx, new), new, strict=True):
            kept.flatten(0, 1).index_copy_(0, self.places, part.flatten(0, 1))
            read = kept[:, : self.reach] if self.slots is None else kept[self.slots, : self.reach]
            seen.append(read.transpose(1, 2))
        return tuple(seen)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """From where a model would count positions if it were not told them."""
        return 0


class _Rows(nn.Module):
    """An output head that evaluates the wanted rows and the categories only, and keeps what it read."""

    def __init__(self, head: Any, wanted: Tensor | None, categories: slice) -> None:
        super().__init__()
        self.head, self.wanted, self.categories = head, wanted, categories

    def forward(self, hidden: Tensor) -> Tensor:
        self.hidden = hidden.flatten(0, 1) if self.wanted is None else hidden[self.wanted]
        if type(self.head) not in (nn.Linear, Linear):  # quantised, or wrapped
            return self.head(self.hidden)[None, :, self.categories]
        bias = None if self.head.bias is None else self.head.bias[self.categories]
        return linear(self.hidden, self.head.weight[self.categories], bias)[None]


def _shell(module: nn.Module, parts: dict[str, nn.Module | None], kind: type[nn.Module] | None = None) -> nn.Module:
    """A module with the same weights and forward, and other parts, so that the module itself never changes."""
    shell: nn.Module = object.__new__(kind or type(module))
    shell.__dict__.update(module.__dict__, _modules=parts)
    return shell


def _faster(module: nn.Module, configs: dict[int, Any]) -> nn.Module:
    """A shell of a model whose products go to the faster library (`arm_core.product`).

    Args:
        module: a model or a part of it.
        configs: what stands for configurations, by their identity; others stay as they are.
    """
    parts = {name: None if part is None else _faster(part, configs) for name, part in module._modules.items()}
    shell = _shell(module, parts, {nn.Linear: Linear, Conv1D: _Conv1D}.get(type(module)))
    if id(config := module.__dict__.get("config")) in configs:
        shell.config = configs[id(config)]
    return shell


class _Conv1D(Conv1D):
    """A linear layer of GPT-2, whose weight is (features, outputs)."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight.T, self.bias)


class _Cost:
    """Multiplications of a call in those of a pass over one image without a prompt."""

    def __init__(self, arm: TransformersARM) -> None:
        config, dims = arm.model.config.get_text_config(), arm.layout.dims
        layers = [part for part in arm.model.modules() if part is not arm.model.get_output_embeddings()]
        weights = [part.weight for part in layers if not isinstance(part, nn.Embedding) and hasattr(part, "weight")]
        self.row = sum(weight.numel() for weight in weights if weight.ndim == 2)
        features = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.key = 2 * config.num_hidden_layers * config.num_attention_heads * features
        self.output = arm.hidden_features * arm.layout.categories
        self.whole = dims * (self.row + dims * self.key + self.output)

    def of(self, rows: int, reach: int, outputs: int) -> float:
        """Rows that each read `reach` places, of which some have an output."""
        return (rows * (self.row + reach * self.key) + outputs * self.output) / self.whole


def _aliases(module: nn.Module) -> dict[str, str]:
    """Names of tied parameters, and the first name of each."""
    first: dict[int, str] = {}
    named = [(name, first.setdefault(id(p), name)) for name, p in module.named_parameters(remove_duplicate=False)]
    return {name: owner for name, owner in named if name != owner}


def _drop_aliases(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Tied weights are saved once: safetensors refuses to write the same memory twice."""
    for name in _aliases(module):
        state.pop(prefix + name, None)


def _add_aliases(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, owner in _aliases(module).items():
        if prefix + owner in state:
            state.setdefault(prefix + name, state[prefix + owner])


def _row(prompt: Any, device: torch.device) -> Tensor:
    """A prompt as a tensor; what is no sequence of numbers, a text for example, is empty."""
    try:
        return torch.as_tensor(prompt, device=device).reshape(-1)
    except (TypeError, ValueError, RuntimeError):
        return torch.empty(0)
