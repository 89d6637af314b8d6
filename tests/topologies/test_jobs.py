"""Jobs in experiments: on the storage hosts, and combined on the way there."""

from __future__ import annotations

from pathlib import Path

import pytest

from topologies.experiment import build_experiment
from topologies.fabrics import choose_fabric
from topologies.job_results import JobResult, read_jobs
from topologies.runner import run_experiment, write_page
from topologies.spec_file import parse_spec
from underlay.errors import InputError

SPEC = """
name = "jobs"
duration_s = 40
warmup_s = 2
deadline_s = 8
replay_speed = 3600
route_convergence_s = 2

[network]
shape = "grid"
birdhouses = 6
relays = 2

[storage]
kind = "sharded"
hosts = 3

[[sensor]]
kind = "temperature"
period_s = 0.5

[[sensor]]
kind = "motion"
period_s = 1.0

[[job]]
job = "hourly"
on_the_way = true
epoch_s = 4
parameters = { window = "6h" }
"""
FAULTS = """
[[fault]]
at_s = 10
kind = "crash"
device = "relay1"
for_s = 6

[[fault]]
at_s = 14
kind = "crash"
device = "cam3"
for_s = 4

[[fault]]
at_s = 20
kind = "crash"
device = "hub"
for_s = 3

[[fault]]
at_s = 26
kind = "crash"
device = "store1"
for_s = 4
"""


def run(tmp_path: Path, text: str, architecture: str = "gossip") -> JobResult:
    experiment = build_experiment(parse_spec(text), architecture)
    folder = tmp_path / architecture
    folder.mkdir()
    run_experiment(experiment, choose_fabric(experiment.spec, "simulation"), folder)
    (job,) = read_jobs(folder)
    write_page([folder], folder / "report.html")
    return job


@pytest.mark.timeout(120)
@pytest.mark.parametrize("faults", ["", FAULTS], ids=["all is well", "devices crash"])
def test_what_is_combined_on_the_way_is_what_the_storage_hosts_say(tmp_path: Path, faults: str) -> None:
    job = run(tmp_path, SPEC + faults)
    assert job.state == "done"
    assert job.local_maps == job.maps
    way = job.on_the_way
    assert way is not None
    assert way.records == job.records > 200
    assert way.digest == job.rows_digest
    assert way.hop_bytes < way.raw_hop_bytes / 2
    assert way.predicted_ratio < way.ratio
    folder = tmp_path / "gossip"
    assert (folder / "job-hourly.csv").read_text().startswith("device,kind,window,n,mean,min,max")
    assert (folder / "job-hourly.svg").stat().st_size > 5000
    page = (folder / "report.html").read_text()
    assert "What the stored data say: hourly" in page


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(
            ('"hourly"', '"hourli"'), "job[0].job: there is no ready-made job 'hourli'", id="no such job"
        ),
        pytest.param(('"hourly"', '"nosuch.py"'), "job[0].job: cannot read nosuch.py", id="no such file"),
        pytest.param(('window = "6h"', 'windw = "6h"'), "did you mean window?", id="no such parameter"),
        pytest.param(('"hourly"', '"age"'), "it takes no parameters", id="no parameters"),
        pytest.param(
            ('job = "hourly"', 'job = "hourly"\nat_s = 99'), "is after the end of the run", id="too late"
        ),
        pytest.param(('kind = "sharded"\nhosts = 3', ""), "jobs run on a storage tier", id="no storage"),
        pytest.param(('{ window = "6h" }', '{ window = "6x" }'), "is no duration", id="no duration"),
        pytest.param(('"hourly"', '"join"'), "there is no parameter 'window'", id="another's parameter"),
    ],
)
def test_what_is_no_job_is_said_before_anything_runs(change: tuple[str, str], problem: str) -> None:
    with pytest.raises(InputError) as raised:
        build_experiment(parse_spec(SPEC.replace(*change)), "star")
    assert problem in str(raised.value)


def test_only_plain_aggregates_are_combined_on_the_way() -> None:
    text = SPEC.replace('job = "hourly"', 'job = "join"').replace('parameters = { window = "6h" }', "")
    with pytest.raises(InputError, match="only aggregates are combined on the way"):
        build_experiment(parse_spec(text), "star")
