"""What runs on a birdhouse: sensors that replay real data, and the disseminations star, caching and
gossip."""
