"""Jobs on a network that is up: processes that crash, hog and never end, a storage host that dies; the answer
is that of one process over what the gateway exports."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.mapreduce.executors.local import run_local
from gateway.mapreduce.job import JobSource
from tests.topologies.test_up import COMMAND, PATIENCE_S, Up, await_, up

pytestmark = [pytest.mark.emulation, pytest.mark.timeout(180)]

AS_CSV = ("--format", "csv")
SLOW = """
import time

from gateway.mapreduce import Job, Observations, count

def job(until: float = 0.0) -> Job:
    def mapper(record):
        time.sleep(0.01)
        count("seen")
        yield (record.device, record.kind), record.sequence

    def reducer(key, sequences):
        numbers = list(sequences)
        return [len(numbers), sum(numbers)]

    return Observations("temperature", until=until).map(mapper, reducer)
"""

HARMFUL = """
import os
import signal

from gateway.mapreduce import Job, Observations

def job(how: str = "") -> Job:
    def mapper(record):
        if record.device == "cam2" and record.sequence == 3:
            if how == "exit":
                os._exit(3)
            elif how == "signal":
                os.kill(os.getpid(), signal.SIGSEGV)
            elif how == "memory":
                bytearray(4 << 30)
            elif how == "endless":
                while True:
                    pass
        yield record.device, 1

    def reducer(device, ones):
        return sum(ones)

    options = {"deadline_s": 1.5} if how == "endless" else {}
    return Observations("temperature").map(mapper, reducer, reducer, **options)
"""


def test_jobs_on_a_network_that_is_up(tmp_path: Path) -> None:
    slow, harmful = tmp_path / "slow.py", tmp_path / "harmful.py"
    slow.write_text(SLOW)
    harmful.write_text(HARMFUL)
    with up(tmp_path, "-a", "star") as system, system.http() as http:
        await_(lambda: http.get("/readyz").status_code == 200)
        await_(lambda: _kept(http, "cam2") > 30)

        for how in ("exit", "signal", "memory", "endless"):
            state, rows = _run(system, tmp_path, str(harmful), "--set", f"how={how}")
            assert state["bad_records"] == 1, how
            assert state["bad"][0][1] == "cam2:3"
            assert rows
            assert http.get("/readyz").status_code == 200

        # A storage host dies in the middle; the answer is that over the export of the same stretch.
        settled_s = 3000.0  # in the data set: five seconds here, within which all is stored
        until = -settled_s + min(
            latest["t_event"]
            for device in http.get("/api/v1/devices").json()
            for latest in device["latest"]
            if latest["kind"] == "temperature"
        )
        export = tmp_path / "export.ndjson"
        lines = [
            http.get(
                f"/api/v1/devices/{device}/temperature/observations",
                params={"format": "ndjson", "until": until},
            ).text
            for device in ("cam1", "cam2", "cam3", "cam4")
        ]
        export.write_text("".join(lines))
        parameters = {"until": until}
        alone = run_local(JobSource("slow", "slow.py", SLOW, dict(parameters)), [export])
        assert alone.records > 60
        job = subprocess.Popen(
            [
                *COMMAND,
                "job",
                "run",
                str(slow),
                "--at",
                _at(system),
                "--set",
                f"until={until}",
                "--format",
                "csv",
            ],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        )
        await_(lambda: any(each["state"] == "running" for each in _jobs(system)))
        http.post("/api/v1/faults", json={"fault": "crash", "device": "store2"}).raise_for_status()
        out, _ = job.communicate(timeout=90.0)
        assert job.returncode == 0
        assert out == alone.table().csv().replace("\r\n", "\n")
        newest = _jobs(system)[0]
        assert newest["counters"] == {"seen": alone.records}
        assert newest["maps"] == newest["local_maps"] or newest["read_far_bytes"] > 0

        # What is no job is one line, and cancelling is at once.
        (tmp_path / "typo.py").write_text(SLOW.replace("record.kind", "record.knd"))
        failed = _command(system, tmp_path, "run", "typo.py", "--set", f"until={until}")
        assert failed.returncode == 1
        assert "typo.py:10: AttributeError" in failed.stderr
        id_ = http.post("/api/v1/jobs", json={"source": SLOW, "parameters": {"until": 9e9}}).json()["id"]
        assert _command(system, tmp_path, "cancel", id_).stdout == f"job {id_} is cancelled\n"
        assert http.get(f"/api/v1/jobs/{id_}/result").status_code == 409


def _run(system: Up, folder: Path, *arguments: str) -> tuple[dict[str, Any], list[str]]:
    """Run a job to its end: its state, and the lines of its result."""
    done = _command(system, folder, "run", *arguments, *AS_CSV)
    assert done.returncode == 0, done.stderr
    return _jobs(system)[0], done.stdout.splitlines()[1:]


def _jobs(system: Up) -> list[dict[str, Any]]:
    with system.http() as http:
        found: list[dict[str, Any]] = http.get("/api/v1/jobs").json()["jobs"]
    return found


def _command(system: Up, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "job", *arguments, "--at", _at(system)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )


def _at(system: Up) -> str:
    return f"http://127.0.0.1:{system.port('http')}"


def _kept(http: Any, device: str) -> int:
    found = {each["name"]: each["kept"] for each in http.get("/api/v1/devices").json()}
    return int(found.get(device, 0))


def test_a_gateway_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "job", "run", "hourly", "--at", "http://127.0.0.1:9"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "birdhouse up" in done.stderr
