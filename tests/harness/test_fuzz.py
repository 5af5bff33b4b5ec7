"""Sweep files, stores and checkpoints that nobody wrote: never a traceback, never a wrong table.

FUZZ_SWEEPS and FUZZ_STORES say how many; the nightly test makes 10,000 and 1,000, the others a few of each.
"""

import copy
import os
import random
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from arm_core import InputError, Layout, load_checkpoint, save_arm
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.testing import randomise
from harness.execution.monitor import describe, status_table
from harness.jobs.progress import Reporter, read_progress
from harness.report.selection import select
from harness.store import SCHEMAS, Store
from harness.sweep import job_from_json, load_sweep, make_plan
from tests.harness.golden import make

SWEEPS = [yaml.safe_load(file.read_text()) for file in sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))]
ODD = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf"), "", " ", "0", "1e-3", "ancestral",
    "learned", "zeros", "digits", "pixelcnn", "auto", "../../x", "/etc/passwd", "nowhere.py:x", "os:system", "a:b:c", "npz:/nowhere", ":", "é\u2028",
    "x" * 300, [], {}, [[]], [None], {"": None}, {"a": {"b": []}}, [1, 1], ["ancestral", "ancestral"], "2026-01-01", "!!python/object:os.system",
]  # fmt: skip
YAML_BITS = ["\t", ":", "- ", "\n", "&a", "*a", "? ", "{", "}", "[", "]", "'", '"', "|", ">", "%", "@", "!!", "<<: *a", "---\n", "\x00", "\ufeff", "~", "0x1F", "1_000", "12:30:45"]  # fmt: skip


def _said(error: InputError) -> str:
    """That something was refused, in a sentence."""
    if not str(error).strip() or "Traceback" in str(error):
        raise AssertionError(f"an error that says nothing: {error!r}")
    return "refused"


def places(value, place=()):
    """Every place of a nested value."""
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*place, key))


def mutated(draw: random.Random) -> str:
    """A sweep file with a few values exchanged, moved, renamed or taken out, now and then not even YAML."""
    data = copy.deepcopy(draw.choice(SWEEPS))
    for _ in range(draw.randint(1, 4)):
        *way, last = draw.choice([place for place in places(data) if place])
        target = data
        for key in way:
            target = target[key]
        match draw.randrange(5):
            case 0:
                del target[last]
            case 1 if isinstance(target, dict):
                target[draw.choice([last + "s", last.upper(), last[:-1], "name", "seeds", "arm", "training"])] = target[
                    last
                ]
            case 2:
                other = draw.choice([place for place in places(data) if place])
                moved = data
                for key in other:
                    moved = moved[key]
                target[last] = copy.deepcopy(moved)
            case _:
                target[last] = copy.deepcopy(draw.choice(ODD))
        if not data:
            break
    text = yaml.safe_dump(data, allow_unicode=True)
    for _ in range(draw.choice([0, 0, 0, 1, 3])):
        at = draw.randrange(len(text) + 1)
        text = text[:at] + draw.choice(YAML_BITS) + text[at + draw.choice([0, 0, 1, 20]) :]
    return text


def try_sweep(file: Path, text: str, draw: random.Random) -> str:
    """What becomes of a sweep file: "refused", or "planned" if its plan holds together."""
    file.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    profile = draw.choice([None, "laptop", "paper"])
    try:
        plan = make_plan(load_sweep(file, profile=profile), {})
    except InputError as refused:
        return _said(refused)
    ids = [planned.job.id for planned in plan.jobs]
    assert len(set(ids)) == len(ids) > 0
    assert [planned.job.id for planned in make_plan(load_sweep(file, profile=profile), {}).jobs] == ids
    assert all(job_from_json(planned.job.model_dump_json()) == planned.job for planned in plan.jobs)
    return "planned"


def fuzz_sweeps(count: int, folder: Path, seed: int) -> dict[str, int]:
    draw, found = random.Random(seed), {"refused": 0, "planned": 0}
    for number in range(count):
        text = mutated(draw)
        try:
            found[try_sweep(folder / "fuzz.yaml", text, draw)] += 1
        except Exception as error:  # with what it takes to see it again
            raise AssertionError(f"sweep file {number} of seed {seed}:\n{text}") from error
    return found


def damaged(data: bytes, others: list[bytes], draw: random.Random) -> bytes | None:
    """A file after something happened to it; None: it is gone."""
    at = draw.randrange(len(data) + 1)
    match draw.randrange(7):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + bytes(draw.randrange(256) for _ in range(draw.randint(1, 20))) + data[at:]
        case 2:
            return data[:at] + bytes(min(512, len(data) - at)) + data[at + 512 :]  # a block of zeros
        case 3:
            return b""
        case 4:
            return draw.choice(others)
        case 5 if draw.random() < 0.3:
            return None
    flipped = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 5])):
        flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(flipped)


def tables(store: Store) -> dict[str, dict[str, str]]:
    """Table -> job -> its rows as text; and what the sweeps call the jobs."""
    found = {}
    for name in SCHEMAS:
        frame = store.read(name)
        found[name] = {job: repr(part.to_dict("list")) for job, part in frame.groupby("job")}
    return {**found, "sweeps": {name: repr(record) for name, record in store.sweeps().items()}}


