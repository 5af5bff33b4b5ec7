"""Values of the wrong type are one sentence, also where nothing checks annotations, as in the programs of users."""

import subprocess
import sys
import textwrap

import pytest

from arm_core import InputError
from arm_core.errors import whole

CASES = """
    import numpy as np
    import torch
    from arm_core import InputError, Layout, ancestral_sample, sample_many, sample_noise, top_k
    from arm_core.arms import PixelCNN, PixelCNNConfig
    from arm_core.training import TrainingConfig

    layout = Layout(1, 4, 4, 2)
    arm = PixelCNN(layout, PixelCNNConfig(resnets=1, filters=4)).eval()
    noise = sample_noise(layout, seed=0, sample_ids=np.arange(2))
    assert torch.equal(noise, sample_noise(layout, seed=np.int64(0), sample_ids=torch.arange(2)))
    good = {"count": 2, "seed": 0, "slots": 2}
    many = {"count": [2.5, "2"], "seed": [1.9, True, None], "slots": [1.5], "first_id": [0.5], "window": [4.5, "auto"],
            "prefix": [[0, 1], torch.zeros(1, 4, 4).long(), torch.tensor(1)]}
    calls = [lambda n=name, v=value: sample_many(arm, **{**good, n: v}) for name in many for value in many[name]]
    calls += [lambda v=v: top_k(v) for v in (2.5, True, "3")]
    calls += [lambda v=v: sample_noise(layout, seed=0, sample_ids=v) for v in (3, [1.5], torch.tensor(2))]
    calls += [lambda v=v: PixelCNN(layout, PixelCNNConfig(resnets=v, filters=4)) for v in (1.5, "4", True)]
    calls += [lambda: ancestral_sample(arm, noise, prefix=[0, 1]), lambda: TrainingConfig(iterations=1.5)]
    for number, call in enumerate(calls):
        try:
            call()
        except InputError:
            continue
        raise SystemExit(f"case {number} was taken")
    print(len(calls))
"""


@pytest.mark.slow
def test_what_is_no_whole_number_is_refused_by_every_public_name():
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(CASES)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "23"), done.stderr


@pytest.mark.parametrize("value", [1.0, "1", True, None, 0, 11, float("nan")])
def test_the_rule_of_a_whole_number_names_the_value(value):
    with pytest.raises(InputError, match=r"n must be a whole number in \[1, 10\], got"):
        whole("n", value, 1, 10)
