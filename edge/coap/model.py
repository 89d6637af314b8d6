"""The simulation's CoAP endpoint: what aiocoap is in the emulation, for the same local messages.

Owns requests and responses on both sides, tokens, piggy-backed and separate responses, observations and
block-wise transfers; the message layer below is `exchanges`, bodies that come in blocks are put together in
`uploads`. It does as aiocoap does where the standards
leave a choice: a peer that does not acknowledge loses all that is under way
with it, requests and observations both ways; an observation that is not wanted any more is refused with RST
at its next notification; the further blocks of a representation are served from what the first was cut from.

Source: RFC 7252 §5 (requests, responses), RFC 7641 (Observe), RFC 7959 (Block1, Block2).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edge.coap.exchanges import MessageLayer
from edge.coap.messages import (
    CONTINUE,
    METHOD_NOT_ALLOWED,
    REQUEST_ENTITY_INCOMPLETE,
    REQUEST_ENTITY_TOO_LARGE,
    SERVICE_UNAVAILABLE,
    Acknowledged,
    Answered,
    Asked,
    Cancel,
    Failed,
    Failure,
    Get,
    Path,
    Post,
    Representation,
    Respond,
    Tuning,
    Withdrawn,
)
from edge.coap.packets import (
    BLOCK_BYTES,
    COAP,
    WHOLE_BYTES_MAX,
    Block,
    EmptyPacket,
    Packet,
    PostPacket,
    RequestPacket,
    ResponsePacket,
    response_packet,
)
from edge.coap.requests import Incoming, Outgoing, block_of, post_packet
from edge.coap.uploads import BUSY_S, POSTS_MAX, SIZE_EXPONENT_MAX, Bounds, Part, Uploads
from underlay.messages import Message
from underlay.node import Address, Context, Node, Timer, address, device_of

EMPTY_ACK_DELAY_S = 0.1
"""After this a server that has no response yet acknowledges the request (aiocoap's)."""
BLOCKS_KEPT_S = 93.0
"""How long a server keeps a representation whose blocks are being fetched (MAX_TRANSMIT_WAIT, as aiocoap
does)."""


class ModelEndpoint(Node):
    """The endpoint of one device: client and server.

    Args:
        server: the device's node that is told what others ask.
        resources: nodes that are asked instead for paths that begin with a segment of theirs, by POST too.
        bounds: of what is posted.
    """

    protocol = COAP

    def __init__(
        self, server: str, resources: Mapping[str, str] | None = None, bounds: Bounds | None = None
    ) -> None:
        self._server = server
        self._resources = dict(resources or {})
        self._uploads = Uploads(bounds)
        self._layer = MessageLayer(0)
        self._token = 0
        self._outgoing: dict[int, Outgoing] = {}
        """By the node's token."""
        self._by_token: dict[tuple[Address, int], Outgoing] = {}
        self._incoming: dict[int, Incoming] = {}
        self._by_client: dict[tuple[Address, int], Incoming] = {}
        self._exchanges = 0
        self._cut: dict[tuple[Address, Path], Representation] = {}
        """Representations whose blocks are being fetched."""

    def on_start(self, ctx: Context) -> None:
        self._layer = MessageLayer(ctx.rng.randrange(0x10000))
        self._token = ctx.rng.randrange(0x10000)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        match message:
            case Get() | Post():
                self._ask(ctx, sender, message)
            case Cancel(token):
                self._drop(token)
            case Respond():
                self._respond(ctx, message)
            case EmptyPacket():
                self._on_empty(ctx, sender, message)
            case RequestPacket():
                self._on_request(ctx, sender, message)
            case PostPacket():
                self._on_post(ctx, sender, message)
            case ResponsePacket():
                self._on_response(ctx, sender, message)

    def on_timer(self, ctx: Context, timer: Timer) -> None:
        match timer:
            case ("retransmit", str(peer)):
                if not self._layer.on_retransmit(ctx, peer):
                    self._give_up(ctx, peer)
            case ("acknowledge", int(number)):
                incoming = self._incoming.get(number)
                if incoming is not None and incoming.to_acknowledge:
                    incoming.to_acknowledge = False
                    answer = EmptyPacket("ACK", incoming.mid)
                    self._layer.remember(incoming.peer, incoming.mid, answer)
                    ctx.send(incoming.peer, answer)
            case ("cut", str(peer), path) if isinstance(path, tuple):
                self._cut.pop((peer, path), None)

    @property
    def under_way(self) -> int:
        """Requests and observations, both ways."""
        return len(self._by_token) + len(self._by_client)

    # ------------------------------------------------------------------------------------------- as a client

    def _ask(self, ctx: Context, node: Address, request: Get | Post) -> None:
        outgoing = Outgoing(request, node, self._next_token())
        self._outgoing[request.token] = outgoing
        self._request(ctx, outgoing, outgoing.token)

    def _request(self, ctx: Context, outgoing: Outgoing, token: int, block: Block | None = None) -> None:
        request = outgoing.request
        peer = address(request.device, ctx.address.partition("/")[2])
        self._by_token[peer, token] = outgoing
        packet: Packet
        if isinstance(request, Post):
            packet = post_packet(request, self._layer.next_mid(), token, outgoing.posted)
        else:
            observe = request.observe and block is None
            packet = RequestPacket(
                "CON", self._layer.next_mid(), token, request.path, request.etag, observe, block
            )
        self._layer.send_confirmable(ctx, peer, packet, request.tuning)

    def _on_response(self, ctx: Context, peer: Address, packet: ResponsePacket) -> None:
        if packet.mtype == "ACK":
            self._layer.on_acknowledged(ctx, peer, packet.mid, "ACK")
        outgoing = self._by_token.get((peer, packet.token))
        if outgoing is None:
            if packet.mtype == "CON":
                self._layer.reset(ctx, peer, packet.mid)
            return
        if packet.mtype == "CON":
            self._layer.acknowledge(ctx, peer, packet.mid)
        if isinstance(outgoing.request, Post):
            self._on_posted(ctx, outgoing, outgoing.request, packet)
            return
        if packet.token == outgoing.token:
            if packet.observe is not None and packet.observe <= outgoing.notified:
                return  # again: our acknowledgement was lost
            outgoing.notified = -1 if packet.observe is None else packet.observe
            outgoing.observed = packet.observe is not None and outgoing.request.observe
            if not outgoing.observed:
                del self._by_token[peer, packet.token]
            outgoing.first = packet.representation
            outgoing.blocks = b""
            if outgoing.block_token is not None:  # a newer notification: its blocks are the ones wanted
                self._by_token.pop((peer, outgoing.block_token), None)
                outgoing.block_token = None
        else:
            del self._by_token[peer, packet.token]
            outgoing.block_token = None
        self._assemble(ctx, outgoing, packet)

    def _on_posted(self, ctx: Context, outgoing: Outgoing, request: Post, packet: ResponsePacket) -> None:
        """The answer, or the server has a block and wants the next."""
        if packet.representation.code != CONTINUE:
            self._drop(request.token)
            ctx.send(outgoing.node, Answered(request.token, packet.representation, False))
        elif (outgoing.posted + 1) * BLOCK_BYTES >= len(request.payload):
            self._fail(ctx, outgoing, "broken")  # there is no more
        else:
            self._by_token = {key: other for key, other in self._by_token.items() if other is not outgoing}
            outgoing.posted += 1
            self._request(ctx, outgoing, self._next_token())

    def _assemble(self, ctx: Context, outgoing: Outgoing, packet: ResponsePacket) -> None:
        first, block = outgoing.first, packet.block
        assert first is not None, "a block is asked for after the first one came"
        if packet.representation.etag != first.etag or packet.representation.code != first.code:
            self._fail(ctx, outgoing, "broken")
            return
        outgoing.blocks += packet.representation.payload
        if block is not None and block.more:
            ctx.send(outgoing.node, Acknowledged(outgoing.request.token))
            outgoing.block_token = self._next_token()
            self._request(ctx, outgoing, outgoing.block_token, Block(block.number + 1))
            return
        whole = msgspec.structs.replace(first, payload=outgoing.blocks)
        outgoing.blocks, outgoing.first = b"", None
        if not outgoing.observed:
            self._outgoing.pop(outgoing.request.token, None)
        ctx.send(outgoing.node, Answered(outgoing.request.token, whole, outgoing.observed))

    def _drop(self, token: int) -> Outgoing | None:
        outgoing = self._outgoing.pop(token, None)
        if outgoing is not None:
            for key in [key for key, other in self._by_token.items() if other is outgoing]:
                del self._by_token[key]
        return outgoing

    def _fail(self, ctx: Context, outgoing: Outgoing, reason: Failure) -> None:
        if self._drop(outgoing.request.token) is not None:
            ctx.send(outgoing.node, Failed(outgoing.request.token, reason))

    # ------------------------------------------------------------------------------------------- as a server

    def _on_request(self, ctx: Context, peer: Address, packet: RequestPacket) -> None:
        if self._layer.is_duplicate(ctx, peer, packet):
            return
        if packet.block is not None and packet.block.number:
            self._serve_block(ctx, peer, packet, packet.block)
            return
        etags = () if packet.etag is None else (packet.etag,)
        self._deliver(ctx, peer, packet, Asked(0, packet.path, etags, packet.observe))

    def _on_post(self, ctx: Context, peer: Address, packet: PostPacket) -> None:
        if self._layer.is_duplicate(ctx, peer, packet):
            return
        block, taken = packet.block1, self._uploads.whole(packet.payload)
        if packet.path[:1] == () or packet.path[0] not in self._resources:
            taken = METHOD_NOT_ALLOWED
        elif block is not None:
            part = Part(block.number, SIZE_EXPONENT_MAX, block.more, packet.payload, packet.size1)
            taken = self._uploads.take(ctx.now, peer, (packet.path, packet.content_format), part)
        if isinstance(taken, bytes) and sum(i.posts for i in self._incoming.values()) >= POSTS_MAX:
            taken = SERVICE_UNAVAILABLE
        if isinstance(taken, bytes):
            asked = Asked(0, packet.path, method="POST", payload=taken, content_format=packet.content_format)
            self._deliver(ctx, peer, packet, asked)
            return
        answer = response_packet(
            "ACK",
            packet.mid,
            packet.token,
            Representation(taken, max_age_s=BUSY_S if taken == SERVICE_UNAVAILABLE else None),
            block1=block if taken == CONTINUE else None,
            size1=self._uploads.bounds.body_bytes_max if taken == REQUEST_ENTITY_TOO_LARGE else None,
        )
        self._layer.remember(peer, packet.mid, answer)
        ctx.send(peer, answer)

    def _deliver(self, ctx: Context, peer: Address, packet: RequestPacket | PostPacket, asked: Asked) -> None:
        """Ask the node whose path it is."""
        earlier = self._by_client.get((peer, packet.token))
        if earlier is not None:
            self._withdraw(ctx, earlier)
        self._exchanges += 1
        server = self._resources.get(asked.path[0], self._server) if asked.path else self._server
        incoming = Incoming(
            number=self._exchanges,
            peer=peer,
            token=packet.token,
            mid=packet.mid,
            path=packet.path,
            to_acknowledge=packet.mtype == "CON",
            observe=asked.observe,
            node=address(ctx.device, server),
            block1=packet.block1 if isinstance(packet, PostPacket) else None,
            posts=isinstance(packet, PostPacket),
        )
        self._incoming[incoming.number] = self._by_client[peer, packet.token] = incoming
        if incoming.to_acknowledge:
            ctx.set_timer(("acknowledge", incoming.number), EMPTY_ACK_DELAY_S)
        asked = msgspec.structs.replace(asked, exchange=incoming.number, client=device_of(peer))
        ctx.send(incoming.node, asked)

    def _respond(self, ctx: Context, message: Respond) -> None:
        incoming = self._incoming.get(message.exchange)
        if incoming is None:
            return  # withdrawn in this very moment
        observed = message.observed and incoming.observe
        observe = incoming.notifications if observed else None
        incoming.notifications += 1
        if not observed:
            self._forget(incoming)
        whole, block = message.representation, None
        if len(whole.payload) > WHOLE_BYTES_MAX:
            self._cut[incoming.peer, incoming.path] = whole
            ctx.set_timer(("cut", incoming.peer, incoming.path), BLOCKS_KEPT_S)
            whole, block = block_of(whole, 0)
        self._answer(ctx, incoming, whole, observe, block, message.tuning)

    def _answer(
        self,
        ctx: Context,
        incoming: Incoming,
        representation: Representation,
        observe: int | None,
        block: Block | None,
        tuning: Tuning,
    ) -> None:
        """With the acknowledgement of the request, where that is still to be sent; else confirmable."""
        peer, token = incoming.peer, incoming.token
        if incoming.to_acknowledge:
            incoming.to_acknowledge = False
            ctx.cancel_timer(("acknowledge", incoming.number))
            packet = response_packet(
                "ACK", incoming.mid, token, representation, observe, block, incoming.block1
            )
            self._layer.remember(peer, incoming.mid, packet)
            ctx.send(peer, packet)
        elif observe and ctx.now - incoming.confirmed_s < tuning.confirm_interval_s:
            mid = self._layer.next_mid()
            ctx.send(peer, response_packet("NON", mid, token, representation, observe, block))
            return
        else:
            mid = self._layer.next_mid()
            packet = response_packet("CON", mid, token, representation, observe, block, incoming.block1)
            self._layer.send_confirmable(ctx, peer, packet, tuning)
        incoming.confirmed_s = ctx.now

    def _serve_block(self, ctx: Context, peer: Address, packet: RequestPacket, block: Block) -> None:
        whole = self._cut.get((peer, packet.path))
        start = block.number * BLOCK_BYTES
        if whole is None or start >= len(whole.payload):
            part, shown = Representation(REQUEST_ENTITY_INCOMPLETE), None
        else:
            part, shown = block_of(whole, block.number)
        answer = response_packet("ACK", packet.mid, packet.token, part, None, shown)
        self._layer.remember(peer, packet.mid, answer)
        ctx.send(peer, answer)

    def _withdraw(self, ctx: Context, incoming: Incoming) -> None:
        self._forget(incoming)
        ctx.cancel_timer(("acknowledge", incoming.number))
        ctx.send(incoming.node, Withdrawn(incoming.number))

    def _forget(self, incoming: Incoming) -> None:
        self._incoming.pop(incoming.number, None)
        if self._by_client.get((incoming.peer, incoming.token)) is incoming:
            del self._by_client[incoming.peer, incoming.token]

    # ------------------------------------------------------------------------------------------- both sides

    def _on_empty(self, ctx: Context, peer: Address, packet: EmptyPacket) -> None:
        if packet.mtype not in ("ACK", "RST"):
            self._layer.reset(ctx, peer, packet.mid)  # a ping
            return
        answered = self._layer.on_acknowledged(ctx, peer, packet.mid, packet.mtype)
        match answered:
            case RequestPacket() | PostPacket():
                outgoing = self._by_token.get((peer, answered.token))
                if outgoing is not None and packet.mtype == "RST":
                    self._fail(ctx, outgoing, "reset")
                elif outgoing is not None:
                    ctx.send(outgoing.node, Acknowledged(outgoing.request.token))
            case ResponsePacket() if packet.mtype == "RST":
                incoming = self._by_client.get((peer, answered.token))
                if incoming is not None:
                    self._withdraw(ctx, incoming)

    def _give_up(self, ctx: Context, peer: Address) -> None:
        """A message to `peer` went unacknowledged to the end."""
        requests = {o.request.token: o for (other, _), o in self._by_token.items() if other == peer}
        for outgoing in requests.values():
            self._fail(ctx, outgoing, "timeout")
        for incoming in [i for i in self._incoming.values() if i.peer == peer]:
            self._withdraw(ctx, incoming)

    def _next_token(self) -> int:
        self._token += 1
        return self._token
