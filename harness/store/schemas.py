"""What the tables hold: a name, a type, a unit and a meaning for every column, and a version for every table.

This module owns the shape of the rows and the check of a row against it; where the rows lie is the matter of
`harness.store.store`. Numbers here are raw: whatever can be derived is derived on reading, by
`harness.report.statistics`.

Rules for a change: a new column must be nullable, and raises the version of its table; a column never changes
its meaning, it gets a new name.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from numbers import Integral
from typing import NamedTuple

import pyarrow as pa

from arm_core.registry import suggest

Row = Mapping[str, object]


class SchemaError(ValueError):
    """A row does not fit its table. The message names table, column and value; the fault is the writer's."""


class Column(NamedTuple):
    """One column: `unit` and `meaning` travel in the field metadata of every part."""

    name: str
    type: pa.DataType
    nullable: bool = False
    unit: str = ""
    meaning: str = ""


STRING, BOOL, BINARY = pa.string(), pa.bool_(), pa.binary()
INT32, INT64, FLOAT64 = pa.int32(), pa.int64(), pa.float64()
TIME = pa.timestamp("us", tz="UTC")


def _columns(names: str, kind: pa.DataType, *, nullable: bool = False, unit: str = "") -> list[Column]:
    return [Column(name, kind, nullable, unit) for name in names.split()]


_PROVENANCE = [
    Column("started_at", TIME, meaning="when the job started, UTC"),
    *_columns("host device cpu", STRING),
    Column("cores", INT32, meaning="cores of the machine"),
    Column("threads", INT32, meaning="threads that torch used"),
    Column("load_1m", FLOAT64, meaning="one-minute load average at the start"),
    Column("clock_mhz", FLOAT64, True, "MHz", "of the GPU, or the mean of the CPU's cores; of timings when they end"),
    Column("device_processes", INT32, True, "processes", "most other processes seen on the GPU or CPUs"),
    *_columns("python torch", STRING),
    Column("cuda", STRING, True),
    Column("package", STRING, meaning="version of this package"),
    Column("commit", STRING, True),
    Column("dirty", BOOL, True, meaning="the working tree differed from the commit"),
]

_JOB = Column("job", STRING, meaning="content hash of the job; what sweeps call it is in their records")

_ENDED = [
    Column("status", STRING, meaning="done, failed or stopped"),
    Column("error", STRING, True),
    Column("log", STRING, True, meaning="of a failed job: its log, relative to the store"),
    Column("log_tail", STRING, True, meaning="of a failed job: the last lines of its log"),
]

_DATA = [
    *_columns("dataset_name dataset_variant", STRING, nullable=True),
    Column("dataset_status", STRING, True, meaning="official, unverified or sample"),
    Column("dataset_sha256", STRING, True, meaning="of the pixels of all splits"),
]

_TRAINED = [
    _JOB,
    Column("seed", INT64, meaning="training seed"),
    *_ENDED,
    *_DATA,
    Column("dataset_split", STRING, True, meaning="how the splits were cut"),
    *_columns("channels height width categories", INT32, nullable=True),
    Column("training_config", STRING, meaning="JSON"),
    *_columns("parameters iterations", INT64, nullable=True),
    Column("kept", STRING, True, meaning="last or best: the weights in `checkpoint`, or those that made the latents"),
    Column("kept_step", INT64, True, "iterations"),
    Column("checkpoint_sha256", STRING, True),
    Column("wall_s", FLOAT64, True, "s"),
    Column("peak_mem_bytes", INT64, True, "bytes"),
    *_PROVENANCE,
]

_SAMPLER = Column("sampler", STRING, meaning="as it ran: JSON of its settings, those at their defaults left out")

_TRIALS = [
    *_TRAINED,
    Column("dims", INT32, True),
    Column("arm", STRING),
    Column("arm_config", STRING, meaning="JSON"),
    Column("forecasting_config", STRING, True, meaning="JSON; null without modules"),
    *_columns("train_bits_per_dim valid_bits_per_dim test_bits_per_dim", FLOAT64, nullable=True, unit="bits/dim"),
    Column("forecasting_kl_nats", FLOAT64, True, "nats"),
    Column("checkpoint", STRING, True, meaning="path relative to the store"),
    Column("best_step", INT64, True, "iterations", "of the lowest bits/dim on validation"),
    Column("best_valid_bits_per_dim", FLOAT64, True, "bits/dim"),
    Column("last_valid_bits_per_dim", FLOAT64, True, "bits/dim"),
    Column("train_eval_bits_per_dim", FLOAT64, True, "bits/dim", "kept weights, no dropout, first training images"),
    Column("autoencoder_job", STRING, True, meaning="the job whose latents are the data; null: images"),
    Column("init_from", STRING, True, meaning="the checkpoint that the weights started from"),
]

