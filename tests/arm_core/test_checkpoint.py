import json
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arm_core import InputError, Layout, load_arm, load_checkpoint, save_arm
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.forecasters import ForecastingConfig, ForecastingModules
from tests.conftest import TableArm

LAYOUT = Layout(1, 4, 4, 3)


def build():
    arm = PixelCNN(LAYOUT, PixelCNNConfig(resnets=1, filters=4))
    return arm, ForecastingModules(LAYOUT, ForecastingConfig(horizon=2, filters=4), arm.hidden_features)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    place = tmp_path_factory.mktemp("saved") / "arm"
    arm, modules = build()
    save_arm(arm, place, modules=modules, metadata={"seed": 3})
    return place


def test_what_is_saved_is_loaded(tmp_path):
    arm, modules = build()
    sha256 = save_arm(arm, tmp_path / "arm", modules=modules, metadata={"seed": 3})
    loaded = load_checkpoint(tmp_path / "arm")
    x = torch.zeros(2, 16, dtype=torch.int64)
    expected, got = arm.eval()(x), loaded.arm(x)
    assert torch.equal(expected.logits, got.logits)
    assert torch.equal(modules(expected.hidden), loaded.modules(got.hidden))
    assert loaded.metadata == {"seed": 3}
    assert loaded.sha256 == sha256
    assert not loaded.arm.training


def test_the_saved_dtype_is_kept_unless_another_is_asked_for(tmp_path):
    arm, _ = build()
    save_arm(arm.double(), tmp_path / "arm")
    assert load_arm(tmp_path / "arm").head.weight.dtype == torch.float64
    assert load_arm(tmp_path / "arm", dtype=torch.float32).head.weight.dtype == torch.float32


def test_rounded_weights_take_half_the_space_and_load_in_the_type_they_had(tmp_path):
    arm, modules = build()
    save_arm(arm, tmp_path / "whole", modules=modules)
    save_arm(arm, tmp_path / "half", modules=modules, rounded=torch.float16)
    loaded = load_checkpoint(tmp_path / "half")
    for made, found in ((arm, loaded.arm), (modules, loaded.modules)):
        for name, value in made.state_dict().items():
            kept = value.half().float() if value.is_floating_point() else value
            assert torch.equal(found.state_dict()[name], kept), name
    whole, half = (sum(f.stat().st_size for f in (tmp_path / name).glob("*.safetensors")) for name in ("whole", "half"))
    assert half < 0.7 * whole
    assert next(load_checkpoint(tmp_path / "half", dtype=torch.float64).arm.parameters()).dtype == torch.float64


@given(st.data())
def test_one_flipped_byte_anywhere_is_noticed(saved, data):
    file = data.draw(st.sampled_from(sorted(saved.iterdir())))
    content = file.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            load_checkpoint(saved)
    finally:
        file.write_bytes(content)


def test_a_missing_file_and_a_missing_checkpoint_are_named(tmp_path):
    arm, _ = build()
    save_arm(arm, tmp_path / "arm")
    next((tmp_path / "arm").glob("*.safetensors")).unlink()
    with pytest.raises(InputError, match=r"arm-.*\.safetensors cannot be read"):
        load_arm(tmp_path / "arm")
    with pytest.raises(InputError, match="is no checkpoint"):
        load_arm(tmp_path / "nowhere")
    save_arm(arm, tmp_path / "job" / "checkpoint")
    with pytest.raises(InputError, match="does not exist; give .*job/checkpoint"):
        load_arm(tmp_path / "job")


def test_saving_again_replaces_the_whole_checkpoint(tmp_path):
    for _ in range(2):
        arm, modules = build()
        save_arm(arm, tmp_path / "arm", modules=modules)
    save_arm(arm, tmp_path / "arm")
    assert len(list((tmp_path / "arm").iterdir())) == 2
    assert load_checkpoint(tmp_path / "arm").modules is None


def test_a_folder_with_other_files_is_not_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="is no checkpoint"):
        save_arm(build()[0], tmp_path)


def test_an_unregistered_class_must_be_passed_in(tmp_path):
    arm = TableArm(LAYOUT)
    save_arm(arm, tmp_path / "arm")
    with pytest.raises(InputError, match="pass the class"):
        load_arm(tmp_path / "arm")
    loaded = load_arm(tmp_path / "arm", arm=TableArm)
    assert torch.equal(loaded.table, arm.table)


def test_a_class_that_the_checkpoint_is_not_of_is_refused(saved):
    with pytest.raises(InputError, match=r"holds a pixelcnn, not a TableArm; leave that class \(--arm\) out"):
        load_arm(saved, arm=TableArm)


def test_a_pickle_is_never_executed(saved, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    weights = next(saved.glob("arm-*.safetensors"))
    content = weights.read_bytes()
    try:
        weights.write_bytes(pickle.dumps(Trap()))
        with pytest.raises(InputError, match="damaged"):
            load_checkpoint(saved)
    finally:
        weights.write_bytes(content)
    assert not (tmp_path / "executed").exists()


def test_metadata_that_is_not_json_is_refused(tmp_path):
    with pytest.raises(InputError, match="JSON"):
        save_arm(build()[0], tmp_path / "arm", metadata={"x": torch.zeros(1)})
    assert not (tmp_path / "arm" / "manifest.json").exists()


def test_a_newer_format_is_refused_by_name(saved):
    from arm_core.checkpoint import _seal

    place = saved / "manifest.json"
    content = place.read_bytes()
    manifest = json.loads(content)
    manifest.pop("sha256")
    try:
        place.write_bytes(_seal({**manifest, "format": 99}))
        with pytest.raises(InputError, match="format 99, this version reads 1"):
            load_checkpoint(saved)
    finally:
        place.write_bytes(content)
