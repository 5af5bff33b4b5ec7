"""Tables as files: what is missing is named, and no rows are no fault."""

import pytest

from arm_core import InputError
from harness.store.parts import decode, encode
from harness.store.schemas import SCHEMAS

CURVES = SCHEMAS["curves"]


@pytest.mark.parametrize("first", [None, 5])
def test_a_table_without_rows_is_read_as_one(first):
    assert len(decode("curves", encode(CURVES.empty_table()), CURVES, ["job", "step"], first)) == 0


def test_a_table_that_lacks_a_column_which_must_be_there_is_refused_and_named():
    lacking = encode(CURVES.empty_table().drop_columns(["job"]))
    with pytest.raises(InputError, match=r"curves\.parquet has no column 'job'"):
        decode("curves.parquet", lacking, CURVES, ["step"])


def test_a_column_that_is_younger_than_the_table_is_null():
    optional = next(field.name for field in CURVES if field.nullable)
    rows = CURVES.empty_table().drop_columns([optional])
    assert decode("curves", encode(rows), CURVES, [optional]).schema.names == [optional]
