"""Judging histories: whether what clients saw could have come from one store that does one thing at a time.

`history` is what a client records, `register` says what one key does under our commands, `linearizability`
searches for an order. Nothing here knows how replicas agree.
"""
