"""`model.generate(..., custom_generate=predictive_generate())`: exact fast samples under the interface of transformers.

What `generate` prepares (prompts, masks, processors, lengths, stopping) comes in and what it returns goes out; what
cannot be honoured exactly is refused by name.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.generation import EosTokenCriteria, GenerateDecoderOnlyOutput, MaxLengthCriteria

from arm_core.arms.transformers import TransformersARM
from arm_core.errors import InputError
from arm_core.fixed_point import fixed_point
from arm_core.layout import Layout
from arm_core.samplers import predictive_sample
from arm_core.samplers.options import keyed_noise

_HONOURED = {"attention_mask", "position_ids", "cache", "past_key_values", "cache_position", "use_cache"}
_HONOURED |= {"logits_to_keep", "num_logits_to_keep"}
_UNHONOURED = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")


def predictive_generate(*, seeds: int | Sequence[int] = 0, window: int = 8) -> Callable[..., Any]:
    """What to pass to `generate` of a decoder as `custom_generate`.

    Args:
        seeds: one per row, in [0, 2^64): a row of a batch is the sequence that its prompt gives alone with its seed.
            A number stands for itself in the first row, the next one in the second, and so on.
        window: tokens that a call evaluates of each row; it changes the speed and no token.

    Returns:
        A decoding method. Its tokens are argmax(processed logits + Gumbel noise), or without the noise if not
        `do_sample`: the law of `generate` and, where that is greedy, its very tokens. It raises an InputError for
        beams, processors that read the tokens so far, stopping criteria other than length and end token, and outputs
        beside the sequences.
    """
    built: list[TransformersARM] = []  # for the last model and length: building one costs some calls

    def decode(
        model: Any,
        input_ids: Int[Tensor, "rows width"],
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **inputs: Any,
    ) -> Any:
        _refuse(generation_config, stopping_criteria, inputs)
        mask = inputs.get("attention_mask")
        mask = torch.ones_like(input_ids) if mask is None else mask
        _check_positions(mask, inputs.get("position_ids"))
        count, width = input_ids.shape
        layout = Layout(1, 1, generation_config.max_length - width, model.get_output_embeddings().weight.shape[0])
        if not built or built[0].model is not model or built[0].layout != layout:
            built[:] = [TransformersARM(model, layout)]
        ends = [token for criterion in stopping_criteria if isinstance(criterion, EosTokenCriteria)
                for token in criterion.eos_token_id.tolist()]  # fmt: skip
        ids = range(seeds, seeds + count) if isinstance(seeds, int) else list(seeds)
        if len(ids) != count:
            raise InputError(f"predictive_generate needs a seed per row: {count} rows, {len(ids)} seeds")
        new = predictive_sample(
            built[0],
            keyed_noise(built[0], seed=0, sample_ids=ids),
            fixed_point,
            window=window,
            temperature=1.0 if generation_config.do_sample else 0.0,
            logits_processor=list(logits_processor),
            context=[row[kept.bool()] for row, kept in zip(input_ids, mask, strict=True)],
            end=ends,
        ).x.to(input_ids.device)
        sequences = torch.cat([input_ids, _padded(new, ends, generation_config)], dim=1)
        if generation_config.return_dict_in_generate:
            return GenerateDecoderOnlyOutput(sequences=sequences)  # type: ignore[arg-type]
        return sequences

    return decode


def _padded(new: Tensor, ends: list[int], generation_config: Any) -> Tensor:
    """New tokens up to where the longest row ends; each is padded behind its end token."""
    if not ends:
        return new
    ended = torch.isin(new, new.new_tensor(ends)).cumsum(dim=1)
    after = torch.nn.functional.pad(ended, (1, 0))[:, :-1] > 0
    return new.masked_fill(after, int(generation_config._pad_token_tensor))[:, : int((~after).sum(dim=1).max())]


def _refuse(generation_config: Any, stopping_criteria: Any, inputs: dict[str, Any]) -> None:
    """Raise an InputError that names what cannot be honoured exactly."""
    refused = [] if generation_config.num_beams == 1 else ["num_beams"]
    if (mode := generation_config.get_generation_mode().value) not in ("sample", "greedy_search"):
        refused.append(mode)
    refused += [type(criterion).__name__ for criterion in stopping_criteria
                if not isinstance(criterion, MaxLengthCriteria | EosTokenCriteria)]  # fmt: skip
    if generation_config.return_dict_in_generate:
        refused += [name for name in _UNHONOURED if getattr(generation_config, name)]
    refused += [name for name, value in inputs.items() if value is not None and name not in _HONOURED]
    for name in ("cache", "past_key_values"):
        if inputs.get(name) is not None and inputs[name].get_seq_length() > 0:
            refused.append(f"a {name} that holds tokens already")
    if refused:
        raise InputError(f"predictive_generate cannot honour {', '.join(refused)}; leave it out, or use generate alone")


def _check_positions(mask: Tensor, positions: Tensor | None) -> None:
    """Positions must count the tokens that the mask keeps, on the left only padding."""
    if bool((mask.diff(dim=1) < 0).any()) or not bool((mask[:, -1] == 1).all()):
        raise InputError("predictive_generate needs prompts that are padded on the left: padding_side='left'")
    counted = mask.cumsum(dim=1) - 1
    if positions is not None and not torch.equal(positions.expand_as(mask)[mask == 1], counted[mask == 1]):
        raise InputError("predictive_generate counts position_ids from the attention_mask; leave them out")
