"""Standard clients, unmodified, against hosts on loopback: redis-cli, redis-benchmark, redis-py."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic

import pytest
import redis
from redis.cluster import ClusterNode, LoadBalancingStrategy, RedisCluster

from kv.paxos import Settings
from tests.kv.redis.hosting import OUTSIDE_PORT, Cluster, running

THREE_GROUPS: Mapping[str, Sequence[str]] = {"g1": ["s1"], "g2": ["s2"], "g3": ["s3"]}
"""A group of one on each host: every host leads a third of the slots."""

PATIENCE_S = 30.0

KEYS = [f"key:{number}" for number in range(30)]


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(Cluster(tmp_path_factory.mktemp("spread"), THREE_GROUPS, outside=True)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One Paxos group on three hosts."""
    folder = tmp_path_factory.mktemp("group")
    with running(
        Cluster(folder, {"g1": ["s1", "s2", "s3"]}, settings=Settings(election_timeout_s=1.0))
    ) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> Iterator[None]:
    """Clusters are shared; what a test leaves behind is taken away."""
    yield
    for name in {"spread", "group"} & set(request.fixturenames):
        cluster: Cluster = request.getfixturevalue(name)
        for device in cluster.addresses:
            with cluster.client(device) as client, client.pipeline(transaction=False) as pipeline:
                for key in client.scan_iter(count=1000):
                    pipeline.delete(key)
                pipeline.execute()


def cli(cluster: Cluster, *arguments: str, device: str = "s1", stdin: str | None = None) -> str:
    """What redis-cli prints."""
    command = ["redis-cli", "-h", cluster.addresses[device], *arguments]
    ran = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30, check=True)
    return ran.stdout.strip()


def cluster_client(
    cluster: Cluster, protocol: int, port: int = 6379, *, replicas: bool = False
) -> RedisCluster:
    nodes = [ClusterNode(ip, port) for ip in cluster.addresses.values()]  # type: ignore[no-untyped-call]
    balancing = LoadBalancingStrategy.ROUND_ROBIN_REPLICAS if replicas else None
    return RedisCluster(startup_nodes=nodes, protocol=protocol, load_balancing_strategy=balancing)


# -------------------------------------------------------------------------------------------------- redis-cli


@pytest.mark.needs("redis-cli")
def test_redis_cli_follows_redirections(spread: Cluster) -> None:
    for key in KEYS:
        assert cli(spread, "-c", "SET", key, key) == "OK"
    assert [cli(spread, "-c", "GET", key, device="s3") for key in KEYS] == KEYS
    assert sum(int(cli(spread, "DBSIZE", device=device)) for device in spread.addresses) == len(KEYS)


@pytest.mark.needs("redis-cli")
def test_redis_cli_without_c_shows_them(spread: Cluster) -> None:
    shown = {cli(spread, "GET", key).partition(" ")[0] for key in KEYS}
    assert shown == {"", "MOVED"}


@pytest.mark.needs("redis-cli")
@pytest.mark.parametrize("version", ["-2", "-3"])
def test_redis_cli_takes_inline_commands_and_scans(spread: Cluster, version: str) -> None:
    keys = {f"{{t}}{number}" for number in range(25)}
    commands = "".join(f"SET {key} 'a value'\n" for key in sorted(keys))
    home = spread.leader("{t}")
    assert cli(spread, version, stdin=commands, device=home).split("\n") == ["OK"] * len(keys)
    assert set(cli(spread, version, "--scan", "--pattern", "{t}*", device=home).split("\n")) == keys


@pytest.mark.needs("redis-cli")
def test_redis_cli_checks_the_cluster(spread: Cluster) -> None:
    said = cli(spread, "--cluster", "check", f"{spread.addresses['s2']}:6379")
    assert "All nodes agree about slots configuration" in said
    assert "All 16384 slots covered" in said


@pytest.mark.needs("redis-cli")
def test_a_pipe_of_commands(group: Cluster) -> None:
    leader = group.leader()
    commands = "".join(f"SET piped:{number} {number}\r\n" for number in range(2000))
    assert "errors: 0, replies: 2000" in cli(group, "--pipe", device=leader, stdin=commands)
    assert cli(group, "DBSIZE", device=leader) == "2000"


