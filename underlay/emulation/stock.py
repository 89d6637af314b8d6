"""The one door to Mininet's own modules: whoever needs a class of theirs takes it from here.

Mininet 2.3 imports `distutils`, which Python 3.11 warns about and 3.12 no longer has: setuptools keeps a
copy, which takes its place once setuptools has been imported, so that has to happen first. Its modules also
hold invalid escape sequences, about which the compiler warns when it first meets them. Neither is our user's
business.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from unittest.mock import patch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    if importlib.util.find_spec("distutils") is None:
        importlib.import_module("setuptools")
    # Mininet keeps the logger's method as it finds it on import, and `warn` warns about itself.
    with patch.object(logging.Logger, "warn", logging.Logger.warning):
        from mininet.log import error, lg, setLogLevel
    from mininet.cli import CLI
    from mininet.link import Intf, Link, TCIntf, TCLink
    from mininet.net import Mininet
    from mininet.node import Host, Node, Switch
    from mininet.topo import LinearTopo, SingleSwitchTopo, Topo
    from mininet.topolib import TreeTopo

__all__ = [
    "CLI",
    "Host",
    "Intf",
    "LinearTopo",
    "Link",
    "Mininet",
    "Node",
    "SingleSwitchTopo",
    "Switch",
    "TCIntf",
    "TCLink",
    "Topo",
    "TreeTopo",
    "error",
    "lg",
    "setLogLevel",
]
