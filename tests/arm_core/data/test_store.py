"""Conversion: whole or not there, resumed where it stopped, and memory-mapped afterwards."""

import hashlib
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from arm_core import InputError
from arm_core.data import load_dataset, store
from arm_core.data.base import SPLITS, DataOptions, Dataset, MappedImages
from arm_core.data.image_files import FolderStream
from arm_core.data.prepare import preparation
from arm_core.data.store import Conversion, open_store, stored
from tests.arm_core.data import true_layouts as write


class ArrayOf:
    """A stream that can fail once, after so many images."""

    def __init__(self, images, error=None, after=0):
        self.images, self.count, self.error, self.after, self.starts = images, len(images), error, after, []

    def chunks(self, start):
        self.starts.append(start)
        for at in range(start, self.count, 3):
            if self.error is not None and at >= self.after:
                error, self.error = self.error, None
                raise error
            yield self.images[at : at + 3]


ROUTE = np.array([0, 0, 1, 0, 0, 1, 0, 0, 0, 2, 2, 2], np.uint8)


def conversion(stream, route=ROUTE, status="unverified"):
    about = {"name": "toy", "status": status, "rule": "r", "sources": [], "published": {}}
    return Conversion(about, preparation("toy", DataOptions(bits=5), (3, 4, 4)), [stream], route)


@pytest.fixture
def images():
    return write.pixels(12, 3, 4, 4)


def converted(place, stream, marks=((1, 2),), progress=None):
    return Dataset(**stored(place, [list(mark) for mark in marks], lambda: conversion(stream), progress))


def check(dataset, images):
    for number, split in enumerate(SPLITS):
        assert np.array_equal(dataset.split(split).numpy(), images[number == ROUTE] >> 3)
    assert dataset.sha256 == dataset.pixels_sha256()


def test_images_go_to_their_splits_prepared_and_keep_their_order(tmp_path, images):
    dataset = converted(tmp_path / "toy", ArrayOf(images))
    check(dataset, images)
    assert (dataset.variant, dataset.layout.categories, dataset.status) == ("5-bit", 32, "unverified")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".toy.lock", "toy"]


def test_a_second_opening_reads_no_image(tmp_path, images):
    first, second = ArrayOf(images), ArrayOf(images)
    converted(tmp_path / "toy", first)
    check(converted(tmp_path / "toy", second), images)
    assert (first.starts, second.starts) == ([0], [])


@pytest.mark.parametrize("after", [0, 3, 6, 9])
def test_an_interrupted_conversion_goes_on_where_it_stopped(tmp_path, images, after):
    stream = ArrayOf(images, KeyboardInterrupt(), after)
    with pytest.raises(KeyboardInterrupt):
        converted(tmp_path / "toy", stream)
    assert open_store(tmp_path / "toy") is None
    check(converted(tmp_path / "toy", stream), images)
    assert stream.starts == [0, after]


def test_images_that_were_written_but_not_recorded_are_written_again(tmp_path, images):
    stream = ArrayOf(images, KeyboardInterrupt(), 6)
    with pytest.raises(KeyboardInterrupt):
        converted(tmp_path / "toy", stream)
    with (tmp_path / "toy.partial" / "train.npy").open("ab") as file:
        file.write(b"torn")
    check(converted(tmp_path / "toy", stream), images)


