"""The results of sweeps as Parquet tables with versioned schemas (see `schemas` and `store`)."""

from harness.store.schemas import SCHEMAS, SchemaError
from harness.store.store import Ragged, Store

__all__ = ["SCHEMAS", "Ragged", "SchemaError", "Store"]
