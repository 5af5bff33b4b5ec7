"""Exact fast sampling of autoregressive models (ARMs): models, forecasters and samplers.

An ARM maps a flat integer sequence to logits that are strictly triangular in it. Given fixed Gumbel noise its sample is
a deterministic fixed point. A forecaster guesses the rest of the sequence, and the sampler keeps the prefix that the ARM
confirms.
"""

__all__ = []
