"""What the doctor says of this machine, and which enforcer follows from it."""

from __future__ import annotations

import os

import pytest

from underlay.emulation import doctor
from underlay.errors import Unavailable


def test_without_root_emulation_is_unavailable_and_the_reason_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match=r"root: we are user 1000 \(run it with sudo\)"):
        doctor.choose_enforcer("auto", shared=False)


@pytest.mark.emulation
def test_where_emulation_tests_run_everything_they_need_is_found() -> None:
    findings = doctor.examine()
    assert [finding for finding in findings if finding.need == "emulation" and not finding.good] == []
    assert all(finding.remedy for finding in findings if not finding.good)


@pytest.mark.emulation
@pytest.mark.parametrize("asked", ["auto", "ether"])
@pytest.mark.parametrize("shared", [False, True])
def test_the_ether_enforces_links_and_channels(asked: str, shared: bool) -> None:
    assert doctor.choose_enforcer(asked, shared=shared)[0] == "ether"


@pytest.mark.emulation
def test_netem_is_never_taken_for_a_channel() -> None:
    with pytest.raises(Unavailable, match="shared channel"):
        doctor.choose_enforcer("netem", shared=True)
