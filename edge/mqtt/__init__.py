"""MQTT under the star: local messages of its client, the real client and broker, and models of both."""
