"""Samplers that others have published, to measure ours beside them. One file a source.

Those of `song` and `ramachandran` solve x = argmax(logits(x) + noise), whose solution is unique, since row i of the
logits reads x_<i only: the same noise, the same samples. Those of `sjd`, `scd` and `pac` are exact in law only. All
let a batch go on until its slowest sample is done; the latter can go through slots too.
"""
