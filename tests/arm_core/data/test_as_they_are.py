"""Images as people have them: turned, in palettes, under other names, with what others leave beside them."""

import gzip
import io
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from arm_core import InputError
from arm_core.data import load_dataset
from arm_core.data.base import SPLITS
from arm_core.data.image_files import decode
from arm_core.registry import DATASETS
from harness.sweep.identity import source_of
from tests.arm_core.data import true_layouts as write
from tests.arm_core.data.true_layouts import pixels, png_bytes


@pytest.fixture(autouse=True)
def data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("ARM_DATA", str(tmp_path / "data"))


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(mode="RGB"):
    return Image.fromarray(pixels(1, 8, 12, 3)[0]).convert(mode)


def fill(folder, *names, size=(8, 12), seed=0):
    """Image files of those names, all different."""
    for number, name in enumerate(names):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png_bytes(pixels(1, 3, *size, seed=seed + number)[0]))


def load(folder):
    return load_dataset(f"folder:{folder}")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_turned_picture_is_upright(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # Pillow's transpose that shows it as the orientation says
    shown = picture() if orientation == 1 else picture().transpose(Image.Transpose(turned[orientation]))
    assert np.array_equal(decode(encoded(picture(), kind, exif=exif), "x").transpose(1, 2, 0), np.asarray(shown))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"])
def test_formats_without_loss_are_read_as_they_are(kind):
    image = picture("P").convert("RGB") if kind == "GIF" else picture()
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(decode(encoded(image, kind, **options), "x").transpose(1, 2, 0), np.asarray(image))


@pytest.mark.parametrize(("mode", "as_"), [("P", "RGB"), ("1", "L"), ("RGBA", "RGB"), ("LA", "L")])
def test_what_loses_nothing_is_converted(mode, as_):
    image = picture(mode)
    found = decode(encoded(image), "x")
    assert np.array_equal(found.transpose(1, 2, 0).squeeze(), np.asarray(image.convert(as_)))


def transparent():
    image = picture("RGBA")
    image.putpixel((0, 0), (1, 2, 3, 100))
    return encoded(image)


def deep_rgb():
    """A PNG of 16-bit colours, of which Pillow alone would give the upper halves without a word."""
    chunks = io.BytesIO()
    PngImagePlugin.putchunk(chunks, b"IHDR", b"\0\0\0\4\0\0\0\4\x10\2\0\0\0")
    PngImagePlugin.putchunk(chunks, b"IDAT", zlib.compress(4 * (b"\0" + bytes(24))))
    PngImagePlugin.putchunk(chunks, b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (transparent, 'x has transparent pixels; convert it with Pillow: image.convert("RGB")'),
        (lambda: encoded(picture("CMYK"), "TIFF"), "x is CMYK, not grey or RGB; convert it"),
        (lambda: encoded(Image.new("I;16", (4, 4))), "x has more than 8 bits a channel; save it with 8: (pixels // 256)"),
        (deep_rgb, "x has more than 8 bits a channel"),
        (lambda: encoded(Image.new("F", (4, 4)), "TIFF"), "x has more than 8 bits a channel"),
        (lambda: b"P6\n2 1\n65535\n" + bytes(12), "x has more than 8 bits a channel"),
        (lambda: b"P6 # a comment\n2 1\n255\n" + bytes(6), None),
        (lambda: encoded(picture(), "GIF", save_all=True, append_images=[picture("L")]), "x has 2 pictures in one file"),
        (lambda: b"GIF89a", "x is no whole image file"),
    ],
)  # fmt: skip
def test_what_would_lose_something_is_refused_with_its_name_and_the_remedy(data, message):
    if message is None:
        assert decode(data(), "x").shape == (3, 1, 2)
        return
    with pytest.raises(InputError) as caught:
        decode(data(), "x")
    assert message in str(caught.value)


def test_a_huge_stray_picture_is_named(tmp_path):
    fill(tmp_path / "mine", *(f"{number:02d}.png" for number in range(20)))
    (tmp_path / "mine" / "stray.png").write_bytes(encoded(Image.new("1", (20_000, 20_000))))
    with pytest.raises(InputError, match=r"stray\.png is no whole image file .*move it away"):
        load(tmp_path / "mine")


def test_what_was_read_and_what_was_not_is_said(tmp_path):
    names = [f"cats/{number}.{end}" for number in range(10) for end in ("PNG", "webp")]
    fill(tmp_path / "mine", *names, "cats/.hidden.png")
    for name in ("notes.txt", "cats/film.mp4", ".DS_Store"):
        (tmp_path / "mine" / name).write_text("")
    with pytest.warns(UserWarning, match="left out"):
        dataset = load(tmp_path / "mine")
    assert dataset.read == "read 20 files (.png 10, .webp 10); left out 4 files (hidden 2, .mp4 1, .txt 1)"


def test_a_linked_folder_is_read_and_a_loop_ends(tmp_path):
    fill(tmp_path / "elsewhere" / "dogs", *(f"{number}.png" for number in range(10)))
    fill(tmp_path / "mine" / "cats", *(f"{number}.png" for number in range(10)), seed=10)
    (tmp_path / "mine" / "dogs").symlink_to(tmp_path / "elsewhere" / "dogs")
    (tmp_path / "elsewhere" / "dogs" / "back").symlink_to(tmp_path / "mine")
    assert sum(len(load(tmp_path / "mine").split(split)) for split in SPLITS) == 20


