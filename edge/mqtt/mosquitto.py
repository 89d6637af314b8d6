"""The broker of the star: mosquitto's configuration, its program, and the model that stands for it.

Nothing here starts it: a fabric does. What the configuration says and leaves out is meant: `mosquitto`
acknowledges a QoS 1 publish as soon as it has forwarded it, and writes sessions, queues and retained messages
to its database every `autosave_interval` seconds, 1800 by default. A power cut in between loses all of that.
`autosave_on_changes` narrows the gap and costs a disk write a message.

Source: mosquitto.conf(5), mosquitto 2.0.
"""

from __future__ import annotations

from functools import partial

from edge.mqtt.model_broker import BrokerConfig, ModelBroker
from edge.mqtt.packets import BROKER, PORT
from underlay.plan import ProgramPlan

CONFIGURATION_FILE = "mosquitto.conf"


def mosquitto(config: BrokerConfig, *, port: int = PORT) -> ProgramPlan:
    """A broker as a program of a device. Its folder keeps the database across a crash of the device."""
    return ProgramPlan(
        name=BROKER,
        argv=("mosquitto", "-c", f"{{dir}}/{CONFIGURATION_FILE}"),
        files={CONFIGURATION_FILE: configuration(config, port)},
        ready_port=port,
        model=partial(ModelBroker, config),
    )


def configuration(config: BrokerConfig, port: int = PORT) -> str:
    """The text of mosquitto.conf, with `{dir}` and `{ip}` left open."""
    # With autosave_on_changes the interval counts changes instead of seconds.
    interval = 1 if config.autosave_on_changes else config.autosave_interval_s
    settings = {
        "listener": f"{port} {{ip}}",
        "allow_anonymous": "true",
        # Otherwise it becomes a user who may not write to {dir} and outlives its parent.
        "user": "root",
        "persistence": "true",
        "persistence_location": "{dir}/",
        "autosave_interval": interval,
        "autosave_on_changes": "true" if config.autosave_on_changes else "false",
        "max_inflight_messages": config.max_in_flight,
        "max_queued_messages": config.max_queued,
        "queue_qos0_messages": "false",
        "persistent_client_expiration": f"{max(1, round(config.session_expiry_s / 3600))}h",
        # Nagle's algorithm would hold a small message back until the one before it was acknowledged.
        "set_tcp_nodelay": "true",
        "log_dest": "stderr",
        "log_type": "error\nlog_type warning\nlog_type notice",
    }
    return "".join(f"{key} {value}\n" for key, value in settings.items())
