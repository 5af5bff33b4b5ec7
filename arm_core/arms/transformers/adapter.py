"""Any decoder of `transformers` as an ARM, unmodified: tokens at positions, keys and values by slot and place.

The token before a dimension is what the model reads to predict it. With a prompt of P tokens the row of dimension i is
that of position P - 1 + i, where x_{i-1} stands; for the first dimension it is the prompt's last token.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers.cache_utils import Cache

from arm_core.arms.transformers.limits import check_drivable, longest_sequence
from arm_core.contracts import ArmOutput, AutoregressiveModel, SpanOutput
from arm_core.errors import InputError
from arm_core.layout import Layout

Prompts = Tensor | Sequence[Any] | None
"""A prompt of token ids for each sample: integers (batch, n) or (batch,), or a list of lists or tensors of any length.

None, for all or in the list, stands for the start token alone."""


class TransformersARM(AutoregressiveModel):
    """A decoder of `transformers` over the dimensions of a layout: category c is the token offset + c.

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
        self.cache_argument = cache_argument
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
            _check_numbers(self)

    def forward(self, x: Int[Tensor, "batch dims"], context: Prompts = None) -> ArmOutput:
        """Logits and last hidden states of every dimension, in one pass without a cache."""
        prompts, lengths = self.prompts(context, len(x))
        tokens = F.pad(prompts, (0, self.layout.dims - 1), value=self.offset)
        first = lengths[:, None] - 1
        tokens.scatter_(1, first + 1 + torch.arange(self.layout.dims - 1, device=x.device), x[:, :-1] + self.offset)
        place = torch.arange(tokens.shape[1], device=x.device)
        wanted = (first <= place) & (place < first + self.layout.dims)
        logits, hidden = self.rows(tokens, wanted, use_cache=False)
        return ArmOutput(logits.unflatten(0, x.shape), hidden.unflatten(0, x.shape))

    def span_cache(self, slots: int, window: int) -> "KeyValues":
        """See `AutoregressiveModel`."""
        return KeyValues(self, slots, window)

    def rows(self, tokens: Int[Tensor, "batch n"], wanted: Bool[Tensor, "batch n"], **inputs: Any) -> ArmOutput:
        """The model's own forward; logits (rows, categories) and hidden states (rows, width) where wanted, in order."""
        head = self.model.get_output_embeddings()
        pick = _Rows(head, wanted, slice(self.offset, self.offset + self.layout.categories))
        shell = copy.copy(self.model)  # the same weights and the same forward with another head: no call changes a model
        shell._modules = {name: pick if part is head else part for name, part in self.model._modules.items()}
        output = shell(input_ids=tokens, return_dict=True, **inputs)
        return ArmOutput(output.logits.squeeze(0), pick.hidden)

    def prompts(self, context: Prompts, count: int) -> tuple[Int[Tensor, "count longest"], Int[Tensor, " count"]]:
        """The prompts of `count` samples, padded on the right, and their lengths.

        Raises:
            InputError: a prompt is empty, no tokens of the model, or too long; or there is none and no start token.
        """
        device = next(self.model.parameters()).device
        start = [] if self.start is None else [self.start]
        given = [start] * count if context is None else [start if prompt is None else prompt for prompt in context]
        rows = [torch.as_tensor(prompt, device=device).reshape(-1) for prompt in given]
        if len(rows) != count:
            raise InputError(f"{count} samples need as many contexts, got {len(rows)}")
        for k, row in enumerate(rows):
            if len(row) == 0 or row.is_floating_point() or row.dtype == torch.bool:
                raise InputError(f"context {k} must be at least one token id, got {given[k]!r}; give the prompts as "
                                 "context=, or TransformersARM(..., start=) for samples without")  # fmt: skip
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64, device=device)
        padded = nn.utils.rnn.pad_sequence([row.long() for row in rows], batch_first=True, padding_value=self.offset)
        if not 0 <= int(padded.min()) <= int(padded.max()) < self.tokens:
            raise InputError(f"contexts must hold tokens in [0, {self.tokens - 1}], "
                             f"got {int(padded.min())} to {int(padded.max())}")  # fmt: skip
        self._check_length(padded.shape[1])
        return padded, lengths

    def _check_length(self, prompt: int) -> None:
        if (needed := prompt + self.layout.dims - 1) > self.longest:
            raise InputError(f"a prompt of {prompt} and {self.layout.dims} dims need {needed} positions, "
                             f"{self.limit} of {type(self.model).__name__} is {self.longest}")  # fmt: skip