@pytest.mark.parametrize(
    "names", [("Train", "Valid", "Test"), ("training", "validation", "testing"), ("TRAIN", "val", "test"), ("train", "dev", "test")]
)  # fmt: skip
def test_folders_called_like_splits_are_the_splits(tmp_path, names):
    for seed, name in enumerate(names):
        fill(tmp_path / "mine" / name, "a/1.png", "b/2.png", seed=10 * seed)
    dataset = load(tmp_path / "mine")
    for seed, split in enumerate(SPLITS):
        expected = [pixels(1, 3, 8, 12, seed=10 * seed + number)[0] for number in range(2)]
        assert np.array_equal(dataset.split(split).numpy(), expected)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["train2017", "val2017", "test2017"],
            "train2017 and val2017 and test2017 would be mixed and split anew; name them",
        ),
        (["data/train", "data/test"], "images in train and test would be mixed"),
        (["cats/train", "cats/test", "dogs/train"], "images in train and test would be mixed"),
        (["train", "val", "valid", "test"], "has the folders val and valid for valid; leave one"),
        (["Train", "Test"], "has folders for train, test but not for valid"),
    ],
)
def test_splits_that_would_be_mixed_are_refused(tmp_path, names, message):
    for seed, name in enumerate(names):
        fill(tmp_path / "mine" / name, *(f"{number}.png" for number in range(5)), seed=5 * seed)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "mine")


def test_a_class_called_like_a_split_is_no_split(tmp_path):
    fill(tmp_path / "mine", *(f"{kind}/{number}.png" for kind in ("test_tubes", "trains") for number in range(10)))
    assert len(load(tmp_path / "mine").split("train")) == 16


def test_what_is_not_read_does_not_change_what_a_folder_is(tmp_path):
    fill(tmp_path / "mine", *(f"{number}.png" for number in range(20)))
    before = source_of(DATASETS, f"folder:{tmp_path / 'mine'}")
    for name in (".DS_Store", "Thumbs.db", "notes.txt"):
        (tmp_path / "mine" / name).write_text("new")
    assert source_of(DATASETS, f"folder:{tmp_path / 'mine'}") == before
    fill(tmp_path / "mine", "20.png")
    assert source_of(DATASETS, f"folder:{tmp_path / 'mine'}") != before


# arrays


def save(path, **arrays):
    np.savez(path, **arrays)
    return f"npz:{path}"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (pixels(20, 8, 8, 4), "looks like alpha after colours: leave it out"),
        (pixels(8, 8, 3), "looks like one colour image: stack images"),
        (pixels(20, 8, 8) / 255, "its values lie in [0, 1]: numpy.rint(images * 255).astype(numpy.uint8)"),
        (pixels(20, 8, 8).astype(np.uint16) * 256, "of 16 bits keep the highest 8"),
        (pixels(20, 8, 8).astype(np.int64), "got int64; images.astype(numpy.uint8)"),
        (pixels(20, 8, 8) / 127.5 - 1, "its values lie in [-1, 1]: scale them to [0, 255]"),
    ],
)
def test_arrays_of_another_form_are_refused_with_the_remedy(tmp_path, images, message):
    with pytest.raises(InputError) as caught:
        load_dataset(save(tmp_path / "mine.npz", images=images))
    assert message in str(caught.value)


# files as unpackers and browsers leave them


@pytest.mark.parametrize(
    "name", ["{stem}/{stem}", "{stem}/{stem}.gz", "{dotted}", "{dotted}.gz", "MNIST/raw/{stem}", "MNIST/raw/{stem}.gz"]
)
@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_is_read_as_unpackers_and_browsers_leave_it(tmp_path, name, zipped):
    train, test = write.write_mnist(tmp_path / "plain", zipped=False)
    for part in ("train", "t10k"):
        stem = f"{part}-images-idx3-ubyte"
        data = (tmp_path / "plain" / stem).read_bytes()
        place = tmp_path / "mine" / name.format(stem=stem, dotted=f"{part}-images.idx3-ubyte")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(gzip.compress(data) if zipped else data)
    dataset = load_dataset("mnist", tmp_path / "mine")
    assert (
        np.array_equal(dataset.split("test").numpy()[:, 0], test) and len(dataset.split("train")) == len(train) * 5 // 6
    )


def test_a_tar_that_a_browser_inflated_is_read(tmp_path):
    write.write_cifar10(tmp_path, "py.tar.gz")
    place = tmp_path / "cifar-10-python.tar.gz"
    before = load_dataset("cifar10", tmp_path).sha256
    place.write_bytes(gzip.decompress(place.read_bytes()))
    assert load_dataset("cifar10", tmp_path).sha256 == before


def test_a_folder_without_its_scheme_is_told_how_it_is_written(tmp_path):
    with pytest.raises(InputError, match=rf"is a folder; of images it is written folder:{tmp_path}"):
        load_dataset(str(tmp_path))
