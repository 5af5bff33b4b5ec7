"""`harness data`: what it prints, and its exit codes."""

import gzip
import hashlib

import pytest
from click.testing import CliRunner

from arm_core.data import fashion_mnist, mnist
from arm_core.data.files import Archive
from arm_core.registry import DATASETS
from harness.cli import main
from harness.commands import data as data_commands
from tests.arm_core.data import true_layouts as write
from tests.harness.loopback import serving


@pytest.fixture(autouse=True)
def plain_output(monkeypatch, tmp_path_factory):
    monkeypatch.setattr(data_commands.CONSOLE, "_width", 400)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path_factory.mktemp("no-debian") / "none")


def harness(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def line_of(output, start):
    return next(line for line in output.splitlines() if line.startswith(start))


def test_the_list_names_every_dataset_its_status_and_where_it_was_looked_for(tmp_path):
    write.write_cifar10(tmp_path, "py")
    output = harness("data", "list", "--root", tmp_path)
    for name in DATASETS.names():
        assert line_of(output, f"{name} ")
    assert "unverified" in line_of(output, "cifar10")
    assert "missing" in line_of(output, "svhn ") and str(tmp_path) in line_of(output, "svhn ")
    assert "missing" in line_of(output, "mnist --binarise fixed")
    assert "official" not in output


@pytest.mark.usefixtures("sample_data")
def test_the_list_calls_shipped_sets_samples(tmp_path):
    output = harness("data", "list", "--root", tmp_path)
    for name in ("mnist5k", "digits", "photo_patches"):
        assert "sample" in line_of(output, name)


def test_the_list_does_not_read_unpacked_images_until_they_are_converted(tmp_path):
    write.write_imagenet32(tmp_path, "png")
    assert "not checked" in line_of(harness("data", "list", "--root", tmp_path), "imagenet32 ")
    harness("data", "verify", "imagenet32", "--root", tmp_path, code=1)
    assert "unverified" in line_of(harness("data", "list", "--root", tmp_path), "imagenet32 ")


def test_the_list_survives_a_damaged_file(tmp_path):
    write.write_mnist(tmp_path, zipped=False)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"short")
    assert "damaged" in line_of(harness("data", "list", "--root", tmp_path), "mnist ")


@pytest.mark.usefixtures("sample_data")
@pytest.mark.parametrize("name", ["mnist5k", "digits", "photo_patches"])
def test_the_sample_sets_pass(name):
    output = harness("data", "verify", name)
    assert "fails" not in output
    assert f"{name}, " in output and ": sample" in output


def test_the_real_fashion_mnist_passes_as_official(debian_fashion_mnist, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN", debian_fashion_mnist)
    output = harness("data", "verify", "fashion_mnist")
    assert "fails" not in output
    assert "fashion_mnist, 8-bit: official" in output


def test_synthetic_files_fail_and_say_in_what(tmp_path):
    write.write_svhn(tmp_path)
    output = harness("data", "verify", "svhn", "--root", tmp_path, code=1)
    assert "is the published checksum" in line_of(output, f"fails    {tmp_path}")
    assert "fails    train: the published whole has 65932 images" in output
    assert "svhn, 8-bit: unverified" in output


def test_one_changed_byte_of_converted_pixels_is_found(tmp_path):
    write.write_imagenet32(tmp_path, "npy")
    harness("data", "verify", "imagenet32", "--root", tmp_path, code=1)
    path = tmp_path / "converted" / "imagenet32-old-8-bit" / "train.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    output = harness("data", "verify", "imagenet32", "--root", tmp_path, code=1)
    assert "fails    the converted pixels have the recorded sha256" in output


def test_missing_and_damaged_data_are_one_message_and_exit_code_2(tmp_path):
    assert "harness data fetch cifar10" in harness("data", "verify", "cifar10", "--root", tmp_path, code=2)
    write.write_mnist(tmp_path, zipped=False)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"short")
    assert "is no idx file" in harness("data", "verify", "mnist", "--root", tmp_path, code=2)


def test_a_fetched_dataset_is_official_at_once(tmp_path, monkeypatch):
    source = tmp_path / "source"
    write.write_mnist(source, zipped=False)
    with serving() as site:
        archives, known = [], {}
        for stem, part in (("train", "training"), ("t10k", "test")):
            name = f"{stem}-images-idx3-ubyte"
            content = (source / name).read_bytes()
            packed = site.files[f"/{name}.gz"] = gzip.compress(content)
            digest = f"md5:{hashlib.md5(packed).hexdigest()}"
            archives.append(Archive(f"MNIST/raw/{name}.gz", digest, len(packed), ("http://127.0.0.1:1/gone",)))
            known[hashlib.md5(content).hexdigest()] = f"the {part} images of MNIST"
        monkeypatch.setattr(mnist, "ARCHIVES", tuple(archives))
        monkeypatch.setattr("arm_core.data.idx.PUBLISHED", known)
        root = tmp_path / "root"
        output = harness("data", "fetch", "mnist", "--root", root, "--mirror", site.url)
        assert "Check it with: harness data verify mnist" in output
        assert "official" in line_of(harness("data", "list", "--root", root), "mnist ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar", "Did you mean 'cifar10'?"),
        ("digits", "digits is not fetched, a package ships it: pip install 'arm-sampling[samples]'"),
        ("npz:a.npz", "unknown dataset to fetch 'npz:a.npz'"),
    ],
)
def test_what_cannot_be_fetched_is_said(name, message, tmp_path):
    assert message in harness("data", "fetch", name, "--root", tmp_path, code=2)


def test_a_failed_fetch_lists_the_addresses_and_exits_with_2(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with serving() as site:
        archive = Archive("a.gz", "md5:0", 10, (f"{site.url}/a.gz",))
        monkeypatch.setattr(mnist, "ARCHIVES", (archive,))
        output = harness("data", "fetch", "mnist", "--root", tmp_path, code=2)
    assert f"{site.url}/a.gz: HTTP status 404" in output


def test_every_published_dataset_has_addresses_and_checksums_for_its_files():
    for name in DATASETS.names():
        cls = DATASETS.resolve(name)
        for config in getattr(cls, "KINDS", ()):
            archives = cls.archives(config)
            assert archives
            for archive in archives:
                kind, _, digest = archive.digest.partition(":")
                assert (kind, len(digest)) in (("md5", 32), ("sha256", 64))
                assert archive.urls and all(url.startswith("http") for url in archive.urls)
