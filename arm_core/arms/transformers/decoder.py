"""Decoders of `transformers` that are built and trained here, and those of a folder, as ARMs that `save_arm` writes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from arm_core.arms.transformers.adapter import TransformersARM
from arm_core.contracts import Contexts
from arm_core.errors import InputError
from arm_core.layout import Layout


@dataclass(frozen=True)
class TransformersConfig:
    """An architecture of `transformers` and its size.

    The vocabulary ends with the categories, the start token, and a token for each class.

    Attributes:
        architecture: model type of `transformers`, such as llama, gpt2 or qwen2.
        width: features of a token.
        layers: blocks.
        heads: of attention.
        kv_heads: heads of keys and values; None: as many as `heads`.
        classes: labels that samples can be conditioned on, each with a token of its own: those after `start`.
        start: token before the first dimension of samples without a label; None: the one after the categories.
        offset: token of category 0.
        options: fields of the architecture's configuration, which override the sizes above.
    """

    architecture: str = "llama"
    width: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int | None = None
    classes: int = 0
    start: int | None = None
    offset: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.heads, 1 if self.kv_heads is None else self.kv_heads) < 1:
            raise InputError(f"width, layers, heads and kv_heads must be at least 1, got {self}")
        if self.width % (2 * self.heads):
            nearest = max(1, round(self.width / (2 * self.heads))) * 2 * self.heads
            raise InputError(
                f"width must be a multiple of 2 heads ({2 * self.heads}), got {self.width}; nearest: {nearest}"
            )
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise InputError(f"heads ({self.heads}) must be a multiple of kv_heads, got {self.kv_heads}")
        if self.classes < 0:
            raise InputError(f"classes must not be negative, got {self.classes}")

    def build(self, layout: Layout) -> Any:
        """A model with random weights.

        Raises:
            InputError: the architecture is not known, or `transformers` cannot import or build it.
        """
        sizes = {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads or self.heads,
            "intermediate_size": 4 * self.width,
            "vocab_size": self.offset + layout.categories + 1 + self.classes,
            "max_position_embeddings": layout.dims,
            **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
        }
        if self.architecture not in CONFIG_MAPPING:
            raise InputError(f"transformers knows no architecture {self.architecture!r}; try llama, gpt2 or qwen2")
        try:
            kind = CONFIG_MAPPING[self.architecture]
            native = kind.attribute_map  # hidden_size is n_embd to GPT-2
            sizes = {name: size for name, size in sizes.items() if native.get(name, name) not in self.options}
            return AutoModelForCausalLM.from_config(kind(**{**sizes, **self.options}))
        except (ImportError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(
                f"transformers cannot build {self.architecture!r} ({error}). If it cannot import the class, "
                "a torchvision or another package beside it does not fit torch: update or uninstall that package"
            ) from error


class TransformersDecoder(TransformersARM):
    """A `TransformersARM` that knows how it was made: `arm: {name: transformers, ...}` in a sweep, and checkpoints.

    With `classes` the contexts are labels in [0, classes), -1 for none, as those of a PixelCNN; or prompts.

    Args:
        layout: any.
        config: architecture, size and special tokens.
        model: that exists already; None: a new one with random weights.
    """

    def __init__(self, layout: Layout, config: TransformersConfig, *, model: Any = None) -> None:
        self.config = config
        start = config.offset + layout.categories if config.start is None else config.start
        super().__init__(model or config.build(layout), layout, start=start, offset=config.offset)

    def prompts(
        self, context: Contexts | None, count: int
    ) -> tuple[Int[Tensor, "count longest"], Int[Tensor, " count"]]:
        """As `TransformersARM.prompts`; a label stands for the token of its class.

        Raises:
            InputError: also for a label out of range.
        """
        if self.config.classes and context is not None:
            given = context.tolist() if isinstance(context, Tensor) else context
            context = [self._token_of(label) if isinstance(label, int) else label for label in given]
        return super().prompts(context, count)

    def _token_of(self, label: int) -> int | None:
        if not -1 <= label < self.config.classes:
            raise InputError(f"labels must be in [0, {self.config.classes - 1}], or -1 for none, got {label}")
        return None if label == -1 else self.start + 1 + label  # type: ignore[operator]

    def example_contexts(self, count: int) -> Contexts:
        if not self.config.classes:
            return super().example_contexts(count)
        return torch.arange(count) % (self.config.classes + 1) - 1

    @classmethod
    def load(
        cls,
        folder: str | Path,
        layout: Layout,
        *,
        start: int | None = None,
        offset: int = 0,
        classes: int = 0,
        **options: Any,
    ) -> "TransformersDecoder":
        """The decoder in a folder that `save_pretrained` wrote.

        Args:
            folder: with config.json and safetensors files.
            layout, start, offset: see `TransformersARM`; None: the start token is the model's BOS.
            classes: whose tokens follow `start`.
            options: of `AutoModelForCausalLM.from_pretrained`, such as dtype.

        Raises:
            InputError: there is no start token, or transformers cannot load the folder.
        """
        try:
            model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, **options)
        except (OSError, ImportError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"transformers cannot load {folder} ({error})") from error
        start = model.config.get_text_config().bos_token_id if start is None else start
        if not isinstance(start, int):
            raise InputError(f"{folder} names no BOS token; say which token stands before the first one: start=")
        fields = json.loads(model.config.to_json_string())
        kind = fields.pop("model_type")
        config = TransformersConfig(kind, classes=classes, start=start, offset=offset, options=fields)
        return cls(layout, config, model=model)
