"""The observation: what a sensor saw, and the one form in which it travels through every dissemination."""

from __future__ import annotations

import msgspec

from underlay.messages import Message


class ObservationId(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Identity of an observation: retries and echoes of it are duplicates.

    >>> str(ObservationId("cam3", 17))
    'cam3:17'
    """

    device: str
    sequence: int
    """Counts a sensor's schedule: also what a device did not observe while it was down has a number."""

    def __str__(self) -> str:
        return f"{self.device}:{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> ObservationId:
        """The inverse of `str`; raises ValueError."""
        device, _, sequence = text.rpartition(":")
        if not device:
            raise ValueError(f"{text!r} is no observation id, expected device:sequence")
        return cls(device, int(sequence))


class Observation(msgspec.Struct, frozen=True, array_like=True):
    """One observation. On the wire a msgpack array; `encode` and `decode` give the bytes."""

    id: ObservationId
    kind: str
    """`temperature`, `humidity`, `photograph`, `motion`, or `motion-bursts`."""
    t_event: float
    """Time in the data set, Unix seconds; windows of jobs use it. Sped up by `replay_speed`."""
    t_gen: float
    """The device's own clock when it observed, seconds."""
    payload: bytes
    """What the kind defines: a small msgpack struct, or a JPEG."""

    def encode(self) -> bytes:
        """The bytes of this observation."""
        return _encoder.encode(self)

    @staticmethod
    def decode(data: bytes) -> Observation:
        """Raises msgspec.DecodeError for anything that is no observation."""
        try:
            return _decoder.decode(data)
        except UnicodeDecodeError as error:  # msgspec lets it through
            raise msgspec.DecodeError(str(error)) from error

    def key(self) -> bytes:
        """Where storage keeps it: `obs:{device}:kind:t_event:seq`, hash-tagged by device, ordered by time."""
        return f"obs:{{{self.id.device}}}:{self.kind}:{self.t_event:017.3f}:{self.id.sequence:010d}".encode()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Observation)


class Observed(Message, frozen=True, array_like=True, tag=1):
    """From a device's sensor to its dissemination node, and from there to a device's subscriber (the
    sink)."""

    transport = "local"
    carries_payload = True
    observation: Observation
