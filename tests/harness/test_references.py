"""Published numbers from a user's file."""

import pytest

from arm_core import InputError
from harness.report import write_report
from harness.report.references import load_references
from tests.harness.golden import make

GOOD = """dataset,sampler,batch_size,quantity,value,std,source
svhn,fixed point,1,calls_percent,12.3,0.4,"Table 1"
svhn,,,bits_per_dim,1.5,,
svhn,fixed point,16,speedup,3.0,,
"""


@pytest.fixture
def file(tmp_path):
    def write(text):
        place = tmp_path / "published.csv"
        place.write_text(text)
        return place

    return write


def test_published_numbers_stand_beside_the_measured_ones(file, tmp_path):
    store = make.unpack(tmp_path / "store")
    report = write_report(store, tmp_path / "out", reference=file(GOOD), figures=0)
    text = (tmp_path / "out" / "table1-official.md").read_text()
    assert "published ARM calls (%)" in text and "12.3 ± 0.4" in text and "(published: 1.5 bits/dim)" in text
    assert "published" not in (tmp_path / "out" / "table1-sample.md").read_text()
    assert "The published speedup of svhn fixed point stands beside no row of this report." in report.left_out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset,quantity\nsvhn,speedup\n", "has no column 'value'"),
        ("dataset,quantity,valu\nsvhn,speedup,1\n", "Did you mean 'value'"),
        ("dataset,quantity,value\nsvhn,speedups,1\n", "line 2: unknown quantity 'speedups'. Did you mean 'speedup'"),
        ("dataset,quantity,value\nsvhn,mse,fast\n", "line 2: value must be a number, got 'fast'"),
        ("dataset,quantity,value\nsvhn,speedup,1\n", "give sampler and batch_size"),
        ("dataset,quantity,value\n,mse,1\n", "must not be empty"),
        ("", "cannot be read as CSV"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_line(file, text, message):
    with pytest.raises(InputError, match=message):
        load_references(file(text))


def test_a_file_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_references(tmp_path / "nothing.csv")
