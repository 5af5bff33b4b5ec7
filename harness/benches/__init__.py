"""`harness bench`: every sampler on one checkpoint."""
