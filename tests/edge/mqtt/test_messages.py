"""Topic filters, by the examples of the standard (MQTT 5, section 4.7), and as paho reads them."""

from __future__ import annotations

import pytest
from paho.mqtt.client import topic_matches_sub

from edge.mqtt.messages import topic_matches

CASES = [
    ("sport/tennis/player1/#", "sport/tennis/player1", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
    ("sport/#", "sport", True),
    ("#", "sport/tennis", True),
    ("sport/tennis/+", "sport/tennis/player1", True),
    ("sport/tennis/+", "sport/tennis/player1/ranking", False),
    ("sport/+", "sport", False),
    ("sport/+", "sport/", True),
    ("+/+", "/finance", True),
    ("/+", "/finance", True),
    ("+", "/finance", False),
    ("#", "$SYS/uptime", False),
    ("+/uptime", "$SYS/uptime", False),
    ("$SYS/#", "$SYS/uptime", True),
    ("birdhouse/+/+", "birdhouse/cam3/motion", True),
    ("birdhouse/+/+", "birdhouse/cam3", False),
    ("birdhouse/+/+", "birdhouse/cam3/motion/raw", False),
    ("birdhouse/cam3/#", "birdhouse/cam30/motion", False),
    ("Birdhouse/+/+", "birdhouse/cam3/motion", False),
]


@pytest.mark.parametrize(("wanted", "topic", "matches"), CASES)
def test_a_filter_selects_what_the_standard_says(wanted: str, topic: str, matches: bool) -> None:
    assert topic_matches(wanted, topic) is matches
    assert topic_matches_sub(wanted, topic) is matches, "paho reads the standard in the same way"