_AUTOENCODERS = [
    *_TRAINED,
    *_columns("latent_channels latent_height latent_width latent_categories", INT32, nullable=True),
    Column("latents_sha256", STRING, True, meaning="of the encoded splits, in their order"),
    Column("autoencoder_config", STRING, meaning="JSON"),
    *_columns("train_mse valid_mse test_mse", FLOAT64, nullable=True, unit="squared, images on [-1, 1]"),
    Column("codebook_used_fraction", FLOAT64, True, "", "share of (channel, category) pairs that occur in validation"),
    Column("codebook_perplexity", FLOAT64, True, "categories", "mean over the latent channels, validation"),
]

_CURVES = [
    _JOB,
    *_DATA,
    Column("step", INT64, False, "iterations"),
    Column("train_bits_per_dim", FLOAT64, True, "bits/dim"),
    Column("valid_bits_per_dim", FLOAT64, True, "bits/dim"),
    *_columns("train_mse valid_mse", FLOAT64, nullable=True, unit="squared, images on [-1, 1]"),
    Column("forecasting_kl_nats", FLOAT64, True, "nats"),
    Column("learning_rate", FLOAT64),
    Column("iterations_per_s", FLOAT64, False, "1/s"),
    Column("wall_s", FLOAT64, False, "s"),
]

_TIMINGS = [
    _JOB,
    Column("train_job", STRING, True, meaning="the training job whose checkpoint is timed; null: it was there before"),
    Column("train_seed", INT64),
    *_ENDED,
    *_DATA,
    Column("dims", INT32, True),
    Column("latents", BOOL, True, meaning="the ARM models an autoencoder's latents"),
    _SAMPLER._replace(nullable=True),
    Column("batch_size", INT32, True, "samples", "or slots"),
    Column("samples", INT32, True, "samples", "drawn in this repetition: a batch, or several a slot"),
    Column("seed", INT64, True, meaning="seed of the noise"),
    *_columns("dtype checkpoint_sha256", STRING, nullable=True),
    Column("run_order", INT32, True, meaning="place in the interleaved order"),
    Column("is_warmup", BOOL, True),
    Column("wall_s", FLOAT64, True, "s"),
    Column("arm_calls", pa.list_(INT32), True, "calls", "per sample"),
    Column("arm_work", pa.list_(FLOAT64), True, "full passes", "full-pass equivalents per sample"),
    Column("mistakes", pa.list_(INT32), True, "dims", "per sample"),
    Column("windows", pa.list_(INT32), True, "dims", "per sample: the window in use when it finished"),
    Column("repairs", pa.list_(INT32), True, "repairs", "per sample, where it was proved; part of its work"),
    Column(
        "exact_fraction",
        FLOAT64,
        True,
        "",
        "share of the samples with an ancestral twin that equal it; null if exact in law only",
    ),
    Column("smallest_gap", FLOAT64, True, "logits", "smallest top-2 gap at a first mismatch"),
    Column("busy", BOOL, True, meaning="something else used the machine"),
    Column("dims_per_call", pa.list_(INT32), True, "calls", "entry k: those that made k dims of a sample final"),
    Column("mistaken_per_call", pa.list_(INT32), True, "calls", "entry k: those of them that a wrong forecast ended"),
    Column("peak_mem_bytes", INT64, True, "bytes", "during the repetition"),
    Column("energy_j", FLOAT64, True, "J", "during the repetition: of the GPU, or of all processor packages"),
    *_PROVENANCE,
]

_MISTAKES = [
    _JOB,
    *_DATA,
    _SAMPLER,
    *_columns("row column channel", INT32),
    Column("samples", INT64, False, "samples", "figure samples counted"),
    Column("mistakes", INT64, False, "samples", "how many of them were mistaken here"),
    Column("mean_settled_at", FLOAT64, True, "calls", "first call from which the output stayed final"),
]