# -------------------------------------------------------------------------------------------- redis-benchmark


@pytest.mark.needs("redis-benchmark")
@pytest.mark.parametrize("options", [("-P", "16"), ("-P", "1"), ("-P", "16", "-3")], ids=" ".join)
def test_redis_benchmark(group: Cluster, options: Sequence[str]) -> None:
    leader = group.leader()
    arguments = ["-h", group.addresses[leader], "-t", "set,get,incr", "-c", "20", "-n", "1000", "--csv"]
    assert measured(*arguments, *options) == {"SET", "GET", "INCR"}


@pytest.mark.needs("redis-benchmark")
def test_redis_benchmark_of_the_cluster(spread: Cluster) -> None:
    arguments = [
        "-h",
        spread.addresses["s1"],
        "--cluster",
        "-t",
        "set,get",
        "-c",
        "12",
        "-n",
        "3000",
        "--csv",
    ]
    assert measured(*arguments) == {"SET", "GET"}
    with cluster_client(spread, 2) as client:
        assert client.dbsize(target_nodes=RedisCluster.PRIMARIES) > 0


def measured(*arguments: str) -> set[str]:
    """The tests that redis-benchmark completed; it ends with an error where a reply is one."""
    ran = subprocess.run(
        ["redis-benchmark", *arguments], capture_output=True, text=True, timeout=50, check=True
    )
    assert "rror" not in ran.stdout + ran.stderr, ran.stdout + ran.stderr
    return {line.split('"')[1] for line in ran.stdout.splitlines() if line.startswith('"')} - {"test"}


# --------------------------------------------------------------------------------------------------- redis-py


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py(group: Cluster, protocol: int) -> None:
    with group.client(group.leader(), protocol=protocol) as client:
        assert client.ping()
        assert client.set("k", "1")
        assert client.get("k") == b"1"
        assert client.set("k", "2", nx=True) is None
        assert client.set("k", "2", xx=True, get=True) == b"1"
        assert client.set("gone", "x", px=1) is True
        assert client.append("k", "3") == 2
        assert client.incrby("k", 7) == 30
        assert client.strlen("k") == 2
        assert client.exists("k", "k") == 2
        assert client.mset({"{k}1": "a", "{k}2": "b"})
        assert client.mget("{k}1", "{k}none", "{k}2") == [b"a", None, b"b"]
        assert client.expire("k", 100)
        assert 0 < client.ttl("k") <= 100
        assert client.delete("k", "k") == 1
        assert client.get("k") is None
        assert client.info("server")["redis_mode"] == "cluster"
        assert client.info("groups")["g1"]["role"] == "leader"
        assert client.config_get("save") == {"save": ""}
        assert client.client_setname("me")
        assert client.client_getname() in ("me", b"me")
        assert client.client_id() > 0
        assert client.command_count() == len(client.command())
        with pytest.raises(redis.ResponseError, match="not an integer"):
            client.incr("{k}1")
        with pytest.raises(redis.AuthenticationError, match="AUTH"):
            client.execute_command("AUTH", "x")
        with pytest.raises(redis.ResponseError, match="hash to the same slot"):
            client.mget("a", "b")


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_pipelines_keep_their_order(group: Cluster, protocol: int) -> None:
    with (
        group.client(group.leader(), protocol=protocol) as client,
        client.pipeline(transaction=False) as pipeline,
    ):
        for number in range(3000):
            pipeline.set("k", number)
            pipeline.get("k")
        replies = pipeline.execute()
    assert replies[::2] == [True] * 3000
    assert replies[1::2] == [b"%d" % number for number in range(3000)]


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_cluster(spread: Cluster, protocol: int) -> None:
    with cluster_client(spread, protocol) as client:
        assert len(client.get_primaries()) == 3
        for key in KEYS:
            assert client.set(key, key)
        assert [client.get(key) for key in KEYS] == [key.encode() for key in KEYS]
        assert client.mget_nonatomic(KEYS) == [key.encode() for key in KEYS]
        assert {key.decode() for key in client.scan_iter("key:*")} == set(KEYS)
        assert client.dbsize(target_nodes=RedisCluster.PRIMARIES) == len(KEYS)
        assert client.cluster_info(target_nodes=RedisCluster.RANDOM)["cluster_state"] == "ok"
        assert len(client.cluster_nodes()) == 3
        assert client.cluster_keyslot("{a}b") == client.keyslot("a")
        slot = client.keyslot(KEYS[0])
        assert client.cluster_countkeysinslot(slot) >= 1
        assert len(client.cluster_shards()) == 3


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_cluster_pipelines(spread: Cluster, protocol: int) -> None:
    with cluster_client(spread, protocol) as client, client.pipeline() as pipeline:
        for key in KEYS:
            pipeline.set(key, key)
            pipeline.get(key)
        assert pipeline.execute()[1::2] == [key.encode() for key in KEYS]


