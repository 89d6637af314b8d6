"""Hash slots: which of 16,384 pieces of the key space a key belongs to.

Source: the Redis Cluster specification, "Key distribution model" and "Hash tags": CRC-16/XMODEM of the key,
or of what stands between its first `{` and the next `}` where that is not empty, modulo 16,384.
"""

from __future__ import annotations

from binascii import crc_hqx

SLOTS = 16_384


def slot_of(key: bytes) -> int:
    """The slot of a key.

    >>> slot_of(b"123456789"), slot_of(b"obs:{cam3}:temperature") == slot_of(b"cam3")
    (12739, True)
    """
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) & (SLOTS - 1)