def test_an_interrupted_conversion_of_other_files_is_not_gone_on_with(tmp_path, images):
    stream = ArrayOf(images, KeyboardInterrupt(), 6)
    with pytest.raises(KeyboardInterrupt):
        converted(tmp_path / "toy", stream, marks=((1, 1),))
    check(converted(tmp_path / "toy", stream, marks=((1, 2),)), images)
    assert stream.starts == [0, 0]


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_that_counts_and_the_next_one_goes_on(tmp_path):
    write.write_imagenet32(tmp_path, "png", train=400, valid=20)
    code = (
        "import os, sys; from arm_core.data import load_dataset, store, image_files\n"
        "store.CHUNK = image_files.CHUNK = 50\n"
        "def progress(done, total, what):\n"
        "    if done >= 200: os.kill(os.getpid(), 9)\n"
        f"load_dataset('imagenet32', {str(tmp_path)!r}, progress=progress)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    partial = tmp_path / "converted" / "imagenet32-old-8-bit.partial"
    assert json.loads((partial / "progress.json").read_text())["row"] == 200
    seen = []
    dataset = load_dataset("imagenet32", tmp_path, progress=lambda done, total, what: seen.append((done, what)))
    assert not partial.exists()
    assert min(done for done, what in seen if what.startswith("converting")) > 200
    (tmp_path / "again").mkdir()
    write.write_imagenet32(tmp_path / "again", "png", train=400, valid=20)
    assert dataset.sha256 == load_dataset("imagenet32", tmp_path / "again").sha256


def test_a_refused_image_leaves_nothing_behind(tmp_path, images):
    with pytest.raises(InputError, match="wrong"):
        converted(tmp_path / "toy", ArrayOf(images, InputError("wrong"), 6))
    assert [path.name for path in tmp_path.iterdir()] == [".toy.lock"]


def test_changed_sources_are_converted_anew(tmp_path, images):
    converted(tmp_path / "toy", ArrayOf(images), marks=((1, 1),))
    other = images[::-1].copy()
    check(converted(tmp_path / "toy", ArrayOf(other), marks=((1, 2),)), other)


def test_what_was_converted_stays_usable_when_its_sources_are_gone(tmp_path):
    write.write_imagenet32(tmp_path, "tar")
    before = load_dataset("imagenet32", tmp_path)
    for part in ("train", "valid"):
        (tmp_path / f"{part}_32x32.tar").unlink()
    after = load_dataset("imagenet32", tmp_path)
    assert (after.sha256, after.status) == (before.sha256, before.status)


def test_two_at_once_convert_once(tmp_path, images):
    streams = [ArrayOf(images), ArrayOf(images)]
    threads = [threading.Thread(target=converted, args=(tmp_path / "toy", stream)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(stream.starts) for stream in streams) == [0, 1]


def test_splits_are_memory_mapped_and_writing_to_a_tensor_never_reaches_the_file(tmp_path, images):
    dataset = converted(tmp_path / "toy", ArrayOf(images))
    assert isinstance(dataset._splits["train"], np.memmap)
    dataset.split("train")[0] = 7
    check(Dataset(**stored(tmp_path / "toy", None, lambda: pytest.fail("converted again"))), images)


def test_training_reads_rows_from_the_file_and_maps_no_page_of_it(tmp_path, images):
    dataset = converted(tmp_path / "toy", ArrayOf(images))
    train, rows = dataset.training_images(), torch.tensor([5, 0, 6, 5])
    assert isinstance(train, MappedImages) and len(train) == 7
    assert torch.equal(train.draw(rows, torch.Generator()), dataset.split("train")[rows])


def test_progress_is_told_to_the_last_image(tmp_path, images):
    seen = []
    converted(tmp_path / "toy", ArrayOf(images), progress=lambda *told: seen.append(told))
    assert [told[:2] for told in seen if told[2] == "converting toy"] == [(3, 12), (6, 12), (9, 12), (12, 12)]


def test_the_place_can_be_elsewhere(tmp_path, monkeypatch):
    write.write_imagenet32(tmp_path, "png")
    monkeypatch.setenv("ARM_CONVERTED", str(tmp_path / "fast-disk"))
    load_dataset("imagenet32", tmp_path)
    assert len(list((tmp_path / "fast-disk").glob("imagenet32-old-8-bit-*/store.json"))) == 1
    assert not (tmp_path / "converted").exists()


def test_every_preparation_is_a_conversion_of_its_own(tmp_path):
    write.write_imagenet32(tmp_path, "png")
    full, small = (
        load_dataset("imagenet32", tmp_path),
        load_dataset("imagenet32", tmp_path, bits=3, crop=8, downscale=2),
    )
    assert (small.variant, small.layout.dims, small.layout.categories) == ("old 8x8 3-bit 1/2", 192, 8)
    assert len(small.split("train")) == len(full.split("train"))


@pytest.mark.parametrize("damage", ["cut", "dtype", "json", "gone"])
def test_a_damaged_conversion_is_refused_with_the_remedy(tmp_path, images, damage):
    place = tmp_path / "toy"
    converted(place, ArrayOf(images))
    if damage == "cut":
        data = (place / "train.npy").read_bytes()
        (place / "train.npy").write_bytes(data[:-1])
    elif damage == "dtype":
        np.save(place / "train.npy", np.zeros((7, 3, 4, 4)))
    elif damage == "json":
        (place / "store.json").write_text("{")
    else:
        (place / "valid.npy").unlink()
    with pytest.raises(InputError, match=f"delete {place}, it is made anew"):
        open_store(place)


def test_a_split_without_images_is_refused(tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.png").write_bytes(write.png_bytes(write.pixels(1, 3, 8, 8)[0]))
    stream = FolderStream(folder, [f"{number}.png" for number in range(5)], (3, 8, 8))
    prepared = preparation("few", DataOptions(), (3, 8, 8))
    about = {"name": "few", "status": "unverified", "rule": "r", "sources": [], "published": {}}
    with pytest.raises(InputError, match="few: no image for valid, test; add some, 10 in all are enough"):
        stored(tmp_path / "few-store", [[1, 1]], lambda: Conversion(about, prepared, [stream], np.zeros(5, np.uint8)))


def test_the_recorded_digest_is_the_one_of_the_pixels_whatever_the_size_of_the_pieces(tmp_path, images, monkeypatch):
    dataset = converted(tmp_path / "toy", ArrayOf(images))
    whole = hashlib.sha256()
    for number, split in enumerate(SPLITS):
        part = images[number == ROUTE] >> 3
        whole.update(f"{split} {part.shape} ".encode() + part.tobytes())
    assert dataset.sha256 == whole.hexdigest()
    assert store.open_store(tmp_path / "toy")["sha256"] == whole.hexdigest()
