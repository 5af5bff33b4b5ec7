"""The results of sweeps as Parquet tables with versioned schemas (see `schemas` and `store`)."""

from harness.store.schemas import SCHEMAS, SchemaError
from harness.store.store import Ragged, Store, job_folder

__all__ = ["SCHEMAS", "Ragged", "SchemaError", "Store", "job_folder"]