class KeyValues:
    """The `SpanCache` of a decoder: keys and values by slot and place, as many heads as the model has of them.

    A span's keys and values are computed anew and overwritten. A row reads the places up to its own, so that what lies
    beyond it, of earlier drafts or of an earlier sample, needs no clearing. Room grows as samples do.

    Args:
        arm: in its final dtype and on its device.
        slots: how many samples are in work.
        window: most dims of a span.
    """

    def __init__(self, arm: TransformersARM, slots: int, window: int) -> None:
        self.arm, self.slots, self.window = arm, slots, min(window, arm.layout.dims)
        like = next(arm.model.parameters())
        self.dtype = like.dtype
        self.skip = torch.zeros(slots, dtype=torch.int64, device=like.device)  # places before that of dimension 0
        self.last = torch.full_like(self.skip, -1 if arm.start is None else arm.start)  # the token that stands there
        self.kept: list[list[Tensor]] = []  # layer -> keys and values (slots, room + 1, heads, features)
        self.room, self.most = 0, arm.layout.dims
        self.cost, self.owed = _Cost(arm), 0.0

    def begin(self, slots: list[int], contexts: Prompts) -> None:
        """Compute the prompts of the samples that begin in these slots, except for the last token of each.

        Raises:
            InputError: see `TransformersARM.prompts`.
        """
        at = torch.tensor(slots, dtype=torch.int64, device=self.skip.device)
        prompts, lengths = self.arm.prompts(contexts, len(slots))
        self.skip[at] = lengths - 1
        self.last[at] = prompts.gather(1, lengths[:, None] - 1).squeeze(1)
        before = prompts[:, :-1]
        if before.shape[1] > 0:
            self.most = max(self.most, before.shape[1] + self.arm.layout.dims)
            place = torch.arange(before.shape[1], device=at.device).expand_as(before)
            inside = place < lengths[:, None] - 1
            with torch.no_grad():
                self._run(at, before, place, inside, torch.zeros_like(inside))

    def evaluate(
        self, x: Int[Tensor, "slots dims"], start: Int[Tensor, " slots"], stop: Int[Tensor, " slots"]
    ) -> SpanOutput:
        """See `SpanCache`. The work of prompts is counted in the first call after it."""
        dims = self.arm.layout.dims
        busy = (start < stop).nonzero().flatten()
        if len(busy) and int(self.last[busy].min()) < 0:
            self.arm.prompts(None, 1)  # says that there is neither a start token nor a context
        start, stop = start[busy, None], stop[busy, None]
        at = start + torch.arange(int((stop - start).max()), device=x.device)
        inside = at < stop
        before = torch.cat([self.last[busy, None], x[busy, :-1] + self.arm.offset], dim=1)
        tokens = before.gather(1, at.clamp_max(dims - 1))
        logits, hidden = self._run(busy, tokens, self.skip[busy, None] + at, inside, inside)
        work, self.owed = self.owed, 0.0
        return SpanOutput((busy[:, None] * dims + at)[inside], logits, hidden, work)

    def _run(self, slots: Tensor, tokens: Tensor, place: Tensor, inside: Tensor, wanted: Tensor) -> ArmOutput:
        """Tokens (n, width) of slots at their places, of which those inside count; the rest only fill up the shape."""
        reach = int(place[inside].max()) + 1
        if reach > self.room:
            self.room = min(max(reach, 2 * self.room), self.most)
        position = place.clamp_max(reach - 1)
        hidden_from = torch.arange(reach, device=place.device) > position[:, None, :, None]
        mask = torch.zeros(hidden_from.shape, dtype=self.dtype, device=place.device)
        mask.masked_fill_(hidden_from, torch.finfo(self.dtype).min)
        cache = _Places(self, slots, torch.where(inside, place, self.room), reach)
        self.owed += self.cost.of(tokens.numel(), reach, int(wanted.sum()))
        given = {self.arm.cache_argument: cache, "use_cache": True, "attention_mask": mask, "position_ids": position}
        return self.arm.rows(tokens, wanted, **given)


class _Places(Cache):
    """What the attention layers of one call see: they write to the places of the call and read those up to `reach`."""

    def __init__(self, kept: KeyValues, slots: Tensor, places: Tensor, reach: int) -> None:
        self.layers: list[Any] = []  # `Cache` would keep tensors here; these are in `kept`
        self.memory, self.slots, self.places, self.reach = kept, slots, places, reach

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Any, ...]:
        """Keys and values (n, heads, width, features) of a layer in; those of all places out."""
        new = [key_states.transpose(1, 2), value_states.transpose(1, 2)]
        while len(self.memory.kept) <= layer_idx:
            self.memory.kept.append([part.new_zeros(self.memory.slots, 1, *part.shape[2:]) for part in new])
        pair = self.memory.kept[layer_idx]
        for index, (kept, part) in enumerate(zip(pair, new, strict=True)):
            if (more := self.memory.room + 1 - kept.shape[1]) > 0:  # the last place takes what fills up a shape
                pair[index] = kept = F.pad(kept, (0, 0, 0, 0, 0, more))
            kept[self.slots[:, None], self.places] = part
        everyone = len(self.slots) == self.memory.slots
        return tuple((kept[:, : self.reach] if everyone else kept[self.slots, : self.reach]).transpose(1, 2)
                     for kept in pair)  # fmt: skip

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """What positions start from where a model is not told them: unused, since it is."""
        return 0


