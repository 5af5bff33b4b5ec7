"""The moving picture: what it shows is what the samplers did."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from arm_core import AutoregressiveModel, Checkpoint, Layout, ancestral_sample, sample_noise, save_arm
from arm_core.arms import PixelCNN, PixelCNNConfig
from harness.cli import main
from harness.commands.animation import animate
from harness.sweep import SamplerSpec
from tests.harness.golden.make import unpack


class Whole(AutoregressiveModel):
    """An ARM without windows."""

    def __init__(self, inner):
        super().__init__(inner.layout, 0)
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def arm_of(kind):
    if kind == "grey, without windows":
        return Whole(PixelCNN(Layout(1, 4, 8, 4), PixelCNNConfig(resnets=1, filters=4))).eval()
    return PixelCNN(Layout(3, 8, 4, 4), PixelCNNConfig(resnets=1, filters=6)).eval()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grey, without windows", "colours, in windows"])
def test_every_frame_shows_the_samples_that_ancestral_sampling_gives(kind, tmp_path):
    arm = arm_of(kind)
    spec = SamplerSpec(forecaster="fixed_point_above", stream=True, window="auto")
    films = animate(Checkpoint(arm, None, None, {}, ""), spec, seed=3, slots=3, out=tmp_path / "how.gif")
    right = ancestral_sample(arm, sample_noise(arm.layout, seed=3, sample_ids=range(40))).x.numpy()
    for film in films:
        shown = {number for call in film.calls[: int(films[1].end / film.cost) + 1] for number in call.held}
        assert {0, 1, 2} <= shown <= set(film.images)
        assert all(np.array_equal(image, right[number]) for number, image in film.images.items() if number < 40)
        for call in film.calls[:-1]:  # the outputs before the frontier are final: each slot shows its own sample
            for slot, number in enumerate(call.held):
                known = call.known[slot]
                assert number not in film.images or np.array_equal(
                    call.guess[slot, :known], film.images[number][:known]
                )
    assert films[0].done(films[1].end) == 0 and films[1].done(films[1].end) == 3
    with Image.open(tmp_path / "how.gif") as picture:
        assert picture.n_frames > 10
        seen = np.array([colour for _, colour in picture.convert("RGB").getcolors(1 << 20)])
        for colour in [(215, 48, 31), (230, 159, 0), (86, 156, 214), (236, 236, 236), (255, 255, 255)]:
            assert np.abs(seen - colour).max(axis=1).min() < 5, f"{colour} of the legend has become another"


@pytest.mark.slow
def test_the_picture_of_the_committed_checkpoint_is_small_enough_for_a_page(tmp_path):
    out = tmp_path / "how.gif"
    result = CliRunner().invoke(main, ["sample", "results/checkpoint", "--animate", str(out), "--slots", "2"])
    assert result.exit_code == 0, result.output
    assert "ancestral 0, fixed point 2, windows" in result.output
    assert out.stat().st_size < 3 * 2**20


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--animate", "how.png"], "--animate must end in .gif, got how.png"),
        (["--animate", "how.gif", "--sampler", "ancestral"], "leave --sampler ancestral out"),
        ([], "add --out FILE.png, --out FILE.npz or --animate FILE.gif"),
    ],
)
def test_what_cannot_be_animated_is_refused_with_the_remedy(options, said, tmp_path):
    save_arm(arm_of("colours, in windows"), tmp_path / "arm")
    result = CliRunner().invoke(main, ["sample", str(tmp_path / "arm"), *options])
    assert result.exit_code == 2 and said in result.output


@pytest.mark.slow
def test_a_report_shows_how_samplers_draw(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unpack(tmp_path / "gold")
    save_arm(arm_of("colours, in windows"), "arm")

    def report(*options):
        command = ["report", "--store", "gold", "--out", "out", "--figures", "0", *options]
        return CliRunner().invoke(main, command)

    assert report("--animate", "arm").exit_code == 0
    page, made = (tmp_path / "out" / "index.html").read_text(), (tmp_path / "out" / "how.gif").read_bytes()
    assert "How samples come about" in page and "data:image/gif;base64,R0lGOD" in page and made.startswith(b"GIF8")
    (tmp_path / "mine.gif").write_bytes(made)
    assert report("--animate", "mine.gif").exit_code == 0
    assert (tmp_path / "out" / "index.html").read_text() == page
    assert report().exit_code == 0 and not (tmp_path / "out" / "how.gif").exists()
    assert "How samples come about" not in (tmp_path / "out" / "index.html").read_text()
    (tmp_path / "no.gif").write_text("no")
    for given, message in (
        ("no.gif", "is no GIF; `harness sample"),
        ("nowhere", "no checkpoint"),
        ("x.gif", "No such file"),
    ):
        refused = report("--animate", given)
        assert refused.exit_code == 2 and message in refused.output.replace("\n", " ")
