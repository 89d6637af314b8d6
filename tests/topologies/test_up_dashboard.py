"""The dashboard of a network that is up, in a browser: what breaks there breaks in the network, and mends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.dashboard.devtools import CHROMIUM, Browser
from tests.gateway.dashboard.test_dashboard import ACTION, LINES, LIVE
from tests.topologies.test_up import await_, up

pytestmark = [pytest.mark.emulation, pytest.mark.timeout(180)]

CAM = '.device[aria-label^="cam2,"]'


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    made = Browser(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.needs(*CHROMIUM)
def test_what_is_broken_on_the_dashboard_is_broken_in_the_network_and_mends(
    tmp_path: Path, browser: Browser
) -> None:
    with up(tmp_path, "-a", "star") as system, system.http() as http:
        await_(lambda: len(http.get("/api/v1/devices").json()) == 4)
        browser.open(f"http://127.0.0.1:{system.port('http')}/")
        browser.wait(LIVE, 40)
        browser.wait('document.querySelectorAll("#photographs li:not([data-missing])").length === 4', 40)
        _crash_and_restart(browser, http)
        _cut_and_heal(browser, http)
        told = [line.partition(" s ")[2] for line in reversed(browser.value(LINES))]
        assert [line for line in told if "cam2" in line] == [
            "cam2 is down, by hand",
            "cam2 is up, by hand",
            "Link cam2 – hub is cut, by hand",
            "Link cam2 – hub is whole, by hand",
        ]
        assert browser.complaints == []


def _crash_and_restart(browser: Browser, http: httpx.Client) -> None:
    browser.click(CAM)
    browser.wait(f"""document.querySelector('{ACTION}').textContent === "Crash cam2" """)
    browser.click(ACTION)
    browser.click(ACTION)
    browser.wait(f"document.querySelector('{CAM}').dataset.state === 'down'")
    document = http.get("/api/v1/state").json()
    assert [each["name"] for each in document["devices"] if not each["up"]] == ["cam2"]
    assert not any(link["up"] for link in document["links"] if "cam2" in (link["a"], link["b"]))
    assert not any(link["cut"] for link in document["links"])
    kept = _device(document, "cam2")["kept"]
    browser.wait(f"""document.querySelector('{ACTION}').textContent === "Restart cam2" """)
    browser.click(ACTION)
    browser.wait(f"document.querySelector('{CAM}').dataset.state === 'up'")
    await_(lambda: _device(http.get("/api/v1/state").json(), "cam2")["kept"] > kept)


def _cut_and_heal(browser: Browser, http: httpx.Client) -> None:
    link = '.link[aria-label^="Link cam2 to hub,"]'
    browser.value(f"document.querySelector('{link}').focus()")
    browser.press("Enter")
    browser.wait(f"""document.querySelector('{ACTION}').textContent === "Cut the link" """)
    browser.click(ACTION)
    browser.click(ACTION)
    browser.wait(f"document.querySelector('{link}').dataset.state === 'cut'")
    assert _cut(http) == [("cam2", "hub")]
    browser.wait(f"""document.querySelector('{ACTION}').textContent === "Heal the link" """)
    browser.click(ACTION)
    browser.wait(f"!['cut', 'dead'].includes(document.querySelector('{link}').dataset.state)")
    assert _cut(http) == []


def _cut(http: httpx.Client) -> list[tuple[str, str]]:
    links = http.get("/api/v1/network").json()["links"]
    return [(link["a"], link["b"]) for link in links if link["cut"]]


def _device(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in document["devices"] if each["name"] == name)
    return found
