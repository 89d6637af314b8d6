"""Mininet's nodes, each in a namespace held by descriptor, with a shell that starts when it is talked to.

Owns hosts, bridges, and what runs in them. Stock Mininet starts a shell for each node and configures the node
by typing into it, which is where the time goes; here `cmd`, `sendCmd`, the command line and everything else
that needs the shell still find one, and configuration goes over the routing socket. `mnexec` is not used.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from subprocess import PIPE, Popen
from typing import Any

from underlay.emulation import rtnetlink, stock
from underlay.emulation.namespace import Namespace, end_processes
from underlay.errors import InputError


class _OfShell:
    """What Mininet's Node keeps about its shell: whoever reads it wants the shell, so that is started."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._key = f"_shell_{name}"

    def __get__(self, node: NamespaceNode, owner: type) -> Any:
        node.ensure_shell()
        return node.__dict__.get(self._key)

    def __set__(self, node: NamespaceNode, value: object) -> None:
        node.__dict__[self._key] = value


class NamespaceNode(stock.Node):
    """What hosts and bridges share; mixed in before one of Mininet's Node classes."""

    isSetup = True  # Mininet looks for mnexec and ifconfig otherwise

    shell = _OfShell()
    pid = _OfShell()
    stdin = _OfShell()
    stdout = _OfShell()
    pollOut = _OfShell()

    def __init__(self, name: str, **params: Any) -> None:
        if not params.get("inNamespace", True):
            raise InputError(
                "this class of node always has a namespace of its own", key=name, hint="use mininet.node.Node"
            )
        self._shell_wanted = False
        self._children: list[Popen[bytes]] = []
        self.namespace = Namespace.open()
        """Public: a forked child may enter it, and dies with the network."""
        try:
            super().__init__(name, **params)
        except BaseException:
            self.terminate()
            raise

    @property
    def interfaces(self) -> list[Any]:
        """Our interfaces by port number."""
        return list(self.intfList())

    # ------------------------------------------------------------------------------------ shell and processes

    def startShell(self, mnopts: str | None = None) -> None:
        """Mininet's constructor asks for the shell; it has to wait until it is used."""

    def ensure_shell(self) -> None:
        """Start the shell if it never ran; once the node has been stopped it stays gone."""
        if not self._shell_wanted and not self.namespace.closed:
            self._shell_wanted = True
            super().startShell()

    def sendCmd(self, *args: Any, **kwargs: Any) -> None:
        """Type a command into the shell, as in Mininet; `printPid` works without mnexec."""
        self.namespace.flush()
        if kwargs.pop("printPid", False):
            words = args[0] if len(args) == 1 and isinstance(args[0], list) else args
            args = (_PRINT_PID + " ".join(str(word) for word in words),)
        super().sendCmd(*args, **kwargs)

    def popen(self, *args: Any, **kwargs: Any) -> Popen[bytes]:
        """Start a program inside, as Mininet's `popen` does, but it ends when the node does.

        Args:
            args: a command as one string (split at blanks), one list, or several words.
            kwargs: for `subprocess.Popen`; output goes to pipes unless told otherwise; `shell` means $SHELL.
        """
        whole = args[0] if len(args) == 1 else list(args)
        by_shell = kwargs.pop("shell", False)
        kwargs.pop("mncmd", None)
        words = list(whole) if not isinstance(whole, str) else [whole] if by_shell else whole.split()
        if by_shell:
            words = [os.environ.get("SHELL", "/bin/sh"), "-c", " ".join(words)]
        if self.privateDirs:  # they are mounted in the shell's mount namespace only
            words = ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "--", *words]
        return self._popen(words, **{"stdout": PIPE, "stderr": PIPE, "start_new_session": True, **kwargs})

    def _popen(self, cmd: Sequence[str], **params: Any) -> Popen[bytes]:
        """Fork inside the namespace: the child never was outside. What comes with mnexec is the shell."""
        if cmd[0] == "mnexec":
            cmd = [*_SHELL_STARTER, *cmd[2:]]
            params["close_fds"] = True
        with self.namespace.enter():
            child = Popen(cmd, **params)
        self._children = [other for other in self._children if other.poll() is None]
        self._children.append(child)
        return child

    def terminate(self) -> None:
        """End every process inside, whoever started it, and let go of the namespace and all its
        interfaces."""
        end_processes([self.namespace])
        self.close()

    def close(self) -> None:
        """The second half of `terminate`, for a caller that has ended the processes of many nodes at once."""
        if self._shell_wanted and self.shell is not None:
            for nodes_by_fd in (stock.Node.inToNode, stock.Node.outToNode):
                nodes_by_fd.pop(self.stdout.fileno(), None)
            super().cleanup()
        for child in self._children:
            child.wait()
        self._children.clear()
        self.namespace.close()

    # ------------------------------------------------------------------------------------------ configuration

    def config(
        self,
        mac: str | None = None,
        ip: str | None = None,
        defaultRoute: str | None = None,
        lo: str = "up",
        **_params: Any,
    ) -> dict[str, Any]:
        """Configure the default interface, and nothing by shell; parameters are Mininet's."""
        results: dict[str, Any] = {}
        for method, param in (
            ("setMAC", {"mac": mac}),
            ("setIP", {"ip": ip}),
            ("setDefaultRoute", {"defaultRoute": defaultRoute}),
        ):
            self.setParam(results, method, **param)
        if lo != "up":
            self.namespace.submit(rtnetlink.set_link(rtnetlink.LOOPBACK, up=False))
        return results

    def setARP(self, ip: str, mac: str) -> None:
        """A permanent neighbour entry on the default interface."""
        interface = self.defaultIntf()
        self.namespace.submit(rtnetlink.set_neighbour(self.namespace.index(interface.name), ip, mac))

    def setHostRoute(self, ip: str, intf: Any) -> None:
        """A route to one address, which is on that interface's link."""
        self.namespace.submit(rtnetlink.set_route(ip, index=self.namespace.index(str(intf))))

    def setDefaultRoute(self, intf: Any = None) -> None:
        """The default route: an interface, its name, or `"via <address> [dev <name>]"`."""
        words = str(intf or self.defaultIntf()).split()
        given = {"dev": words[0]} if len(words) == 1 else dict(zip(words[::2], words[1::2], strict=False))
        if len(words) > 1 and (len(words) % 2 or not given.keys() <= {"dev", "via"}):
            raise InputError(
                f"cannot read the default route {intf!r}",
                key=self.name,
                hint='say "via <address> [dev <name>]"',
            )
        index = self.namespace.index(given["dev"]) if "dev" in given else None
        self.namespace.submit(rtnetlink.set_route("default", index=index, via=given.get("via")))

    def __repr__(self) -> str:
        addresses = ",".join(f"{interface.name}:{interface.IP()}" for interface in self.interfaces)
        # Not through self.pid: looking at a node is no reason to start its shell.
        return f"<{type(self).__name__} {self.name}: {addresses} pid={self.__dict__.get('_shell_pid')}>"


