"""The dashboard in a browser: it shows the state as it changes, and what is pressed there happens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.dashboard import page_files
from tests.gateway.dashboard.devtools import CHROMIUM, Browser
from tests.gateway.dashboard.stand_in import StandIn, network

LIVE = 'document.body.dataset.feed === "live" && document.querySelectorAll("#cards > li").length'
HUB = '.device[aria-label^="hub,"]'
CUT = '.link[aria-label^="Link hub to cam1,"]'
ACTION = "#panel-actions button"
LINES = '[...document.querySelectorAll("#events li")].map((line) => line.textContent)'


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(tmp_path)
    try:
        yield browser
    finally:
        browser.close()


@pytest.fixture
def gateway() -> Iterator[StandIn]:
    gateway = StandIn(network())
    yield gateway
    gateway.close()


def opened(browser: Browser, gateway: StandIn) -> None:
    browser.open(gateway.address)
    browser.wait(LIVE)


def test_the_page_names_no_other_host_and_makes_no_markup_of_data() -> None:
    for name, file in page_files().items():
        text = file.body.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.[a-z]|@import|innerHTML|insertAdjacent|eval\(", text), name


def test_every_module_that_is_imported_is_there() -> None:
    files = page_files()
    text = "\n".join(file.body.decode() for file in files.values())
    imported = set(re.findall(r'from "\./([\w.]+)"', text))
    assert imported
    assert imported <= set(files)


@pytest.mark.needs(*CHROMIUM)
def test_it_shows_every_part_of_the_state(browser: Browser, gateway: StandIn) -> None:
    opened(browser, gateway)
    for part in (
        "quickstart",
        "12.3 °C, humidity 81",
        "store1/kv",
        "8,192",
        "readings",
        "the run started",
    ):
        browser.wait(f"document.body.innerText.includes({part!r})")
    assert browser.value('document.querySelectorAll(".device").length') == 9
    assert browser.value('document.querySelectorAll(".link").length') == 8
    browser.wait('document.querySelector("#photographs canvas").height !== 240')
    assert browser.value("document.querySelectorAll('[data-missing]').length") == 0
    assert browser.complaints == []


@pytest.mark.needs(*CHROMIUM)
def test_it_follows_changes_without_rebuilding(browser: Browser, gateway: StandIn) -> None:
    """The same elements show the new state; elements are made for what is new only."""
    opened(browser, gateway)
    browser.value(
        """void (window.before = [...document.querySelectorAll("#cards li, #map g, #routes tr")],
        window.made = 0, new MutationObserver((all) => {
            for (const { addedNodes } of all)
                window.made += [...addedNodes].filter((node) => node.nodeType === 1).length;
        }).observe(document.querySelector("main"), { childList: true, subtree: true }))"""
    )
    for _ in range(4):
        gateway.device("cam1")["kept"] += 7
        gateway.state["routes"][0]["written"] += 7
        gateway.state["links"][0]["bytes_per_s"] += 500.0
        gateway.change()
    browser.wait('document.getElementById("cards").innerText.includes("38 kept")')
    browser.wait('document.getElementById("routes").innerText.includes("86")')
    assert browser.value("window.before.every((node) => node.isConnected)")
    assert browser.value("window.made") == 0
    assert browser.complaints == []


@pytest.mark.needs(*CHROMIUM)
def test_a_crash_clicked_there_is_seen_and_so_is_the_restart(browser: Browser, gateway: StandIn) -> None:
    opened(browser, gateway)
    browser.click(HUB)
    browser.click(ACTION)
    browser.wait(f'document.querySelector("{ACTION}").textContent === "Crash hub: press again"')
    assert gateway.faults == []
    browser.click(ACTION)
    browser.wait("document.querySelector('" + HUB + "').dataset.state === 'down'")
    browser.wait('document.getElementById("events").innerText.includes("hub is down, by hand")')
    assert gateway.faults == [{"fault": "crash", "device": "hub"}]
    browser.wait(f'document.querySelector("{ACTION}").textContent === "Restart hub"')
    browser.click(ACTION)
    browser.wait('document.getElementById("events").innerText.includes("hub is up")')
    assert gateway.faults[1:] == [{"fault": "restart", "device": "hub"}]
    assert browser.complaints == []


@pytest.mark.needs(*CHROMIUM)
def test_what_was_done_by_hand_is_told_once_and_its_links_are_not_cut(
    browser: Browser, gateway: StandIn
) -> None:
    """Also where its effect comes later than it was told, and at last where none comes."""
    opened(browser, gateway)
    gateway.inject({"fault": "crash", "device": "cam1"})
    browser.wait(f"{LINES}.length === 2")
    browser.wait(f"document.querySelector('{CUT}').dataset.state === 'dead'")
    told = {"t": gateway.state["now"], "text": "crash cam2", "fault": {"fault": "crash", "device": "cam2"}}
    slow = {"t": gateway.state["now"], "text": "slow-disk cam3", "fault": {"fault": "slow-disk"}}
    gateway.state["events"].append(told)
    gateway.change()
    gateway.device("cam2")["up"] = False
    gateway.state["events"].append(slow)
    gateway.change()
    gateway.state["events"].append(
        told | {"text": "restart cam3", "fault": {"fault": "restart", "device": "cam3"}}
    )
    for _ in range(9):
        gateway.change()
    browser.wait(f"{LINES}.length === 5")
    lines = [line.partition(" s ")[2] for line in browser.value(LINES)]
    assert lines == [
        "restart cam3, by hand",
        "cam2 is down, by hand",
        "slow-disk cam3, by hand",
        "cam1 is down, by hand",
        "the run started",
    ]
    assert browser.complaints == []


@pytest.mark.needs(*CHROMIUM)
def test_what_a_page_did_not_see_happen_is_told_to_it_when_it_opens(
    browser: Browser, gateway: StandIn
) -> None:
    gateway.inject({"fault": "crash", "device": "cam1"})
    opened(browser, gateway)
    browser.wait(f"{LINES}.length === 2")
    assert "crash cam1, by hand" in browser.value(LINES)[0]


@pytest.mark.needs(*CHROMIUM)
def test_a_link_is_cut_and_healed_with_the_keyboard_alone(browser: Browser, gateway: StandIn) -> None:
    opened(browser, gateway)
    browser.value(f"document.querySelector('{CUT}').focus()")
    browser.press("Enter")
    browser.wait(f'document.querySelector("{ACTION}").textContent === "Cut the link"')
    browser.value(f'document.querySelector("{ACTION}").focus()')
    browser.press("Enter")
    browser.press("Enter")
    browser.wait(f"document.querySelector('{CUT}').dataset.state === 'cut'")
    browser.wait(f'document.activeElement === document.querySelector("{ACTION}")')
    browser.press("Enter")
    browser.wait(f"document.querySelector('{CUT}').dataset.state !== 'cut'")
    ends = {"a": "hub", "b": "cam1"}
    assert gateway.faults == [{"fault": "link-down", **ends}, {"fault": "link-up", **ends}]
    assert browser.complaints == []


@pytest.mark.needs(*CHROMIUM)
def test_why_a_fault_was_refused_is_shown(browser: Browser, gateway: StandIn) -> None:
    opened(browser, gateway)
    browser.click('.device[aria-label^="sink,"]')
    browser.click(ACTION)
    browser.click(ACTION)
    browser.wait('document.getElementById("panel-answer").textContent.includes("the sink is spared")')
    assert gateway.faults == []


@pytest.mark.needs(*CHROMIUM)
def test_a_gateway_that_goes_away_is_missed_and_found_again(browser: Browser, gateway: StandIn) -> None:
    opened(browser, gateway)
    gateway.away = True
    gateway.change()
    browser.wait('document.getElementById("banner").checkVisibility()')
    gateway.away = False
    browser.wait(LIVE + ' && !document.getElementById("banner").checkVisibility()')


@pytest.mark.needs(*CHROMIUM)
def test_where_nothing_streams_the_state_is_asked_for(browser: Browser) -> None:
    gateway = StandIn(network(2), streams=False)
    try:
        browser.open(gateway.address)
        browser.wait('document.body.dataset.feed === "polling"')
        gateway.device("cam1")["up"] = False
        browser.wait('document.getElementById("events").innerText.includes("cam1 is down")')
    finally:
        gateway.close()


@pytest.mark.needs(*CHROMIUM)
def test_a_token_is_asked_for_and_used(browser: Browser) -> None:
    gateway = StandIn(network(2), token="feather")
    try:
        browser.open(gateway.address)
        browser.wait('document.getElementById("token-form").checkVisibility()')
        browser.value('void (document.getElementById("token").value = "feather")')
        browser.click("#token-form button")
        browser.wait(LIVE)
    finally:
        gateway.close()


@pytest.mark.needs(*CHROMIUM)
def test_a_hostile_name_is_only_a_name(browser: Browser) -> None:
    name = '<img src=x onerror="window.broken=1">"\'&'
    gateway = StandIn(network(2, strange=name))
    try:
        opened(browser, gateway)
        assert browser.value("[...document.querySelectorAll('#cards .name')].at(2).textContent") == name
        assert browser.value("[window.broken, document.images.length]") == [None, 0]
        browser.value("[...document.querySelectorAll('#cards .name')].at(2).click()")
        browser.click(ACTION)
        browser.click(ACTION)
        browser.wait('document.getElementById("events").innerText.includes("is down")')
        assert gateway.faults == [{"fault": "crash", "device": name}]
        assert browser.complaints == []
    finally:
        gateway.close()


@pytest.mark.needs(*CHROMIUM)
def test_sixty_devices_fit_a_phone(browser: Browser) -> None:
    gateway = StandIn(network(60))
    try:
        browser.look_like(320, 640)
        opened(browser, gateway)
        assert browser.value('document.querySelectorAll("#cards > li").length') == 63
        assert browser.value("document.documentElement.scrollWidth") <= 320
        assert browser.complaints == []
    finally:
        gateway.close()


def _says(id_: str, words: str) -> str:
    return f'document.getElementById("{id_}").innerText.includes({words!r})'


@pytest.mark.needs(*CHROMIUM)
def test_a_job_is_submitted_followed_and_its_rows_are_seen(browser: Browser, gateway: StandIn) -> None:
    opened(browser, gateway)
    assert gateway.jobs == {}
    browser.click("#jobs summary")
    browser.wait('document.querySelectorAll("#job-ready option").length === 2')
    browser.value("""void (document.getElementById("job-name").value = "hourly",
        document.getElementById("job-name").dispatchEvent(new Event("change")),
        document.getElementById("job-parameters").value = "window=6h")""")
    browser.wait(_says("job-about", "How warm was it?"))
    browser.click("#job-submit")
    browser.wait(_says("job-state", "running"))
    assert gateway.jobs["j1"]["parameters"] == {"window": "6h"}
    browser.wait(_says("job-maps-count", "1 of 2"))
    browser.wait(_says("job-bad", "cam1:7: mine.py:3: KeyError"))
    gateway.jobs["j1"] |= {
        "state": "done",
        "maps_done": 2,
        "reduces_done": 4,
        "rows": 2,
        "chunks": [1, 0, 0, 1],
    }
    browser.wait(_says("job-rows", "<b>cam2"))
    browser.wait(_says("job-rows-count", "2 rows"))
    assert browser.value('document.getElementById("job-csv").href').endswith(
        "/api/v1/jobs/j1/result?format=csv"
    )
    assert browser.complaints == []


@pytest.mark.needs(*CHROMIUM)
def test_a_job_is_cancelled_with_a_second_press_and_what_is_no_job_is_told(
    browser: Browser, gateway: StandIn
) -> None:
    opened(browser, gateway)
    browser.click("#jobs summary")
    browser.wait('document.querySelectorAll("#job-ready option").length === 2')
    browser.click("#job-submit")
    browser.wait(_says("job-state", "running"))
    browser.click("#job-actions button")
    assert gateway.jobs["j1"]["state"] == "running"
    browser.click("#job-actions button")
    browser.wait(_says("job-state", "cancelled"))
    browser.value("""void (document.getElementById("job-name").value = "",
        document.getElementById("job-name").dispatchEvent(new Event("change")),
        document.getElementById("job-source").value = "job = (")""")
    browser.click("#job-submit")
    browser.wait(_says("job-answer", "mine.py:1: SyntaxError"))
