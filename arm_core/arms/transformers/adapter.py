"""Any decoder of `transformers` as an ARM, unmodified, and the keys and values that its spans stand on.

The token before a dimension is what the model reads to predict it. With a prompt of P tokens the row of dimension i is
that of position P - 1 + i, where x_{i-1} stands; for the first dimension it is the prompt's last token.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers.cache_utils import Cache

from arm_core.arms.transformers.limits import check_drivable, check_numbers, longest_sequence
from arm_core.contracts import ArmOutput, AutoregressiveModel, Contexts, SpanOutput
from arm_core.errors import InputError
from arm_core.layout import Layout


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
            check_numbers(self)

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

    def span_cache(self, slots: int, window: int) -> "KeyValues":
        """See `AutoregressiveModel`."""
        return KeyValues(self, slots, window)

    def example_contexts(self, count: int) -> Contexts:
        """Prompts of one to three tokens, as far as the model has positions for them."""
        most = min(3, self.longest - self.layout.dims + 1)
        return [[self.offset + (k + j) % self.layout.categories for j in range(1 + k % most)] for k in range(count)]

    def rows(self, tokens: Int[Tensor, "batch n"], wanted: Bool[Tensor, "batch n"], **inputs: Any) -> ArmOutput:
        """The model's own forward; logits (rows, categories) and hidden states (rows, width) where wanted, in order.

        The logits are at least float32, as `generate` reads them.
        """
        head = self.model.get_output_embeddings()
        pick = _Rows(head, wanted, slice(self.offset, self.offset + self.layout.categories))
        shell = copy.copy(self.model)  # the same weights and forward with another head: the model itself never changes
        shell._modules = {name: pick if part is head else part for name, part in self.model._modules.items()}
        logits = shell(input_ids=tokens, return_dict=True, **inputs).logits.squeeze(0)
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
        rows = [torch.as_tensor(prompt, device=device).reshape(-1) for prompt in given]
        for k, row in enumerate(rows):
            if len(row) == 0 or row.is_floating_point() or row.dtype == torch.bool:
                raise InputError(
                    f"the context of sample {k} must be token ids, at least one, got {given[k]!r}; "
                    "samples without a context need TransformersARM(..., start=)"
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

    def begin(self, slots: list[int], contexts: Contexts) -> None:
        """Compute the prompts of the samples that begin in these slots, except for the last token of each.

        Raises:
            InputError: see `TransformersARM.prompts`.
        """
        at = torch.tensor(slots, dtype=torch.int64, device=self.skip.device)
        prompts, lengths = self.arm.prompts(contexts, len(slots))
        self.skip[at] = lengths - 1
        self.last[at] = prompts.gather(1, lengths[:, None] - 1).squeeze(1)
        if prompts.shape[1] > 1:
            self.most = max(self.most, prompts.shape[1] - 1 + self.arm.layout.dims)
            place = torch.arange(prompts.shape[1] - 1, device=at.device).expand(len(slots), -1)
            inside = place < lengths[:, None] - 1
            self._run(at, prompts[:, :-1], place, inside, torch.zeros_like(inside))

    def evaluate(
        self, x: Int[Tensor, "slots dims"], start: Int[Tensor, " slots"], stop: Int[Tensor, " slots"]
    ) -> SpanOutput:
        """See `SpanCache`. The work of prompts is counted in the first call after them."""
        dims, busy = self.arm.layout.dims, (start < stop).nonzero().flatten()
        if bool((self.last[busy] < 0).any()):
            self.arm.prompts(None, 1)  # raises: neither a start token nor a context
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
        unread = torch.arange(reach, device=place.device) > position[:, None, :, None]
        mask = torch.zeros(unread.shape, dtype=self.dtype, device=place.device)
        mask.masked_fill_(unread, torch.finfo(self.dtype).min)
        cache = _Places(self, slots, torch.where(inside, place, self.room), reach)
        self.owed += self.cost.of(tokens.numel(), reach, int(wanted.sum()))
        given = {self.arm.cache_argument: cache, "use_cache": True, "attention_mask": mask, "position_ids": position}
        with torch.no_grad():
            return self.arm.rows(tokens, wanted, **given)


class _Places(Cache):
    """What the attention layers of one call see: they write to the places of the call and read those up to `reach`."""

    def __init__(self, memory: KeyValues, slots: Tensor, places: Tensor, reach: int) -> None:
        self.layers: list[Any] = []  # where `Cache` would keep tensors
        self.memory, self.slots, self.places, self.reach = memory, slots, places, reach

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Any, ...]:
        """Keys and values (n, heads, width, features) of a layer in; those of all places out."""
        new = [key_states.transpose(1, 2), value_states.transpose(1, 2)]
        while len(self.memory.kept) <= layer_idx:
            self.memory.kept.append([part.new_zeros(self.memory.slots, 1, *part.shape[2:]) for part in new])
        pair = self.memory.kept[layer_idx]
        for index, part in enumerate(new):
            if (more := self.memory.room + 1 - pair[index].shape[1]) > 0:  # the last place takes what fills up a shape
                pair[index] = F.pad(pair[index], (0, 0, 0, 0, 0, more))
            pair[index][self.slots[:, None], self.places] = part
        everyone = len(self.slots) == self.memory.slots
        read = [kept[:, : self.reach] if everyone else kept[self.slots, : self.reach] for kept in pair]
        return tuple(part.transpose(1, 2) for part in read)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """From where a model would count positions if it were not told them."""
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
