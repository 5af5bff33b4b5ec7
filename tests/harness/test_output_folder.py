"""A folder that is written to is its user's: what is not ours stays as it is, and a taken name is refused."""

import pytest

from arm_core import InputError, Layout, save_arm
from arm_core.arms import PixelCNN, PixelCNNConfig
from harness.report import write_report
from harness.report.folder import LIST, published
from tests.harness.golden import make


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    return make.unpack(tmp_path_factory.mktemp("golden") / "store")


def write(out, **files):
    with published(out) as place:
        for name, text in files.items():
            (place / "figures").mkdir(exist_ok=True)
            (place / name.replace("__", "/")).with_suffix(".csv").write_text(text)


def files(folder):
    """What is in a folder, but for the list."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop(LIST, None)
    return found


@pytest.mark.slow
def test_a_report_leaves_the_files_of_others_alone(golden, tmp_path, figures_once):
    (tmp_path / "figures").mkdir()
    theirs = ["figures/mine.png", "figures/mine.svg", "figures/mine.pdf", "trials.csv", "table1-mine.tex", "diff.md"]
    for name in theirs:
        (tmp_path / name).write_text("mine")
    for figures in (1, 0):
        report = write_report(golden, tmp_path, sweeps=["third"], figures=figures)
    assert all((tmp_path / name).read_text() == "mine" for name in theirs)
    written = {str(path.relative_to(tmp_path)) for path in report.files}
    assert set(files(tmp_path)) == {*theirs, *written}
    assert {line.split("  ")[1] for line in (tmp_path / LIST).read_text().splitlines()[1:]} == written


@pytest.mark.parametrize("name", ["models.csv", "index.html", pytest.param("figures", marks=pytest.mark.slow)])
def test_a_report_refuses_a_name_that_is_taken_and_writes_nothing(golden, tmp_path, name, figures_once):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=rf"not of an earlier report.*{name}.*nothing was written: move them away"):
        write_report(golden, tmp_path, sweeps=["third"], figures=int(name == "figures"))
    assert files(tmp_path) == {name: b"mine"}


def test_what_was_changed_since_it_was_written_is_neither_replaced_nor_removed(tmp_path):
    write(tmp_path, a="1", figures__b="1")
    (tmp_path / "a.csv").write_text("edited")
    with pytest.raises(InputError, match=r"changed since: a\.csv"):
        write(tmp_path, a="2")
    write(tmp_path, figures__b="2")
    assert files(tmp_path) == {"a.csv": b"edited", "figures/b.csv": b"2"}


def test_what_is_no_longer_written_is_removed(tmp_path):
    write(tmp_path, a="1", figures__b="1")
    write(tmp_path, a="2")
    assert files(tmp_path) == {"a.csv": b"2"}


def test_a_writer_that_was_stopped_half_way_finds_its_files_again(tmp_path, monkeypatch):
    import harness.report.folder as folder

    write(tmp_path, a="1", b="1")
    move, calls = folder.os.replace, []
    with monkeypatch.context() as patch:

        def stopped(source, target):
            calls.append(target)
            if len([call for call in calls if str(call).endswith(".csv")]) == 2:
                raise KeyboardInterrupt
            move(source, target)

        patch.setattr(folder.os, "replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, a="2", b="2")
    assert files(tmp_path) == {"a.csv": b"2", "b.csv": b"1"}
    write(tmp_path, a="3")
    assert files(tmp_path) == {"a.csv": b"3"}


def test_a_list_of_another_kind_is_refused(tmp_path):
    (tmp_path / LIST).write_text("mine")
    with pytest.raises(InputError, match="is not the list that harness writes there"):
        write(tmp_path, a="1")


def test_a_checkpoint_leaves_the_weights_of_others_alone(tmp_path):
    arm = PixelCNN(Layout(1, 4, 4, 2), PixelCNNConfig(resnets=1, filters=4))
    save_arm(arm, tmp_path / "arm")
    for name in ("mine.safetensors", ".notes.tmp"):
        (tmp_path / "arm" / name).write_text("mine")
    arm.requires_grad_(False).get_parameter(next(name for name, _ in arm.named_parameters())).add_(1)
    save_arm(arm, tmp_path / "arm")
    names = sorted(path.name for path in (tmp_path / "arm").iterdir())
    assert len(names) == 4 and {"mine.safetensors", ".notes.tmp", "manifest.json"} < set(names)
