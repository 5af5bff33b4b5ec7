"""Downloads from a server on loopback, which breaks off, lies and corrupts."""

import fcntl
import gzip
import hashlib
from dataclasses import replace

import numpy as np
import pytest

from arm_core import InputError
from arm_core.data.files import Archive
from harness.fetch import TRIES, fetch
from tests.harness.loopback import serving

CONTENT = np.random.Generator(np.random.Philox(5)).bytes(1_000_000)


@pytest.fixture
def site():
    with serving() as site:
        site.files["/a.bin"] = CONTENT
        yield site


@pytest.fixture
def archive(site):
    digest = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    return Archive("folder/a.bin", digest, len(CONTENT), (f"{site.url}/a.bin",))


@pytest.fixture
def bring(tmp_path):
    pauses = []

    def fetched(archive, **options):
        return fetch(archive, tmp_path, pause=pauses.append, **options)

    fetched.pauses = pauses
    return fetched


def left(tmp_path):
    return {path.name: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}


def test_a_file_arrives_whole_with_progress_to_its_last_byte(tmp_path, archive, bring):
    seen = []
    path = bring(archive, progress=lambda *told: seen.append(told))
    assert path.read_bytes() == CONTENT
    assert left(tmp_path) == {"a.bin": len(CONTENT)}
    assert (len(CONTENT), len(CONTENT), "fetching a.bin") in seen


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_file_that_is_there_is_not_fetched_again(tmp_path, site, archive, bring, kind):
    archive = replace(archive, digest=f"{kind}:{hashlib.new(kind, CONTENT).hexdigest()}")
    bring(archive)
    bring(archive)
    assert len(site.requests) == 1


def test_another_file_under_its_name_is_never_overwritten(tmp_path, site, archive, bring):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.bin").write_bytes(b"mine")
    with pytest.raises(InputError, match="is there, but has md5:.*; move it away"):
        bring(archive)
    assert (tmp_path / "folder" / "a.bin").read_bytes() == b"mine"
    assert site.requests == []


def test_a_transfer_that_is_cut_off_goes_on_where_it_stopped(site, archive, bring):
    site.cuts = [300_000, 200_000]
    assert bring(archive).read_bytes() == CONTENT
    assert site.requests == [("/a.bin", None), ("/a.bin", "bytes=300000-"), ("/a.bin", "bytes=500000-")]
    assert bring.pauses == [1.0, 2.0]


def test_a_later_process_goes_on_too(tmp_path, site, archive, bring):
    site.cuts = [100_000] * TRIES
    with pytest.raises(InputError, match="the transfer was cut off after 300000"):
        bring(archive)
    assert left(tmp_path) == {"a.bin.part": 300_000}
    assert bring(archive).read_bytes() == CONTENT
    assert site.requests[-1] == ("/a.bin", "bytes=300000-")


def test_a_server_that_cannot_go_on_starts_again(site, archive, bring):
    site.ranges, site.cuts = False, [300_000]
    assert bring(archive).read_bytes() == CONTENT


def test_a_corrupt_file_is_never_given_its_name(tmp_path, site, archive, bring):
    site.files["/a.bin"] = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(InputError) as caught:
        bring(archive)
    assert f"{site.url}/a.bin: the file has md5:" in str(caught.value)
    assert left(tmp_path) == {}
    assert len(site.requests) == TRIES


def test_a_corrupt_start_is_thrown_away_and_fetched_again(tmp_path, archive, bring):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.bin.part").write_bytes(b"x" * 300_000)
    assert bring(archive).read_bytes() == CONTENT


def test_a_finished_transfer_that_was_not_named_yet_is_not_repeated(tmp_path, site, archive, bring):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.bin.part").write_bytes(CONTENT)
    assert bring(archive).read_bytes() == CONTENT
    assert site.requests == []


def test_a_start_longer_than_the_file_is_thrown_away(tmp_path, archive, bring):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.bin.part").write_bytes(CONTENT + b"more")
    assert bring(archive).read_bytes() == CONTENT


def test_so_is_one_of_a_file_of_unknown_size(tmp_path, archive, bring):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.bin.part").write_bytes(CONTENT + b"more")
    assert bring(replace(archive, size=None)).read_bytes() == CONTENT


def test_a_mirror_without_the_file_is_passed_over(site, archive, bring):
    archive = replace(archive, urls=(f"{site.url}/gone.bin", *archive.urls))
    assert bring(archive).read_bytes() == CONTENT
    assert [path for path, _ in site.requests] == ["/gone.bin", "/a.bin"]


def test_a_mirror_with_another_file_is_passed_over_before_it_is_fetched(site, archive, bring):
    site.files["/other.bin"] = CONTENT * 10
    archive = replace(archive, urls=(f"{site.url}/other.bin", *archive.urls))
    assert bring(archive).read_bytes() == CONTENT


def test_a_mirror_of_ones_own_comes_first(site, archive, bring):
    site.files["/mine/a.bin"] = CONTENT
    bring(archive, mirrors=[f"{site.url}/mine/"])
    assert [path for path, _ in site.requests] == ["/mine/a.bin"]


def test_a_transfer_ten_times_its_stated_size_is_stopped(tmp_path, site, archive, bring):
    site.files["/a.bin"], site.stated = CONTENT * 10, ""
    seen = []
    with pytest.raises(InputError, match="sends more than the 1000000 bytes that the file has"):
        bring(archive, progress=lambda done, total, what: seen.append(done))
    assert max(seen) <= len(CONTENT)
    assert left(tmp_path) == {}


def test_a_length_that_is_too_small_is_refused(tmp_path, site, archive, bring):
    site.stated = 1000
    with pytest.raises(InputError, match="offers a file of 1000 bytes, not of 1000000"):
        bring(archive)
    assert left(tmp_path) == {}


def test_a_gzipped_file_arrives_as_it_is(tmp_path, site, bring):
    packed = gzip.compress(CONTENT)
    site.files["/a.gz"] = packed
    archive = Archive("a.gz", f"md5:{hashlib.md5(packed).hexdigest()}", None, (f"{site.url}/a.gz",))
    assert bring(archive).read_bytes() == packed


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1/a.bin", "Connection refused"),
        ("ftp://127.0.0.1/a.bin", "is no http address"),
        ("SITE/none", "HTTP status 404"),
    ],
)
def test_every_address_says_why_it_failed_and_what_to_do(tmp_path, site, archive, bring, url, message):
    archive = replace(archive, urls=(url.replace("SITE", site.url),))
    with pytest.raises(InputError) as caught:
        bring(archive)
    assert message in str(caught.value)
    assert f"or bring the file yourself to {tmp_path / 'folder' / 'a.bin'}" in str(caught.value)
    assert left(tmp_path) == {}


def test_two_processes_do_not_write_one_file(tmp_path, archive, bring):
    (tmp_path / "folder").mkdir()
    with (tmp_path / "folder" / "a.bin.part").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is fetching"):
            bring(archive)


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(tmp_path, archive, bring, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(InputError, match="needs 1000000 more bytes, the disk has 10 free"):
        bring(archive)
