"""Doors of the gateway that are nodes: they translate what a device's protocol endpoint heard."""
