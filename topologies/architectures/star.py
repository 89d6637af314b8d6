"""The star: a broker on the hub, every birdhouse its client; the overlay's one root is the point of
failure."""

from __future__ import annotations

from functools import partial

from edge.mqtt.frames import carries_publish
from edge.mqtt.messages import CLIENT
from edge.mqtt.model_broker import BrokerConfig
from edge.mqtt.model_client import ModelClient
from edge.mqtt.mosquitto import mosquitto
from edge.mqtt.packets import PORT
from edge.mqtt.session import SessionConfig
from edge.star import PublishConfig, Star, StarConfig, SubscribeConfig
from topologies.architectures import Deployment
from topologies.architectures.options import StarOptions
from topologies.experiment import Experiment
from underlay.errors import InputError
from underlay.plan import Binding, BindingPlan, DevicePlan


def deploy(experiment: Experiment) -> Deployment:
    """mosquitto on the hub (and on the first relay, with `standby`), a client on every source and
    subscriber."""
    options = experiment.options
    assert isinstance(options, StarOptions)
    brokers = _brokers(experiment, options)
    client = BindingPlan(CLIENT, ModelClient, _paho, PORT)
    broker = mosquitto(BrokerConfig(session_expiry_s=_expiry_s(options)))
    devices = {}
    for device in experiment.topology.roles:
        config = _config(experiment, options, device, brokers)
        takes_part = config.publish is not None or config.subscribe is not None
        devices[device] = DevicePlan(
            nodes=(experiment.node(partial(Star, config)),) if takes_part else (),
            bindings=(client,) if takes_part else (),
            programs=(broker,) if device in brokers else (),
        )
    return Deployment(devices, carries_publish)


def _config(
    experiment: Experiment, options: StarOptions, device: str, brokers: tuple[str, ...]
) -> StarConfig:
    publishes = device in experiment.sources
    subscribes = experiment.subscribes(device)
    return StarConfig(
        brokers=brokers,
        publish=PublishConfig(options.qos, options.retain, queue_bytes=options.queue_bytes)
        if publishes
        else None,
        subscribe=SubscribeConfig(options.qos, experiment.deliver_to(device)) if subscribes else None,
        session=SessionConfig(
            clean_start=not options.persistent,
            session_expiry_s=_expiry_s(options),
            keepalive_s=options.keepalive_s,
        ),
    )


def _brokers(experiment: Experiment, options: StarOptions) -> tuple[str, ...]:
    topology = experiment.topology
    if not options.standby:
        return (topology.hub,)
    if not topology.relays:
        raise InputError(
            "a standby broker needs a relay to run on",
            key="network.relays",
            hint="at least 1, or standby = false",
        )
    return (topology.hub, topology.relays[0])


def _expiry_s(options: StarOptions) -> int:
    return SessionConfig().session_expiry_s if options.persistent else 0


def _paho() -> Binding:
    from edge.mqtt.paho_binding import PahoBinding  # only the emulation needs paho

    return PahoBinding()
