"""CoAP for birdhouses: what nodes say to their endpoint, the real endpoint (aiocoap), and its model."""
