"""A gateway's HTTP door for the dashboard's tests: the page, a scripted state, and faults that change it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gateway.dashboard import CONTENT_SECURITY_POLICY, page_files

PHOTOGRAPH = Path(__file__).parents[3] / "edge/data/photographs/01-cat-eyes.jpg"


def network(birdhouses: int = 6, *, strange: str = "") -> dict[str, Any]:
    """A state document: birdhouses on a hub, a sink, a storage group, a route. `strange` names one more
    birdhouse."""
    cams = [f"cam{n}" for n in range(1, birdhouses + 1)] + ([strange] if strange else [])
    roles = {"hub": "hub", "sink": "sink", "store1": "storage"} | dict.fromkeys(cams, "birdhouse")

    def latest(name: str) -> list[dict[str, Any]]:
        if name not in cams:
            return []
        reading = {"celsius": 12.34, "humidity": 81}
        return [
            {
                "kind": "photograph",
                "id": f"{name}:2",
                "t_event": 9.0,
                "t_gen": 92.0,
                "value": None,
                "object_key": "aa",
            },
            {
                "kind": "weather",
                "id": f"{name}:1",
                "t_event": 8.0,
                "t_gen": 99.0,
                "value": reading,
                "object_key": None,
            },
        ]

    devices = [
        {
            "name": name, "role": role, "x": None, "y": None, "up": True, "paused": False,
            "kept": 10 if role == "birdhouse" else 0, "duplicates": 0, "dead_letters": 0,
            "age_s": 1.0 if role == "birdhouse" else None, "last_heard": 99.0, "latest": latest(name),
        }
        for name, role in roles.items()
    ]  # fmt: skip
    ends = [("hub", name) for name in cams] + [("hub", "sink"), ("sink", "store1")]
    links = [
        {"a": a, "b": b, "up": True, "cut": False, "bytes_per_s": 900.0 * n,
         "lost_per_s": 0.4 if n == 2 else 0.0, "loss_ratio": 0.02, "profile": "radio"}
        for n, (a, b) in enumerate(ends)
    ]  # fmt: skip
    replicas = [{"address": "store1/kv", "answers": True}, {"address": "store2/kv", "answers": True}]
    return {
        "now": 100.0, "run": {"name": "quickstart", "fabric": "mininet"}, "devices": devices, "links": links,
        "storage": [{"name": "g1", "leader": "store1/kv", "replicas": replicas, "slots": 8192,
                     "log_end": 420, "lag": 3}],
        "routes": [{"name": "readings", "to": "kv", "matched": 61, "written": 58, "waiting": 2, "dropped": 1,
                    "dead_lettered": 0, "refused": 0, "priority": 2, "overflow": "drop-oldest",
                    "rate_limit_per_s": 1.5}],
        "destinations": [{"name": "kv", "type": "store", "taken": 60, "delivered": 58, "failures": 1,
                          "waiting": 2, "waiting_bytes": 220, "oldest_s": 0.4, "trouble": ""}],
        "events": [{"t": 1.0, "text": "the run started"}],
    }  # fmt: skip


READY_MADE = {"gaps": "What was lost?", "hourly": "How warm was it?"}


def job_of(id_: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """A job as the API tells of it, just submitted."""
    task = {
        "kind": "map",
        "task": 0,
        "state": "in progress",
        "worker": "store1",
        "attempts": 1,
        "local": True,
        "backup": False,
        "split": "slots 0-9 of g1",
        "progress": 40,
        "seconds": 0.0,
    }
    return {
        "id": id_, "name": wanted["name"], "state": "running", "problem": "", "key_names": ["device"],
        "parameters": wanted["parameters"], "window_s": 0.0, "maps": 2, "maps_done": 1, "reduces": 4,
        "reduces_done": 0, "records": 40, "rows": 0, "bad_records": 1,
        "bad": [[7, "cam1:7", "mine.py:3: KeyError"]],
        "counters": {"seen": 40}, "read_bytes": 5000, "read_far_bytes": 0, "shuffled_bytes": 700,
        "result_bytes": 0, "watermark_s": 0.0, "local_maps": 1, "backups": 1, "lost_attempts": 0,
        "submitted_s": 1.0, "seconds": 2.0, "chunks": [], "tasks": [task],
    }  # fmt: skip


class StandIn:
    """Serves `state` on a port of 127.0.0.1; `faults` holds what the page has asked for."""

    def __init__(self, state: dict[str, Any], *, streams: bool = True, token: str = "") -> None:
        self.state = state
        self.streams = streams
        self.token = token
        self.faults: list[dict[str, Any]] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        """By id, in the order of their submission."""
        self.away = False
        """Whether it hangs up on whoever asks."""
        self._changed = threading.Condition()
        self._version = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}/dashboard/"

    def change(self) -> None:
        """What was changed in `state` is sent to every page."""
        with self._changed:
            self.state["now"] += 0.5
            self._version += 1
            self._changed.notify_all()

    def device(self, name: str) -> dict[str, Any]:
        return next(one for one in self.state["devices"] if one["name"] == name)

    def close(self) -> None:
        self.away = True
        self.change()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def inject(self, fault: dict[str, Any]) -> None:
        """Somebody asks for it, by this page or another."""
        self.faults.append(fault)
        match fault:
            case {"fault": "crash" | "restart" as verb, "device": name}:
                self.device(name)["up"] = verb == "restart"
                for link in self.state["links"]:
                    ends = self.device(link["a"])["up"] and self.device(link["b"])["up"]
                    link["up"] = ends and not link["cut"]
            case {"fault": "pause" | "resume" as verb, "device": name}:
                self.device(name)["paused"] = verb == "pause"
            case {"fault": "link-down" | "link-up" as verb, "a": a, "b": b}:
                link = next(one for one in self.state["links"] if (one["a"], one["b"]) == (a, b))
                link["up"] = verb == "link-up"
                link["cut"] = not link["up"]
        text = " ".join(fault.values())
        self.state["events"].append({"t": self.state["now"], "text": text, "fault": fault})
        self.change()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self
        files = page_files()

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                if stand_in.away:
                    return
                if self.path.startswith("/dashboard/"):
                    name = self.path.removeprefix("/dashboard/") or "index.html"
                    if name in files:
                        self._answer(200, files[name].media_type, files[name].body)
                    else:
                        self._answer(404, "text/plain", b"no such file")
                elif not self._allowed():
                    self._answer(401, "application/json", b'{"detail": "a token is needed"}')
                elif self.path == "/api/v1/state":
                    self._answer(200, "application/json", json.dumps(stand_in.state).encode())
                elif self.path == "/api/v1/events" and stand_in.streams:
                    self._stream()
                elif self.path.startswith("/api/v1/jobs"):
                    self._jobs(self.path.removeprefix("/api/v1/jobs").strip("/"))
                elif self.path == "/api/v1/objects/aa":
                    self._answer(200, "image/jpeg", PHOTOGRAPH.read_bytes())
                else:
                    self._answer(404, "application/json", b'{"detail": "no such thing"}')

            def _jobs(self, path: str) -> None:
                id_, _, rest = path.partition("/")
                if not id_:
                    told: Any = {
                        "jobs": list(reversed(stand_in.jobs.values())),
                        "workers": {"store1/work": "idle"},
                        "ready_made": READY_MADE,
                    }
                    self._answer(200, "application/json", json.dumps(told).encode())
                elif rest:
                    rows = b'{"device": "cam1", "mean": 3.5}\n{"device": "<b>cam2", "mean": 4.25}\n'
                    self._answer(200, "application/x-ndjson", rows)
                else:
                    self._answer(200, "application/json", json.dumps(stand_in.jobs[id_]).encode())

            def do_DELETE(self) -> None:
                job = stand_in.jobs[self.path.rpartition("/")[2]]
                job["state"] = "cancelled"
                self._answer(200, "application/json", json.dumps(job).encode())

            def do_POST(self) -> None:
                fault = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/api/v1/jobs":
                    if "source" in fault:
                        self._answer(
                            422, "application/json", b'{"problem": "job mine: mine.py:1: SyntaxError"}'
                        )
                        return
                    job = job_of(f"j{len(stand_in.jobs) + 1}", fault)
                    stand_in.jobs[job["id"]] = job
                    self._answer(201, "application/json", json.dumps(job).encode())
                    return
                if fault.get("device") == "sink":
                    self._answer(409, "application/json", b'{"detail": "the sink is spared"}')
                    return
                stand_in.inject(fault)
                self._answer(200, "application/json", b"{}")

            def _allowed(self) -> bool:
                return not stand_in.token or self.headers["Authorization"] == f"Bearer {stand_in.token}"

            def _answer(self, status: int, media_type: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", media_type)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
                self.end_headers()
                self.wfile.write(body)

            def _stream(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                seen = [-1]
                try:
                    while not stand_in.away:
                        with stand_in._changed:
                            stand_in._changed.wait_for(lambda: stand_in._version != seen[0], 1)
                            seen[0] = stand_in._version
                            body = json.dumps(stand_in.state)
                        self.wfile.write(f"event: state\ndata: {body}\n\n".encode())
                except (BrokenPipeError, ConnectionResetError):
                    pass

        return Handler
