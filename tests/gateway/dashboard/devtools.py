"""Chromium, driven over its DevTools protocol through a pipe: nothing listens anywhere.

Owns the browser's process and profile. https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


class Browser:
    """One page. `complaints` are its errors and warnings, on the console or thrown."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 900) -> None:
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        program = next(filter(shutil.which, CHROMIUM))
        # The protocol is spoken on descriptors 3 and 4, which a shell can arrange without preexec_fn.
        shell = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            [
                "bash", "-c", shell, program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                "--no-first-run", "--disable-background-networking", "--disable-component-update",
                "--disable-sync", f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}",
                "--remote-debugging-pipe", "about:blank",
            ],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._out = os.fdopen(ours_out, "wb", buffering=0)
        self._in = os.fdopen(ours_in, "rb", buffering=0)
        self._answers: dict[int, dict[str, Any]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._last = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        page = next(one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """Ends the browser and waits for it."""
        self._session = None
        self.call("Browser.close")
        self._process.wait(20)
        self._reader.join(20)
        self._out.close()
        self._in.close()

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """The result of one command; fails where the browser does not know it, or has gone."""
        self._last += 1
        number = self._last
        message: dict[str, object] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        with self._changed:
            assert self._changed.wait_for(lambda: number in self._answers or self._closed, 30), method
            answer = self._answers.pop(number, {"error": "the browser has gone"})
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is in the page; a promise is waited for."""
        found = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str, timeout_s: float = 20) -> None:
        """Until a JavaScript condition holds: looked at whenever the page draws."""
        held = self.value(
            f"""new Promise((resolve) => {{
                const until = performance.now() + {timeout_s * 1000};
                const look = () => {{
                    let held = false;
                    try {{ held = Boolean({condition}); }} catch {{ /* not there yet */ }}
                    if (held || performance.now() > until) resolve(held);
                    else setTimeout(look, 20);
                }};
                look();
            }})"""
        )
        assert held, f"never came true: {condition}\n{self.value('document.body.innerText')}"

    def press(self, key: str) -> None:
        """A key, pressed and let go."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        code = {"Enter": 13, "Tab": 9, " ": 32}[key]
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text, windowsVirtualKeyCode=code)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def click(self, selector: str) -> None:
        """The mouse, in the middle of what the selector finds."""
        box = self.value(
            f"""(() => {{
                const found = document.querySelector({json.dumps(selector)});
                found.scrollIntoView({{ block: "center" }});
                const box = found.getBoundingClientRect();
                return {{ x: box.x + box.width / 2, y: box.y + box.height / 2 }};
            }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **box)

    def look_like(self, width: int, height: int, **media: str) -> None:
        """The size of the window and CSS media features, as prefers_color_scheme="dark"."""
        self.call("Emulation.setScrollbarsHidden", hidden=True)  # they take room from a picture's right edge
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.call("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path) -> None:
        """A PNG of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _read(self) -> None:
        rest = b""
        while chunk := self._in.read(1 << 16):
            *whole, rest = (rest + chunk).split(b"\0")
            for message in whole:
                self._take(json.loads(message))
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            with self._changed:
                self._answers[message["id"]] = message
                self._changed.notify_all()
            return
        parameters: Mapping[str, Any] = message["params"]
        match message["method"]:
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning", "assert"):
                self.complaints.append(str([one.get("value") for one in parameters["args"]]))
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(parameters["exceptionDetails"]))
            case "Log.entryAdded" if parameters["entry"]["level"] in ("error", "warning"):
                self.complaints.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