def try_store(root: Path, whole: dict[str, dict[str, str]], gone: str | None) -> str:
    """What is read of a damaged store: nothing ("refused"), or nothing but what was written ("the same")."""
    store = Store(root)
    try:
        found = tables(store)
        store.outcomes()
        for name, record in store.sweeps().items():
            status_table(store, name, record)
    except InputError as refused:
        return _said(refused)
    for name, parts in whole.items():
        expected = {job: rows for job, rows in parts.items() if job != gone}
        assert found[name] == expected, f"a wrong table {name}"
    return "the same"


@pytest.fixture
def small_store(tmp_path):
    """The store of a few jobs and two sweeps."""
    return make.unpack(tmp_path / "store")


def fuzz_stores(count: int, store: Store, scratch: Path, seed: int) -> dict[str, int]:
    draw, found, whole = random.Random(seed), {"refused": 0, "the same": 0}, tables(store)
    files = sorted(path for path in store.root.rglob("*") if path.is_file() and path.suffix in (".parquet", ".json"))
    contents = [path.read_bytes() for path in files]
    for number in range(count):
        index = draw.randrange(len(files))
        changed = damaged(contents[index], contents, draw)
        place = files[index]
        # a job without its done.json has not been run, and a sweep without a record neither
        gone = place.parent.name if place.name == "done.json" else place.stem
        place.unlink() if changed is None else place.write_bytes(changed)
        try:
            found[try_store(store.root, whole, gone if changed is None else None)] += 1
            select(store)  # what cannot be read is left out, records aside
        except InputError as refused:
            if place.parent.name != "sweeps":
                raise AssertionError(f"damage {number} of seed {seed} to {place}") from refused
        except Exception as error:
            (scratch / "damaged").write_bytes(changed or b"")
            raise AssertionError(f"damage {number} of seed {seed} to {place}") from error
        finally:
            place.write_bytes(contents[index])
    return found


def fuzz_checkpoints(count: int, folder: Path, seed: int) -> dict[str, int]:
    draw, found = random.Random(seed), {"refused": 0, "the same": 0}
    arm = PixelCNN(Layout(1, 4, 4, 3), PixelCNNConfig(resnets=1, filters=4))
    randomise(arm)
    save_arm(arm, folder / "whole", metadata={"a": 1})
    expected = load_checkpoint(folder / "whole").arm.state_dict()
    files = sorted((folder / "whole").iterdir())
    contents = [path.read_bytes() for path in files]
    for number in range(count):
        place = folder / "damaged"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder / "whole", place)
        index = draw.randrange(len(files))
        changed = damaged(contents[index], contents, draw)
        target = place / files[index].name
        target.unlink() if changed is None else target.write_bytes(changed)
        try:
            read = load_checkpoint(place)
        except InputError as refused:
            found[_said(refused)] += 1
            continue
        except Exception as error:
            raise AssertionError(f"damage {number} of seed {seed} to {target.name}") from error
        assert read.metadata == {"a": 1} and all(torch.equal(v, expected[k]) for k, v in read.arm.state_dict().items())
        found["the same"] += 1
    return found


def fuzz_progress(count: int, folder: Path, seed: int) -> dict[str, int]:
    """What a job says of itself is readable or nothing."""
    draw, found = random.Random(seed), {"refused": 0, "the same": 0}
    Reporter(folder, "a", "train", "a title", unit="steps").update(3, 3, metrics={"it/s": 1.5})
    whole = (folder / "progress.json").read_bytes()
    for number in range(count):
        changed = damaged(whole, [whole, b"{}"], draw)
        (folder / "progress.json").write_bytes(changed or b"")
        try:
            said = read_progress(folder)
            if said is not None:
                describe(said)
        except Exception as error:
            raise AssertionError(f"damage {number} of seed {seed}: {changed!r}") from error
        found["refused" if said is None else "the same"] += 1
    return found


@pytest.mark.slow
def test_a_few_hundred_generated_sweep_files_are_planned_or_refused_with_a_sentence(tmp_path):
    found = fuzz_sweeps(300, tmp_path, seed=0)
    assert min(found.values()) > 20, found


@pytest.mark.slow
def test_a_damaged_store_gives_an_error_or_the_rows_that_were_written(small_store, tmp_path):
    found = fuzz_stores(30, small_store, tmp_path, seed=0)
    assert found["refused"] > 10, found


def test_a_damaged_checkpoint_gives_an_error_or_the_weights_that_were_saved(tmp_path):
    found = fuzz_checkpoints(60, tmp_path, seed=0)
    assert found["refused"] > 20, found


def test_damaged_progress_is_readable_or_none(tmp_path):
    found = fuzz_progress(400, tmp_path, seed=0)
    assert min(found.values()) > 20, found


@pytest.mark.nightly
@pytest.mark.timeout(7200)
def test_ten_thousand_sweep_files_and_a_thousand_stores_and_checkpoints(small_store, tmp_path):
    sweeps, stores = int(os.environ.get("FUZZ_SWEEPS", "10000")), int(os.environ.get("FUZZ_STORES", "1000"))
    seed = int(os.environ.get("FUZZ_SEED", "1"))
    print("sweep files:", fuzz_sweeps(sweeps, tmp_path, seed))
    print("stores:", fuzz_stores(stores, small_store, tmp_path, seed))
    print("progress:", fuzz_progress(stores, tmp_path, seed))
    print("checkpoints:", fuzz_checkpoints(stores, tmp_path, seed))
