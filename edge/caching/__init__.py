"""Caching: birdhouses serve what they observed, caches ask them once, however many ask the caches."""
