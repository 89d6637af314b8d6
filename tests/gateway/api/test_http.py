"""The HTTP door of a real gateway, in front of a real store: what a client says, and what it is told."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from time import monotonic, time
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI

from edge.observation import Observation, ObservationId
from gateway.api.app import make_app
from gateway.api.desk import Desk
from gateway.api.door import HttpConfig
from gateway.api.ingest import BODY_BYTES_MAX
from gateway.api.job_desk import JobDesk
from gateway.api.running import Place as OnPaper
from gateway.api.running import Running
from tests.gateway.api.hosting import Place, document, running

PHOTOGRAPH = next((Path(__file__).parents[3] / "edge/data/photographs").glob("*.jpg")).read_bytes()[:50_000]

NO_JOBS = JobDesk(lambda _: None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(Place(tmp_path_factory.mktemp("gateway"), http=HttpConfig(request_s=2.0))) as made:
        yield made


@pytest.fixture
def client(place: Place) -> Iterator[httpx.Client]:
    with place.client() as made:
        yield made


def outcomes(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [verdict["outcome"] for verdict in response.json()["verdicts"]]


def until_stored(client: httpx.Client, device: str, count: int) -> list[dict[str, Any]]:
    """Wait until the tier has so many of a device's temperatures; all of them."""
    end_s = monotonic() + 20.0
    while True:
        lines = client.get(
            f"/api/v1/devices/{device}/temperature/observations?format=ndjson"
        ).text.splitlines()
        if len(lines) >= count:
            return [json.loads(line) for line in lines]
        assert monotonic() < end_s, f"{len(lines)} of {count}"


def test_one_and_a_batch_are_kept_and_a_retry_changes_nothing(client: httpx.Client) -> None:
    assert outcomes(client.post("/api/v1/observations", json=document(1, "a"))) == ["kept"]
    batch = [document(n, "a") for n in (1, 2, 3)]
    assert outcomes(client.post("/api/v1/observations", json=batch)) == ["duplicate", "kept", "kept"]
    assert until_stored(client, "a", 3) == batch
    device = client.get("/api/v1/devices/a").json()
    assert (device["kept"], device["duplicates"]) == (3, 1)
    assert device["latest"][0]["value"] == {"celsius": 3.93}


def test_times_that_are_left_out_are_now(client: httpx.Client) -> None:
    short = {"device": "now", "sequence": 1, "kind": "temperature", "payload": 7}
    assert outcomes(client.post("/api/v1/observations", json=short)) == ["kept"]
    (latest,) = client.get("/api/v1/devices/now").json()["latest"]
    assert latest["t_gen"] == latest["t_event"]
    assert abs(latest["t_gen"] - time()) < 3600.0  # by a clock that shows the time of day


def test_msgpack_is_what_devices_send(client: httpx.Client) -> None:
    some = [Observation(ObservationId("m", n), "temperature", 60.0 * n, 0.5, b"\x01") for n in range(3)]
    headers = {"Content-Type": "application/msgpack"}
    one = client.post("/api/v1/observations", content=some[0].encode(), headers=headers)
    assert outcomes(one) == ["kept"]
    many = client.post("/api/v1/observations", content=msgspec.msgpack.encode(some), headers=headers)
    assert outcomes(many) == ["duplicate", "kept", "kept"]


