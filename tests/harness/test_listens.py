"""What of a sweep's own Ray can be reached from other machines: nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, json
from pathlib import Path
from harness.execution.cluster import connected
import ray

with connected("local", dashboard=True):
    ray.get(ray.remote(lambda: 1).remote())
    family = {os.getpid()}
    grown = True
    while grown:
        grown = False
        for process in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if parent in family and int(process.name) not in family:
                family.add(int(process.name))
                grown = True
    inodes = set()
    for pid in family:
        try:
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                link = os.readlink(fd)
                if link.startswith("socket:["):
                    inodes.add(link[8:-1])
        except OSError:
            continue
    addresses = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                addresses.append(fields[1].split(":")[0])
    print(json.dumps(addresses))
"""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="sockets are listed in /proc here only")
def test_a_ray_of_our_own_listens_on_loopback_only():
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120)
    addresses = json.loads(ended.stdout.splitlines()[-1])
    assert len(addresses) > 4 and set(addresses) <= LOOPBACK
