"""What a GPU makes of the samplers: one command for the few minutes in which a GPU is at hand.

    make gpu OUT=DIR        the same: python -m benchmarks.gpu --out DIR

It needs no installation: torch, numpy, pandas, pyarrow, safetensors and jaxtyping, for one item transformers, and
`arm_core` beside it. It checks first and times after, writes every row at once, and ends within its budget.
`docs/gpu.md` tells how to read what it finds.
"""
