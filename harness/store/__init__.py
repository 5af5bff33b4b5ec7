"""The results of sweeps as Parquet tables with versioned schemas (see `schemas` and `store`)."""

from harness.store.schemas import SCHEMAS, SchemaError
from harness.store.store import Store

__all__ = ["SCHEMAS", "SchemaError", "Store"]