class Host(NamespaceNode, stock.Host):
    """A host."""


class Bridge(NamespaceNode, stock.Switch):
    """A switch that is a Linux bridge in a namespace of its own: needs no Open vSwitch, and no controller."""

    controlIntf = None  # a switch in a namespace has none until Mininet makes a control network

    def __init__(self, name: str, stp: bool = False, **params: Any) -> None:
        """`stp` for topologies with loops."""
        self.stp = stp
        super().__init__(name, **{**params, "inNamespace": True})
        self.bridge = short_name(name)
        index = self.namespace.number(self.bridge)
        self.namespace.submit(rtnetlink.bridge(self.bridge, index, stp=stp), rtnetlink.no_ipv6_address(index))

    def defaultDpid(self, dpid: str | None = None) -> str:
        """A bridge has no datapath id, so its name need not hold a number."""
        return dpid or ""

    def addIntf(self, intf: Any, port: int | None = None, **kwargs: Any) -> None:
        """A new interface is a port of the bridge, also while the network runs."""
        super().addIntf(intf, port=port, **kwargs)
        master = self.namespace.index(self.bridge)
        self.namespace.submit(rtnetlink.set_link(self.namespace.index(intf.name), master=master))

    def start(self, _controllers: object = ()) -> None:
        """Begin to forward."""
        self.namespace.submit(rtnetlink.set_link(self.namespace.index(self.bridge), up=True))

    def stop(self, deleteIntfs: bool = True) -> None:
        """Forward no more. Interfaces go with the namespace, in `terminate`."""
        if not self.namespace.closed:
            self.namespace.submit(rtnetlink.set_link(self.namespace.index(self.bridge), up=False))


def namespace_of(node: Any) -> Namespace:
    """A node's namespace; a node of Mininet's own classes lends the one its shell lives in."""
    if not hasattr(node, "namespace"):
        node.namespace = Namespace.of_process(node.pid)
    namespace: Namespace = node.namespace
    return namespace


def short_name(name: str, suffix: str = "") -> str:
    """`name + suffix`, or where that is more than the kernel's 15 characters, its beginning and a digest.

    >>> short_name("cam3", "-eth0"), short_name("birdhouse-by-the-pond", "-eth12")
    ('cam3-eth0', 'bird-796a-eth12')
    """
    if len(name + suffix) <= _NAME_MAX:
        return name + suffix
    digest = f"-{zlib.crc32(name.encode()) & 0xFFFF:04x}"
    return name[: _NAME_MAX - len(digest + suffix)] + digest + suffix


_NAME_MAX = 15

_SHELL_STARTER = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    # /sys of this namespace, and a session of its own, as under mnexec.
    'mount -t sysfs sysfs /sys 2>/dev/null; exec setsid "$@"',
    "sh",
)
_PRINT_PID = 'sh -c \'printf "\\001%d\\012" $$; exec "$@"\' sh '
