"""Gossip: every birdhouse tells its neighbours in range, until everyone has the same data."""

from edge.gossip.peer import GossipConfig, GossipPeer

__all__ = ["GossipConfig", "GossipPeer"]
