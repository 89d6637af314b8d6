"""One client's connection, as the router knows it."""

from __future__ import annotations

from kv.redis.messages import Advertised, Opened


class Client:
    """What the client said about itself, and how it wants to be answered."""

    __slots__ = (
        "advertised",
        "asking",
        "ending",
        "here",
        "library",
        "library_version",
        "name",
        "number",
        "opened_s",
        "peer",
        "readonly",
        "version",
    )

    def __init__(self, opened: Opened, now_s: float) -> None:
        self.number = opened.connection
        self.peer = opened.peer
        self.here = opened.here
        self.advertised: Advertised = opened.advertised
        self.opened_s = now_s
        self.library = self.library_version = b""
        self.ending = False
        """The connection is closed after the replies that are under way."""
        self.reset()

    def reset(self) -> None:
        """Be as a new connection is."""
        self.version = 2
        self.name = b""
        self.readonly = False
        """Replicas here may answer reads from what they have."""
        self.asking = False
        """The next command follows an ASK."""