class _Rows(nn.Module):
    """An output head that evaluates the wanted rows and the categories only, and keeps what it read."""

    def __init__(self, head: Any, wanted: Tensor, categories: slice) -> None:
        super().__init__()
        self.head, self.wanted, self.categories = head, wanted, categories

    def forward(self, hidden: Tensor) -> Tensor:
        self.hidden = hidden[self.wanted]
        if type(self.head) is not nn.Linear:  # quantised, or wrapped
            return self.head(self.hidden)[None, :, self.categories]
        bias = None if self.head.bias is None else self.head.bias[self.categories]
        return F.linear(self.hidden, self.head.weight[self.categories], bias)[None]


class _Cost:
    """Multiplications of a call in those of a pass over one image without a prompt."""

    def __init__(self, arm: TransformersARM) -> None:
        config, head = arm.model.config.get_text_config(), arm.model.get_output_embeddings()
        matrices = [part.weight.numel() for part in arm.model.modules()
                    if part is not head and not isinstance(part, nn.Embedding)
                    and getattr(getattr(part, "weight", None), "ndim", 0) == 2]  # fmt: skip
        heads = getattr(config, "num_attention_heads", 1)
        features = getattr(config, "head_dim", None) or arm.hidden_features // heads
        self.row, self.key = sum(matrices), 2 * heads * features * getattr(config, "num_hidden_layers", 1)
        self.output = arm.hidden_features * arm.layout.categories
        dims = arm.layout.dims
        self.whole = dims * (self.row + dims * self.key + self.output)

    def of(self, rows: int, reach: int, outputs: int) -> float:
        """Rows that each read `reach` places, of which some have an output."""
        return (rows * (self.row + reach * self.key) + outputs * self.output) / self.whole


def _check_numbers(arm: TransformersARM) -> None:
    """Raise an InputError unless ragged spans over wrong drafts give what the model's own forward gives."""
    kind, dims, categories = type(arm.model).__name__, arm.layout.dims, arm.layout.categories
    count = min(dims, 5)
    device = next(arm.model.parameters()).device
    x = torch.arange(2 * dims, device=device).reshape(2, dims) % categories
    contexts = [[arm.offset], [arm.offset + 1, arm.offset, arm.offset + 1]]
    if arm.longest < count + 2:
        contexts[1] = contexts[1][:1]
    spans = [(torch.tensor(start, device=device), torch.tensor(stop, device=device))
             for start, stop in (([0, 0], [count, 1]), ([min(1, count - 1), 0], [count, count]))]  # fmt: skip
    with _eval(arm.model), torch.no_grad():
        try:
            cache = arm.span_cache(2, count)
            cache.begin([0, 1], contexts)
            cache.evaluate(x.flip(1), *spans[0])
            where, logits, _, _ = cache.evaluate(x, *spans[1])
            for slot, prompt in enumerate(contexts):
                tokens = torch.tensor([prompt], device=device)
                tokens = torch.cat([tokens, x[slot : slot + 1, : count - 1] + arm.offset], dim=1)
                own = arm.model(input_ids=tokens, use_cache=False, return_dict=True).logits[0, len(prompt) - 1 :]
                own = own[:, arm.offset : arm.offset + categories]
                mine = where.div(dims, rounding_mode="floor") == slot
                error = (logits[mine] - own[where[mine] % dims]).abs().max() / own.abs().max().clamp_min(1e-30)
                allowed = max(torch.finfo(own.dtype).eps ** 0.5, 1e-5)  # some models round to float32 inside
                if not error <= allowed:
                    raise InputError(f"{kind} cannot be driven in spans: its logits differ from those of its own "
                                     f"forward by {float(error):.2g} of their size; it may ignore position ids or the "
                                     "attention mask, or mix its logits over the vocabulary")  # fmt: skip
        except (TypeError, AttributeError, RuntimeError, ValueError, IndexError, KeyError, NotImplementedError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{kind} cannot be driven in spans: {type(error).__name__}: {error}") from error


@contextmanager
def _eval(model: nn.Module) -> Iterator[None]:
    """Eval mode, restored module by module."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _aliases(module: nn.Module) -> dict[str, str]:
    """Names of tied parameters and of the parameter that each of them is."""
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