def test_redis_py_cluster_reads_from_followers(group: Cluster) -> None:
    with cluster_client(group, 3, replicas=True) as client:
        assert len(client.get_primaries()) == 1
        assert len(client.get_replicas()) == 2
        assert client.set("k", "v")
        assert {client.get("k") for _ in range(20)} <= {b"v", None}, "a follower may be behind"


def test_clients_are_told_the_addresses_of_the_way_they_came(spread: Cluster) -> None:
    with cluster_client(spread, 2, OUTSIDE_PORT) as client:
        assert {node.port for node in client.get_nodes()} == {OUTSIDE_PORT}
        for key in KEYS:
            assert client.set(key, key)
    with spread.client(port=OUTSIDE_PORT) as client:
        moved = set()
        for key in KEYS:
            try:
                client.get(key)
            except redis.ResponseError as error:
                moved.add(str(error).rpartition(":")[2])
        assert moved == {str(OUTSIDE_PORT)}


# ----------------------------------------------------------------------------------------------------- faults


def test_without_a_majority_nothing_is_acknowledged(tmp_path: Path) -> None:
    settings = Settings(election_timeout_s=0.5)
    cluster = Cluster(tmp_path, {"g1": ["s1", "s2", "s3"]}, settings=settings, patience_s=1.5)
    with running(cluster):
        leader = cluster.leader()
        with cluster.client(leader) as client:
            assert client.set("k", "before")
            others = [device for device in cluster.addresses if device != leader]
            for device in others:
                cluster.hosts.kill(device)
            for command in (("SET", "k", "after"), ("GET", "k"), ("INCR", "n")):
                with pytest.raises(redis.ResponseError, match="no majority"):
                    client.execute_command(*command)
            client.execute_command("READONLY")
            assert client.get("k") == b"before", "a stale read asks nobody"
            cluster.hosts.start(*others)
        cluster.await_leaders()
        with cluster.client(cluster.leader()) as client:
            assert client.get("k") in (b"before", b"after"), "an error leaves it open"
            assert client.set("k", "again")


def test_a_cluster_client_outlives_leaders(tmp_path: Path) -> None:
    """What was acknowledged is there after each kill of a leader; the client finds the next one by itself."""
    cluster = Cluster(tmp_path, {"g1": ["s1", "s2", "s3"]}, settings=Settings(election_timeout_s=0.5))
    with running(cluster), cluster_client(cluster, 3) as client:
        acknowledged = {}
        for round_ in range(3):
            leader = cluster.leader()
            for number in range(50):
                key = f"{round_}:{number}"
                if client.set(key, key):
                    acknowledged[key] = key.encode()
            cluster.hosts.kill(leader)
            assert _until_served(client, f"{round_}:first") == b"OK"
            cluster.hosts.start(leader)
        assert {key: client.get(key) for key in acknowledged} == acknowledged


def _until_served(client: RedisCluster, key: str) -> bytes:
    """Try until there is a leader again, however fast the refusals come meanwhile."""
    end_s = monotonic() + PATIENCE_S
    while True:
        try:
            client.set(key, "OK")
            value = client.get(key)
        except (redis.RedisError, redis.exceptions.RedisClusterException):
            assert monotonic() < end_s, "nobody serves"
            continue
        assert isinstance(value, bytes)
        return value
