"""The example of class conditions, on the checkpoint that comes along."""

import pytest
import torch

from arm_core import ancestral_sample, load_arm, predictive_sample, sample_noise, top_p
from arm_core.arms import Guided
from arm_core.forecasters import fixed_point_above
from examples import ten_digits


@pytest.mark.slow
def test_a_row_a_class_under_every_scale(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ten_digits, "EACH", 2)
    ten_digits.main("results/conditional/checkpoint", str(tmp_path / "ten.png"))
    assert (tmp_path / "ten.png").stat().st_size > 1000
    assert "rows are the classes 0 to 9, blocks the scales 0.0, 1.0, 3.0" in capsys.readouterr().out


@pytest.mark.slow
def test_guided_samples_of_the_checkpoint_are_those_of_whole_passes():
    """In float64; ancestral sampling takes a pass a dimension, so that it is given all but the last two rows."""
    arm = load_arm("results/conditional/checkpoint", dtype=torch.float64)
    guided = Guided(arm, scale=3.0, null_context=-1)
    options = {"context": torch.tensor([7, 3]), "logits_processor": top_p(0.95)}
    noise = sample_noise(arm.layout, seed=10, sample_ids=range(2), dtype=torch.float64)
    x = predictive_sample(guided, noise, fixed_point_above, window=28, **options).x
    assert torch.equal(predictive_sample(guided, noise, fixed_point_above, **options).x, x)
    assert torch.equal(ancestral_sample(guided, noise, prefix=x[:, :-56], **options).x, x)
