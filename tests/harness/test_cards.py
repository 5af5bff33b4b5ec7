"""Sample cards: the samples of a checkpoint, drawn again and proved on any machine."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from arm_core import load_arm, save_arm
from harness.cli import main
from harness.commands import sample

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "results/checkpoint"
CARDS = sorted((Path(__file__).parent / "cards").glob("*.json"))


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.slow
@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_the_golden_samples_of_the_checkpoint_are_drawn_again(card):
    result = run("verify", card, "--checkpoint", CHECKPOINT, "--slots", 5)
    assert result.exit_code == 0, result.output
    assert f"16 samples, drawn again in float64, are those of {card}" in result.output


@pytest.mark.slow
def test_a_card_says_what_its_samples_follow_from_and_samples_are_held_to_it(tmp_path, monkeypatch):
    loaded, load = [], sample.load
    monkeypatch.setattr(sample, "load", lambda *place, **how: loaded.append(place) or load(*place, **how))
    drawn = run("sample", CHECKPOINT, "--count", 3, "--seed", 4, "--top-p", 0.9, "--out", tmp_path / "x.npz", "--card")
    assert drawn.exit_code == 0, drawn.output
    assert len(loaded) == 1, "to draw and to hash"
    place = tmp_path / "x.card.json"
    card = json.loads(place.read_text())
    assert (card["seed"], card["count"], card["decision"], card["layout"]["width"]) == (4, 3, {"top_p": 0.9}, 28)
    proved = run("verify", place, "--samples", tmp_path / "x.npz", "--slots", 2)
    assert proved.exit_code == 0 and "3 samples, proved in float64, are those of" in proved.output
    arrays = dict(np.load(tmp_path / "x.npz"))
    arrays["images"][1, 0, 14, 14] ^= 1
    np.savez(tmp_path / "y.npz", **arrays)
    wrong = run("verify", place, "--samples", tmp_path / "y.npz")
    assert wrong.exit_code == 1 and "differ from those of" in wrong.output
    place.write_text(json.dumps({**card, "seed": 5}))  # the samples are those of the card, and not of its seed
    assert run("verify", place, "--samples", tmp_path / "x.npz").exit_code == 1


def test_what_no_card_can_say_is_refused(tmp_path):
    other = load_arm(CHECKPOINT)
    with torch.no_grad():
        other.head.bias += 1
    save_arm(other, tmp_path / "other")
    (tmp_path / "no.json").write_text("{}")
    changed = json.loads(CARDS[0].read_text()) | {"context_sha256": "0"}
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    for arguments, message in (
        (("verify", CARDS[0], "--checkpoint", tmp_path / "other"), "holds other weights than those of"),
        (("verify", tmp_path / "no.json"), "is no sample card"),
        (("verify", tmp_path / "changed.json", "--checkpoint", CHECKPOINT), "its contexts are not those"),
        (("sample", CHECKPOINT, "--sampler", "ancestral", "--card", "--out", tmp_path / "x.npz"), "leave --sampler"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and message in result.output, result.output