def test_a_photograph_comes_back_as_one(client: httpx.Client) -> None:
    picture = document(1, "p", kind="photograph", payload=b64encode(PHOTOGRAPH).decode())
    assert outcomes(client.post("/api/v1/observations", json=picture)) == ["kept"]
    (latest,) = client.get("/api/v1/devices/p").json()["latest"]
    assert latest["value"] is None
    for address in (f"/api/v1/objects/{latest['object_key']}", "/api/v1/devices/p/photograph/latest.jpg"):
        end_s = monotonic() + 20.0
        while (got := client.get(address)).status_code == 404:
            assert monotonic() < end_s
        assert got.content == PHOTOGRAPH
        assert got.headers["content-type"] == "image/jpeg"
        again = client.get(address, headers={"If-None-Match": got.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_what_cannot_be_true_is_a_dead_letter_with_its_reason(client: httpx.Client) -> None:
    strange = [document(1, "../etc"), document(2, "d", t_gen=time() + 1e6), document(-1, "d", t_event=1.0)]
    assert outcomes(client.post("/api/v1/observations", json=strange)) == ["dead-letter"] * 3
    reasons = [letter["reason"] for letter in client.get("/api/v1/dead-letters?limit=3").json()]
    assert ["its number is -1" in reasons[0], "s from now" in reasons[1], "no name" in reasons[2]] == [
        True
    ] * 3


@pytest.mark.parametrize(
    ("content", "media_type", "status", "word"),
    [
        (b"{", "application/json", 400, "truncated"),
        (b'{"device": "a"}', "application/json", 400, "sequence"),
        (json.dumps([document(1), document(2, t_gen="now")]).encode(), "application/json", 400, "[1].t_gen"),
        (json.dumps(document(1, colour="red")).encode(), "application/json", 400, "colour"),
        (json.dumps(document(1, payload="no base64!")).encode(), "application/json", 400, "base64"),
        (b"[" * 100_000, "application/json", 400, "problem"),
        (b"\xff\xfe", "application/json", 400, "problem"),
        (b"\xc1", "application/msgpack", 400, "problem"),
        (b"\x92\x92\xa1a", "application/msgpack", 400, "problem"),
        (json.dumps([document(n) for n in range(1001)]).encode(), "application/json", 400, "1000"),
        (b"x", "text/plain", 415, "application/json"),
        (b" " * (BODY_BYTES_MAX + 1), "application/json", 413, "bytes"),
    ],
)
def test_a_body_that_is_no_observation_is_told_why(
    client: httpx.Client, content: bytes, media_type: str, status: int, word: str
) -> None:
    response = client.post("/api/v1/observations", content=content, headers={"Content-Type": media_type})
    assert response.status_code == status
    assert word in response.text
    assert "Traceback" not in response.text
    assert client.get("/healthz").status_code == 200


def test_a_body_without_a_length_is_bounded_too(client: httpx.Client) -> None:
    pieces = (b" " * 65536 for _ in range(BODY_BYTES_MAX // 65536 + 2))
    assert client.post("/api/v1/observations", content=pieces).status_code == 413


def test_pages_and_exports_hold_the_same(client: httpx.Client) -> None:
    batch = [document(n, "e") for n in range(25)]
    client.post("/api/v1/observations", json=batch)
    assert until_stored(client, "e", 25) == batch
    address = "/api/v1/devices/e/temperature/observations"
    found: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None:
        page = client.get(address, params={"limit": 10, "after": after, "since": 60, "until": 1440}).json()
        found += page["observations"]
        after = page["next"]
    assert found == batch[1:24]
    rows = client.get(f"{address}?format=csv").text.splitlines()
    assert rows[0] == "device,sequence,kind,t_event,t_gen,payload"
    assert len(rows) == 26
    assert client.get(f"{address}?limit=0").status_code == 422
    assert client.get(f"{address}?format=xml").status_code == 422


def test_what_is_not_there_is_said(client: httpx.Client) -> None:
    for address in ("/api/v1/devices/nobody", "/api/v1/objects/obs:x", "/nothing", "/dashboard/../app.py"):
        response = client.get(address)
        assert response.status_code == 404, address
        assert response.json()["problem"]
    assert client.post("/api/v1/jobs").status_code == 400
    unknown = client.post("/api/v1/jobs", json={"name": "hourli"})
    assert unknown.status_code == 422
    assert unknown.json()["problem"] == "there is no ready-made job 'hourli' (did you mean hourly?)"
    assert client.get("/api/v1/network").status_code == 503
    assert client.post("/api/v1/faults", json={"fault": "crash", "device": "a"}).status_code == 503
    assert client.post("/api/v1/faults", json={"fault": "explode"}).status_code == 400


def test_metrics_storage_routes_and_the_description(client: httpx.Client) -> None:
    client.post("/api/v1/observations", json=document(1, "x"))
    lines = client.get("/metrics").text.splitlines()
    assert 'birdhouse_device_kept_total{device="x"} 1' in lines
    assert 'birdhouse_route_refused_total{route="unmatched"} 0' in lines
    assert 'birdhouse_destination_failures_total{destination="store"} 0' in lines
    types = [line.split() for line in lines if line.startswith("# TYPE")]
    assert len(types) == len({name for _, _, name, _ in types})
    (group,) = client.get("/api/v1/storage").json()
    assert (group["slots"], len(group["replicas"])) == (16_384, 3)
    route, dead = client.get("/api/v1/routes").json()
    assert (dead["name"], dead["to"]) == ("dead-letter", "table")
    assert (route["name"], route["to"], route["dropped"], route["refused"]) == ("unmatched", "store", 0, 0)
    assert route["matched"] >= 1
    assert [each["name"] for each in client.get("/api/v1/destinations").json()] == ["store"]
    assert "/api/v1/observations" in client.get("/openapi.json").json()["paths"]


def test_the_dashboard_and_its_feed(client: httpx.Client) -> None:
    page = client.get("/", follow_redirects=True)
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    client.post("/api/v1/observations", json=document(1, "s"))
    with client.stream("GET", "/api/v1/events") as events:
        documents = [json.loads(line[6:]) for line, _ in zip(_data(events), range(2), strict=False)]
    assert len(documents) == 2
    assert "s" in [device["name"] for device in documents[1]["devices"]]
    assert {"now", "run", "devices", "links", "storage", "routes", "destinations", "events"} <= documents[
        0
    ].keys()


def _data(events: httpx.Response) -> Iterator[str]:
    return (line for line in events.iter_lines() if line.startswith("data: "))


@pytest.mark.parametrize(
    "start",
    [b"", b"GET / HT", b"POST /api/v1/observations HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"],
    ids=["says nothing", "half a request", "half a body"],
)
def test_a_client_that_does_not_go_on_is_cut_off(place: Place, start: bytes) -> None:
    with socket.create_connection(place.address, timeout=20.0) as slow:
        slow.sendall(start)
        try:
            while slow.recv(4096):
                pass
        except ConnectionResetError:
            pass  # either way it is over, or recv would have timed out


def test_from_elsewhere_a_token_is_needed() -> None:
    """On loopback everybody is near, so the application is told where a client comes from."""
    app = make_app(
        Desk(lambda _: None, "http", lambda: 0.0), Running(OnPaper(), None), NO_JOBS, token="secret"
    )
    shut = make_app(Desk(lambda _: None, "http", lambda: 0.0), Running(OnPaper(), None), NO_JOBS)
    far, near = "10.0.0.9", "127.0.0.1"

    def status(app: FastAPI, host: str, path: str = "/healthz", token: str = "") -> int:
        async def ask() -> int:
            transport = httpx.ASGITransport(app=app, client=(host, 4711))
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                return (await client.get(path, headers=headers)).status_code

        return asyncio.run(ask())

    assert [status(app, far), status(app, far, token="wrong"), status(app, far, token="secret")] == [
        401,
        401,
        200,
    ]
    assert [status(app, far, "/dashboard/"), status(app, near)] == [200, 200]
    assert [status(shut, far), status(shut, far, token="secret"), status(shut, near)] == [401, 401, 200]


@pytest.mark.needs("curl")
def test_the_first_curl_just_works(place: Place) -> None:
    body = json.dumps(document(1, "curl"))
    command = ["curl", "-sS", "-f", "-d", body, "-H", "Content-Type: application/json"]
    ran = subprocess.run([*command, f"{place.url}/api/v1/observations"], capture_output=True, check=True)
    assert json.loads(ran.stdout)["verdicts"][0]["outcome"] == "kept"


@pytest.mark.timeout(120)
def test_a_gateway_killed_under_load_loses_nothing_acknowledged_and_stores_nothing_twice(
    tmp_path: Path,
) -> None:
    """Clients send batch after batch and repeat what was not answered; the gateway is killed in the middle,
    three times; in the end the store has exactly what was sent, each once."""
    with running(Place(tmp_path)) as place:
        acknowledged: Counter[str] = Counter()
        sent: dict[str, int] = {}
        stopped = Event()

        def load(device: str) -> None:
            number = 0
            with place.client() as client:
                while not stopped.is_set():
                    batch = [document(number + n, device) for n in range(20)]
                    sent[device] = number + 20
                    while not _accepted(client, batch, acknowledged):
                        pass  # as a device would: again
                    number += 20

        threads = [Thread(target=load, args=(f"cam{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for round_ in range(3):
            _until(lambda round_=round_: sum(acknowledged.values()) > 400 * (round_ + 1))
            place.kill()
            place.start()
        stopped.set()
        for thread in threads:
            thread.join()
        with place.client() as client:
            for device, count in sent.items():
                stored = until_stored(client, device, count)
                assert [each["sequence"] for each in stored] == list(range(count))
        assert acknowledged == Counter(
            {f"{device}:{n}": 1 for device, count in sent.items() for n in range(count)}
        )


def _accepted(client: httpx.Client, batch: list[dict[str, Any]], acknowledged: Counter[str]) -> bool:
    try:
        response = client.post("/api/v1/observations", json=batch)
    except httpx.HTTPError:
        return False
    if response.status_code != 200:
        return False
    verdicts = response.json()["verdicts"]
    assert {verdict["outcome"] for verdict in verdicts} <= {"kept", "duplicate"}
    acknowledged.update(verdict["id"] for verdict in verdicts)
    return True


def _until(reached: Any) -> None:
    end_s = monotonic() + 40.0
    while not reached():
        assert monotonic() < end_s
        Event().wait(0.01)
