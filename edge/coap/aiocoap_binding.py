"""The emulation's CoAP endpoint: aiocoap inside the device's asyncio loop.

Owns one socket on the CoAP port, aiocoap's context on it, and the translation between its messages and those
of the node; decides nothing. Retransmission, tokens, duplicates, the order of notifications and block-wise
transfers are aiocoap's.

aiocoap is put on one socket bound to the device's own address, for requests and answers both, because a
device's address is on its loopback and uvloop is not enough for aiocoap's default transport. That takes a
method of its context that is not public, and a transport of our own (`aiocoap_interface`). Bodies that are
posted in blocks are put together in `uploads`, which has bounds where aiocoap's own assemblies have none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import aiocoap
from aiocoap.blockwise import Block2Cache
from aiocoap.error import MessageError, NetworkError
from aiocoap.numbers.constants import TransportTuning

from edge.coap.aiocoap_interface import Interface, Request, bound_memory
from edge.coap.messages import (
    BAD_OPTION,
    CONTENT,
    CONTINUE,
    METHOD_NOT_ALLOWED,
    PORT,
    PROXYING_NOT_SUPPORTED,
    REQUEST_ENTITY_TOO_LARGE,
    SERVICE_UNAVAILABLE,
    Acknowledged,
    Answered,
    Asked,
    Cancel,
    Failed,
    Failure,
    Get,
    Post,
    Representation,
    Respond,
    Tuning,
    Withdrawn,
)
from edge.coap.uploads import BUSY_S, POSTS_MAX, Bounds, Part, Uploads
from underlay.messages import Message
from underlay.plan import BindingHost
from underlay.trace import Malformed

_CRITICAL_OPTIONS = frozenset({3, 7, 11, 15, 17, 23, 27})
"""Uri-Host, Uri-Port, Uri-Path, Uri-Query (refused by name), Accept, Block2 and Block1: RFC 7252 §5.4.1 wants
any other refused that a client calls critical."""


class AiocoapBinding:
    """`underlay.plan.Binding` for CoAP: client and server of one device.

    Args:
        server: the device's node that is told what others ask.
        resources: nodes that are asked instead for paths that begin with a segment of theirs, by POST too.
        bounds: of what is posted.
    """

    def __init__(
        self,
        server: str,
        port: int = PORT,
        resources: Mapping[str, str] | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self._server = server
        self._port = port
        self._resources = dict(resources or {})
        self._uploads = Uploads(bounds)
        self._posts = 0
        self._requests: dict[int, asyncio.Task[None]] = {}
        self._answers: dict[int, asyncio.Queue[Respond]] = {}
        self._exchanges = 0
        self._blocks = Block2Cache()
        self._context: Any = None
        self._interface: Any = None

    async def start(self, host: BindingHost) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        logging.getLogger("coap").setLevel(logging.ERROR)  # lost peers are what experiments are made of
        self._context = aiocoap.Context(loop=self._loop, serversite=self)

        async def interface(manager: Any) -> Any:
            address = (host.ip, self._port)
            bound_memory(manager)
            self._interface = await Interface.create_server(address, manager, self._context.log, self._loop)
            self._interface.on_sent = self._on_sent
            self._interface.on_acknowledged = self._on_acknowledged
            self._interface.on_malformed = self._on_malformed
            return self._interface

        await self._context._append_tokenmanaged_messagemanaged_transport(interface)

    def send(self, node: str, message: Message) -> None:
        match message:
            case Get() | Post():
                task = self._loop.create_task(self._ask(node, message))
                self._requests[message.token] = task
            case Cancel(token):
                request = self._requests.pop(token, None)
                if request is not None:
                    request.cancel()
            case Respond():
                answers = self._answers.get(message.exchange)
                if answers is not None:
                    answers.put_nowait(message)

    async def close(self) -> None:
        tasks = list(self._requests.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._context.shutdown()

    # ------------------------------------------------------------------------------------------- as a client

    async def _ask(self, node: str, asked: Get | Post) -> None:
        message = Request(
            code=aiocoap.POST if isinstance(asked, Post) else aiocoap.GET,
            uri_path=asked.path,
            transport_tuning=_transport_tuning(asked.tuning),
        )
        message.remote = self._interface.address_of(self._host.ip_of(asked.device), self._port)
        message.sender = (node, asked.token)
        observe = False
        if isinstance(asked, Post):
            message.payload = asked.payload
            message.opt.content_format = asked.content_format
        else:
            message.opt.etags = [] if asked.etag is None else [asked.etag]
            observe = asked.observe
            message.opt.observe = 0 if observe else None
        request = self._context.request(message)
        failure: Failure | None = None
        try:
            response = await request.response
            observed = observe and response.opt.observe is not None
            self._host.deliver(node, Answered(asked.token, _representation(response), observed))
            if observed:
                async for notification in request.observation:
                    self._host.deliver(node, Answered(asked.token, _representation(notification), True))
                failure = "reset"  # aiocoap swallows the notification that ends an observation
        except MessageError:
            failure = "reset"
        except NetworkError:
            failure = "timeout"
        except aiocoap.error.Error:
            failure = "broken"
        finally:
            if request.observation is not None and not request.observation.cancelled:
                request.observation.cancel()
            if self._requests.get(asked.token) is asyncio.current_task():
                del self._requests[asked.token]
        if failure is not None:
            self._host.deliver(node, Failed(asked.token, failure))

    # ------------------------------------------------------------------------------------------- as a server

    async def render_to_pipe(self, pipe: Any) -> None:
        """Answer one request (aiocoap's interface of a site); cancelled once the client is not interested."""
        request = pipe.request
        refusal = self._refusal(request)
        if refusal is not None:
            pipe.add_response(refusal, is_last=True)
            return
        if request.opt.block2 is not None and request.opt.block2.block_number:
            block = await self._blocks.extract_or_insert(request, _not_kept)
            pipe.add_response(block, is_last=True)
            return
        asked = self._asked(request)
        if isinstance(asked, Asked):
            await self._deliver(pipe, request, asked)
        else:
            pipe.add_response(asked, is_last=True)

    def _refusal(self, request: Any) -> Any:
        """What answers a request that nodes do not deal with; None for one that they do."""
        path = request.opt.uri_path
        posts = request.code == aiocoap.POST and path and path[0] in self._resources
        critical = {int(o.number) for o in request.opt.option_list() if o.number.is_critical()}
        if request.opt.proxy_uri is not None or request.opt.proxy_scheme is not None:
            code = PROXYING_NOT_SUPPORTED
        elif request.code != aiocoap.GET and not posts:
            code = METHOD_NOT_ALLOWED
        elif request.opt.uri_query or critical - _CRITICAL_OPTIONS or (request.opt.block1 and not posts):
            code = BAD_OPTION
        else:
            return None
        return aiocoap.Message(code=aiocoap.Code(code))

    def _asked(self, request: Any) -> Any:
        """What to ask the node; or the answer to a block that is not the last, and to a body that is too
        much."""
        opt, ip = request.opt, request.remote.address[0]
        client = self._host.device_at(ip) or ip
        self._exchanges += 1
        path = tuple(opt.uri_path)
        if request.code == aiocoap.GET:
            return Asked(self._exchanges, path, tuple(opt.etags), opt.observe == 0, client=client)
        content_format = None if opt.content_format is None else int(opt.content_format)
        taken: bytes | int = self._uploads.whole(request.payload)
        if opt.block1 is not None:
            number, more, size_exponent = opt.block1
            part = Part(number, size_exponent, bool(more), request.payload, opt.size1)
            resource = (path, content_format, opt.request_tag)
            taken = self._uploads.take(self._loop.time(), request.remote, resource, part)
        if isinstance(taken, bytes) and self._posts >= POSTS_MAX:
            taken = SERVICE_UNAVAILABLE
        if isinstance(taken, bytes):
            return Asked(
                self._exchanges,
                path,
                method="POST",
                payload=taken,
                content_format=content_format,
                client=client,
            )
        answer: Any = aiocoap.Message(code=aiocoap.Code(taken))
        if taken == CONTINUE:
            answer.opt.block1 = opt.block1
        elif taken == REQUEST_ENTITY_TOO_LARGE:
            answer.opt.size1 = self._uploads.bounds.body_bytes_max
        elif taken == SERVICE_UNAVAILABLE:
            answer.opt.max_age = BUSY_S
        return answer

    async def _deliver(self, pipe: Any, request: Any, asked: Asked) -> None:
        """Ask the node whose path it is, and pass its answers on."""
        exchange = asked.exchange
        answers = self._answers[exchange] = asyncio.Queue()
        server = self._resources.get(asked.path[0], self._server) if asked.path else self._server
        posts = asked.method == "POST"
        self._posts += posts
        self._host.deliver(server, asked)
        goes_on, notifications, confirmed_s = True, 0, 0.0
        try:
            while goes_on:
                respond = await answers.get()
                goes_on = respond.observed and asked.observe
                response = await self._first_block(request, respond)
                if goes_on:
                    response.opt.observe = notifications
                    recently = self._loop.time() - confirmed_s < respond.tuning.confirm_interval_s
                    response.transport_tuning.reliability = not (notifications and recently)
                    if response.transport_tuning.reliability:
                        confirmed_s = self._loop.time()
                    notifications += 1
                pipe.add_response(response, is_last=not goes_on)
        finally:
            del self._answers[exchange]
            self._posts -= posts
            if goes_on:
                self._host.deliver(server, Withdrawn(exchange))

    async def _first_block(self, request: Any, respond: Respond) -> Any:
        """The whole response, or its first block; aiocoap keeps the others for when they are asked for."""

        async def whole() -> Any:
            return _response(respond.representation)

        message = await self._blocks.extract_or_insert(request, whole)
        message.opt.block1 = request.opt.block1
        message.transport_tuning = _transport_tuning(respond.tuning)
        return message

    # ----------------------------------------------------------------------------------- from the interface

    def _on_acknowledged(self, node: str, token: int) -> None:
        if token in self._requests:
            self._host.deliver(node, Acknowledged(token))

    def _on_malformed(self, ip: str, reason: str) -> None:
        self._host.emit(Malformed(self._host.device_at(ip) or ip, reason))

    def _on_sent(self, ip: str, message: Any, size_bytes: int) -> None:
        """The names are those of the model's packets."""
        device = self._host.device_at(ip) or ip
        payload = message.code in (CONTENT, aiocoap.POST) and bool(message.payload)
        if message.code == aiocoap.POST:
            name = "PostPacket"
        elif message.code.is_request():
            name = "RequestPacket"
        elif message.code.is_response():
            name = "ContentPacket" if payload else "ResponsePacket"
        else:
            name = "EmptyPacket"
        self._host.sent(name, size_bytes, payload=payload, to=device)


async def _not_kept() -> Any:
    raise AssertionError("a later block is never rendered")


def _representation(message: Any) -> Representation:
    content_format = message.opt.content_format
    return Representation(
        code=int(message.code),
        payload=bytes(message.payload),
        etag=message.opt.etag,
        max_age_s=message.opt.max_age,
        content_format=None if content_format is None else int(content_format),
    )


def _response(representation: Representation) -> Any:
    message = aiocoap.Message(code=aiocoap.Code(representation.code), payload=representation.payload)
    message.opt.etag = representation.etag
    message.opt.max_age = representation.max_age_s
    message.opt.content_format = representation.content_format
    return message


def _transport_tuning(tuning: Tuning) -> TransportTuning:
    found = TransportTuning()
    found.ACK_TIMEOUT = tuning.ack_timeout_s
    found.ACK_RANDOM_FACTOR = tuning.ack_random_factor
    found.MAX_RETRANSMIT = tuning.max_retransmit
    return found
