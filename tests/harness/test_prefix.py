"""`harness sample --prefix`: images whose first rows are kept."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from arm_core import Checkpoint, Layout, save_arm
from arm_core.arms import PixelCNN, PixelCNNConfig
from arm_core.latents import AutoencoderConfig, DiscreteAutoencoder
from arm_core.testing import randomise
from harness.cli import main
from harness.commands import sample as module
from harness.commands.prefix import read_prefix
from harness.jobs.latents import sequences, shown

COLOUR = Layout(3, 8, 4, 5)


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def arm_of(layout):
    arm = PixelCNN(layout, PixelCNNConfig(resnets=1, filters=6))
    randomise(arm)
    return arm.eval()


def of(layout, autoencoder=None, **metadata):
    return Checkpoint(arm_of(layout), None, autoencoder, metadata, "")


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    """A checkpoint, and the samples that the command draws from it."""
    place = tmp_path_factory.mktemp("colour")
    save_arm(arm_of(COLOUR), place / "arm")
    drawn = run("sample", place / "arm", "--count", 3, "--out", place / "whole.npz")
    assert drawn.exit_code == 0, drawn.output
    return place


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [(), ("--sampler", "ancestral", "--slots", 2), ("--window", 3, "--certified")])
def test_samples_of_a_colour_model_keep_the_first_rows_in_all_channels(colour, sampler, tmp_path):
    out = tmp_path / "x.npz"
    ran = run(
        "sample", colour / "arm", "--prefix", colour / "whole.npz", "--keep", 3, "--count", 7, "--seed", 4,
        "--out", out, *sampler,
    )  # fmt: skip
    assert ran.exit_code == 0 and "of the 60 that ancestral" in ran.output, ran.output
    given, drawn = np.load(colour / "whole.npz")["images"], np.load(out)["images"]
    for number, image in enumerate(drawn):
        assert np.array_equal(image[:, :3], given[number % 3][:, :3])
        assert not np.array_equal(image, given[number % 3])
    assert not np.array_equal(drawn[0], drawn[3]), "each sample has noise of its own"


@pytest.mark.slow
def test_samplers_complete_alike_and_half_of_the_image_is_kept_unless_told(colour, tmp_path):
    drawn = []
    for options in ((), ("--sampler", "ancestral"), ("--window", 2, "--slots", 1)):
        out = tmp_path / "x.npz"
        ran = run("sample", colour / "arm", "--prefix", colour / "whole.npz", "--count", 4, "--out", out, *options)
        assert ran.exit_code == 0 and "of the 48 that" in ran.output, ran.output
        drawn.append(np.load(out)["images"])
    assert np.array_equal(drawn[0], drawn[1]) and np.array_equal(drawn[0], drawn[2])


def test_arrays_may_have_their_channels_last_or_be_a_single_image(tmp_path):
    images = torch.randint(0, 5, (2, 3, 8, 4)).numpy()
    right = COLOUR.flatten(torch.from_numpy(images))[:, :12]
    np.save(tmp_path / "last.npy", images.transpose(0, 2, 3, 1))
    np.savez(tmp_path / "one.npz", anything=images[0])
    assert torch.equal(read_prefix(tmp_path / "last.npy", of(COLOUR), keep=1), right)
    assert torch.equal(read_prefix(tmp_path / "one.npz", of(COLOUR), keep=1), right[:1])
    grey = Layout(1, 4, 8, 2)
    np.save(tmp_path / "grey.npy", images[:, 0].transpose(0, 2, 1) > 2)
    assert read_prefix(tmp_path / "grey.npy", of(grey), keep=2).shape == (2, 16)


def test_a_picture_has_the_values_that_it_was_made_of(tmp_path):
    for categories in (2, 3, 17, 28, 32, 100, 255, 256):
        layout = Layout(1, 16, 16, categories)
        images = (np.arange(256).reshape(1, 1, 16, 16) * categories) // 256
        module._save_grid(images.astype(np.uint8), layout, tmp_path / "grid.png")
        scale = 512 // 17
        with Image.open(tmp_path / "grid.png") as grid:
            grid.crop((scale, scale, 17 * scale, 17 * scale)).resize((16, 16), Image.Resampling.NEAREST).save(
                tmp_path / "one.png"
            )
        found = module.read_prefix(tmp_path / "one.png", _Shell(layout), keep=15)
        assert np.array_equal(found.numpy()[0], images.reshape(-1)[:240])


class _Shell:
    """As much of a checkpoint as a picture needs."""

    def __init__(self, layout):
        self.arm, self.autoencoder, self.metadata = type("Arm", (), {"layout": layout}), None, {}


def test_images_become_the_sequences_that_show_them():
    layout = Layout(1, 4, 4, 16)
    patches, x = of(layout, patches=2), torch.randint(0, 16, (3, 16))
    images = shown(patches, x.to(torch.uint8))
    assert images.shape == (3, 1, 8, 8) and torch.equal(sequences(patches, images), x)
    autoencoder = DiscreteAutoencoder(Layout(3, 16, 16, 256), AutoencoderConfig(width=8, channels=2, categories=4))
    latent = of(autoencoder.latent_layout, autoencoder)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    found = sequences(latent, images)
    assert torch.equal(autoencoder.latent_layout.unflatten(found), autoencoder.encode(images))


def test_samples_of_latents_keep_their_own_latents(tmp_path):
    autoencoder = DiscreteAutoencoder(Layout(1, 16, 16, 8), AutoencoderConfig(width=8, channels=2, categories=4))
    latent = of(autoencoder.latent_layout, autoencoder)
    codes = np.random.default_rng(0).integers(0, 4, (3, 2, 4, 4))
    np.savez(tmp_path / "x.npz", images=np.zeros((3, 1, 16, 16), np.uint8), latents=codes)
    found = read_prefix(tmp_path / "x.npz", latent, keep=12)
    assert torch.equal(found, latent.arm.layout.flatten(torch.from_numpy(codes))[:, :24])


def test_rows_of_latents_and_patches_are_counted_in_the_image(tmp_path):
    patches = of(Layout(1, 4, 4, 16), patches=2)
    np.save(tmp_path / "x.npy", np.zeros((1, 8, 8), int))
    assert read_prefix(tmp_path / "x.npy", patches, keep=6).shape == (1, 12)
    assert read_prefix(tmp_path / "x.npy", patches, keep=None).shape == (1, 8)
    with pytest.raises(module.InputError, match=r"rows in \[2, 6\], a multiple of 2, got 3"):
        read_prefix(tmp_path / "x.npy", patches, keep=3)


WHOLE = np.zeros((2, 3, 8, 4), int)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (WHOLE / 2, (), "must hold whole numbers in [0, 4], got float64; from values in [0, 1]: numpy.rint"),
        (WHOLE + 200, (), "values in [0, 4], as the model was trained on, got 200 to 200; from 256 levels"),
        (WHOLE - 1, (), "got -1 to -1"),
        (WHOLE[:, :1], (), "must hold images of (channels, height, width) = (3, 8, 4), got (2, 1, 8, 4)"),
        (WHOLE[:0], (), "must hold images of"),
        (WHOLE, ("--keep", 8), "--keep must be a number of rows in [1, 7], got 8"),
        (WHOLE, ("--keep", 0), "--keep must be a number of rows in [1, 7], got 0"),
        (WHOLE, ("--card",), "--card is for whole samples; leave it or --prefix out"),
        ({"a": WHOLE, "b": WHOLE}, (), "must hold an array `images`, it has a, b; rename one"),
        ({"a": np.array([None])}, (), "must be a .npz, a .npy or a picture; it cannot be read"),
        (b"text", (), "must be a .npz, a .npy or a picture; it cannot be read"),
        (None, (), "No such file or directory; give another path"),
    ],
)
def test_what_is_no_prefix_is_one_message(colour, content, options, message, tmp_path):
    file = tmp_path / "x.npz"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        np.savez(file, **(content if isinstance(content, dict) else {"images": content}))
    ran = run("sample", colour / "arm", "--prefix", file, "--out", tmp_path / "out.png", *options)
    assert ran.exit_code == 2 and message in ran.output.replace("\n", " "), ran.output


def test_a_picture_of_another_size_or_without_its_prefix_is_one_message(colour, tmp_path):
    Image.new("L", (40, 30)).save(tmp_path / "x.png")
    ran = run("sample", colour / "arm", "--prefix", tmp_path / "x.png", "--out", tmp_path / "out.png")
    assert ran.exit_code == 2 and '.convert("RGB").resize((4, 8))' in ran.output.replace("\n", " ")
    ran = run("sample", colour / "arm", "--prefix", colour / "whole.npz", "--out", tmp_path / "how.gif")
    assert ran.exit_code == 2 and "--animate is for whole samples; leave it or --prefix out" in ran.output
    ran = run("sample", colour / "arm", "--keep", 3, "--out", tmp_path / "out.png")
    assert ran.exit_code == 2 and "add --prefix FILE" in ran.output


@pytest.mark.slow
def test_ancestral_samples_are_told_of_call_by_call(colour, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "LINE_S", -1.0)
    ran = run(
        "sample", colour / "arm", "--sampler", "ancestral", "--count", 3, "--slots", 2, "--out", tmp_path / "x.npz"
    )
    assert ran.exit_code == 0, ran.output
    lines = [line for line in ran.output.splitlines() if line.startswith("Drawing samples: ")]
    assert len(lines) == 2 * COLOUR.dims and lines[-1] == "Drawing samples: 3.0 of 3"
    assert lines[COLOUR.dims - 1] == "Drawing samples: 2.0 of 3"