_SAMPLES = [
    _JOB,
    *_DATA,
    _SAMPLER,
    *_columns("seed sample_id", INT64),
    *_columns("channels height width categories", INT32),
    Column("image", BINARY, meaning="uint8, (C, H, W) order, values 0 .. categories - 1"),
    Column("mistakes", BINARY, meaning="uint8 0 or 1, (C, H, W) order"),
    Column("settled_at", pa.list_(INT32), True, "calls", "(C, H, W) order"),
    Column("exact", BOOL, meaning="equal to the ancestral sample"),
    Column("decoded", BINARY, True, meaning="image of latents, uint8 (C, H, W); null: `image` is one itself"),
    *_columns("decoded_channels decoded_height decoded_width decoded_categories", INT32, nullable=True),
]


def _schema(table: str, version: int, columns: Sequence[Column]) -> pa.Schema:
    fields = [pa.field(c.name, c.type, c.nullable, metadata={"unit": c.unit, "meaning": c.meaning}) for c in columns]
    return pa.schema(fields, metadata={"table": table, "version": str(version)})


SCHEMAS: dict[str, pa.Schema] = {
    "trials": _schema("trials", 5, _TRIALS),
    "curves": _schema("curves", 5, _CURVES),
    "autoencoders": _schema("autoencoders", 4, _AUTOENCODERS),
    "timings": _schema("timings", 8, _TIMINGS),
    "mistakes": _schema("mistakes", 6, _MISTAKES),
    "samples": _schema("samples", 7, _SAMPLES),
}
DECIDING = ("trials", "timings", "autoencoders")
"""The tables that say how a job ended; every job writes exactly one of them."""

STATUSES = ("done", "failed", "stopped")
"""How a job ended; `stopped` is a training that a search gave up early."""


def schema_of(table: str) -> pa.Schema:
    """The schema of a table; an unknown name is an InputError that lists the tables."""
    if table not in SCHEMAS:
        raise suggest("table", table, SCHEMAS)
    return SCHEMAS[table]


def version_of(schema: pa.Schema) -> int:
    """The version that a schema of ours carries in its metadata."""
    return int(schema.metadata[b"version"])


def to_arrow(table: str, rows: Sequence[Row]) -> pa.Table:
    """Rows as an Arrow table of exactly the table's schema.

    Args:
        table: one of `SCHEMAS`.
        rows: mappings; a nullable column may be left out.

    Raises:
        SchemaError: an unknown column, a missing value, or a value of another type; values are never rounded,
            cut or parsed to make them fit.
    """
    schema = schema_of(table)
    for row in rows:
        for name in row:
            if name not in schema.names:
                raise SchemaError(str(suggest(f"column of {table}", name, schema.names)))
    return pa.Table.from_arrays([_array(table, field, rows) for field in schema], schema=schema)


def _array(table: str, field: pa.Field, rows: Sequence[Row]) -> pa.Array:
    values = [row.get(field.name) for row in rows]
    for value in values:
        if not _fits(field, value):
            shown = repr(value)
            shown = shown if len(shown) <= 80 else shown[:77] + "..."
            rule = "have a value" if value is None else f"be {field.type}"
            rule = f"be {', '.join(STATUSES[:-1])} or {STATUSES[-1]}" if field.name == "status" else rule
            raise SchemaError(f"{table}.{field.name} must {rule}, got {shown}")
    return pa.array(values, type=field.type)


def _fits(field: pa.Field, value: object) -> bool:
    """Whether a value is of the field's type: Arrow would take a null, true as a number, a time without its zone."""
    if value is None or field.name == "status":
        return field.nullable if value is None else value in STATUSES
    items = value if isinstance(value, list | tuple) else [value]
    kind = field.type.value_type if pa.types.is_list(field.type) else field.type
    if (isinstance(value, datetime) and value.tzinfo is None) or any(_is_cut(kind, item) for item in items):
        return False
    try:
        pa.scalar(value, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, TypeError):
        return False
    return True


def _is_cut(kind: pa.DataType, item: object) -> bool:
    """Whether Arrow would quietly make another number of it, or nothing."""
    if pa.types.is_integer(kind):
        return isinstance(item, bool) or not isinstance(item, Integral)
    return pa.types.is_floating(kind) and (item is None or isinstance(item, bool))
