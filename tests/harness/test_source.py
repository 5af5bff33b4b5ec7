"""Sweep files as YAML: what two versions of the language read differently, what repeats, what never ends."""

import math

import pytest

from arm_core import InputError
from harness.sweep.source import read_source


@pytest.fixture
def read(tmp_path):
    def read(text):
        (tmp_path / "x.yaml").write_text(text)
        return read_source(tmp_path / "x.yaml")

    return read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0),
        ("1.5e3", 1500.0),
        ("1.5E+3", 1500.0),
        ("2e-3", 0.002),
        ("-.5", -0.5),
        ("+1", 1),
        ("0x1F", 31),
        ("-.inf", -math.inf),
        ("TRUE", True),
        ("tRue", "tRue"),
        ("~", None),
        ("", None),
        ("'010'", "010"),
        ("!!str 010", "010"),
        ("!!float 3", 3.0),
        ("'yes'", "yes"),
        ("1:2:3 a", "1:2:3 a"),
    ],
)
def test_scalars_are_what_yaml_1_2_says(read, text, value):
    found = read(f"a: {text}").data["a"]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("010", "8", "10"),
        ("08", "text", "8"),
        ("0o10", "text", "8"),
        ("0b11", "3", "text"),
        ("1_000", "1000", "text"),
        ("3.0_1", "3.01", "text"),
        ("1:10", "70", "text"),
        ("1:30.5", "90.5", "text"),
        ("yes", "true", "text"),
        ("Off", "false", "text"),
        ("y", "true", "text"),
        ("N", "false", "text"),
        ("2024-01-01", "a date", "text"),
        ("2001-12-14 21:59:43.10 -5", "a date", "text"),
    ],
)
def test_what_two_versions_of_yaml_read_differently_is_an_error_with_its_line(read, text, old, new):
    for written in (f"a: 1\nb: {{c: [{text}]}}", f"a: 1\n{text}: 1"):
        with pytest.raises(InputError) as caught:
            read(written)
        said = (
            f"{text} is {old} in YAML 1.1 and {new} in YAML 1.2; write the number plainly, true or false, or put text"
        )
        assert f"x.yaml:2: {'b.c.0: ' if 'b:' in written else ''}{said}" in str(caught.value)


@pytest.mark.parametrize("text", ["2024-13-45", "9" * 5000])
def test_what_python_cannot_read_is_no_traceback(read, text):
    for written in (f"a: {text}", f"? {text}\n: a"):
        with pytest.raises(InputError, match=r"x\.yaml:1: .*cannot be read .*; put text in quotes"):
            read(written)


def test_a_mapping_may_begin_as_another_one(read):
    source = read("a: &a {x: 1, k: {z: 1}}\nb: {k: 3, <<: *a}\nc:\n  <<: [*a, {x: 9, w: 4}]\n  w: 5\n")
    assert source.data["b"] == {"x": 1, "k": 3}
    assert source.data["c"] == {"x": 1, "k": {"z": 1}, "w": 5}, "the first base counts, and what is said itself"
    assert source.lines["b", "k"] == 2 and source.lines["c", "k", "z"] == 1 and source.lines["c", "w"] == 5
    with pytest.raises(InputError, match=r"x\.yaml:2: << takes a mapping, or a list of them"):
        read("a: 1\nb: {<<: 3}")


LISTS = "a0: &a0 [x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
PAIRS = "a0: &a0 {k: v}\n" + "".join(f"a{i}: &a{i} {{l: *a{i - 1}, r: *a{i - 1}}}\n" for i in range(1, 40))
MERGED = "a0: &a0 {k: v}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))


@pytest.mark.parametrize("text", [LISTS, PAIRS, MERGED], ids=["lists", "mappings", "merged"])
def test_aliases_that_multiply_are_refused_before_they_are_read(read, text):
    with pytest.raises(InputError, match=r"x\.yaml:\d+: more than 30,000 values; aliases of aliases multiply"):
        read(text)
