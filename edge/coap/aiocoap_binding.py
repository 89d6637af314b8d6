"""The emulation's CoAP endpoint: aiocoap inside the device's asyncio loop.

Owns one socket on the CoAP port, aiocoap's context on it, and the translation between its messages and those
of the node; decides nothing. Retransmission, tokens, duplicates, the order of notifications and block-wise
transfers are aiocoap's.

aiocoap is put on one socket bound to the device's own address, for requests and answers both, because a
device's address is on its loopback and uvloop is not enough for aiocoap's default transport. That takes a
method of its context that is not public, and a subclass of its simple server transport, which also counts
every message sent and hears empty acknowledgements, of which aiocoap tells nobody.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiocoap
from aiocoap.blockwise import Block2Cache
from aiocoap.error import MessageError, NetworkError
from aiocoap.numbers.constants import TransportTuning
from aiocoap.transports.simplesocketserver import MessageInterfaceSimpleServer

from edge.coap.messages import (
    BAD_OPTION,
    CONTENT,
    METHOD_NOT_ALLOWED,
    PORT,
    PROXYING_NOT_SUPPORTED,
    Acknowledged,
    Answered,
    Asked,
    Cancel,
    Failed,
    Failure,
    Get,
    Representation,
    Respond,
    Tuning,
    Withdrawn,
)
from edge.coap.packets import BLOCK_BYTES
from underlay.messages import Message
from underlay.plan import BindingHost

_ACK_TYPE, _EMPTY_CODE = 2, 0


class AiocoapBinding:
    """`underlay.plan.Binding` for CoAP: client and server of one device.

    Args:
        server: the device's node that is told what others ask.
    """

    def __init__(self, server: str, port: int = PORT) -> None:
        self._server = server
        self._port = port
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
            self._interface = await _Interface.create_server(address, manager, self._context.log, self._loop)
            self._interface.binding = self
            return self._interface

        await self._context._append_tokenmanaged_messagemanaged_transport(interface)

    def send(self, node: str, message: Message) -> None:
        match message:
            case Get():
                task = self._loop.create_task(self._get(node, message))
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

    async def _get(self, node: str, get: Get) -> None:
        message = _Request(
            code=aiocoap.GET, uri_path=get.path, transport_tuning=_transport_tuning(get.tuning)
        )
        message.remote = self._interface.address_of(self._host.ip_of(get.device), self._port)
        message.sender = (node, get.token)
        if get.etag is not None:
            message.opt.etags = [get.etag]
        if get.observe:
            message.opt.observe = 0
        request = self._context.request(message)
        failure: Failure | None = None
        try:
            response = await request.response
            observed = get.observe and response.opt.observe is not None
            self._host.deliver(node, Answered(get.token, _representation(response), observed))
            if observed:
                async for notification in request.observation:
                    self._host.deliver(node, Answered(get.token, _representation(notification), True))
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
            if self._requests.get(get.token) is asyncio.current_task():
                del self._requests[get.token]
        if failure is not None:
            self._host.deliver(node, Failed(get.token, failure))

    # ------------------------------------------------------------------------------------------- as a server

    async def render_to_pipe(self, pipe: Any) -> None:
        """Answer one request (aiocoap's interface of a site); cancelled once the client is not interested."""
        request = pipe.request
        refusal = _refusal(request)
        if refusal is not None:
            pipe.add_response(aiocoap.Message(code=aiocoap.Code(refusal)), is_last=True)
            return
        if request.opt.block2 is not None and request.opt.block2.block_number:
            block = await self._blocks.extract_or_insert(request, _not_kept)
            pipe.add_response(block, is_last=True)
            return
        self._exchanges += 1
        exchange = self._exchanges
        answers = self._answers[exchange] = asyncio.Queue()
        asked = Asked(
            exchange, tuple(request.opt.uri_path), tuple(request.opt.etags), request.opt.observe == 0
        )
        self._host.deliver(self._server, asked)
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
            if goes_on:
                self._host.deliver(self._server, Withdrawn(exchange))

    async def _first_block(self, request: Any, respond: Respond) -> Any:
        """The whole response, or its first block; aiocoap keeps the others for when they are asked for."""

        async def whole() -> Any:
            return _response(respond.representation)

        message = await self._blocks.extract_or_insert(request, whole)
        message.transport_tuning = _transport_tuning(respond.tuning)
        return message

    # ----------------------------------------------------------------------------------- from the interface

    def on_acknowledged(self, node: str, token: int) -> None:
        """The server has the request, and there is more to come."""
        if token in self._requests:
            self._host.deliver(node, Acknowledged(token))

    def on_sent(self, ip: str, message: Any, size_bytes: int) -> None:
        """A message goes out. The names are those of the model's packets."""
        device = self._host.device_at(ip) or ip
        payload = message.code == CONTENT and bool(message.payload)
        if message.code.is_request():
            name = "RequestPacket"
        elif message.code.is_response():
            name = "ContentPacket" if payload else "ResponsePacket"
        else:
            name = "EmptyPacket"
        self._host.sent(name, size_bytes, payload=payload, to=device)


class _Request(aiocoap.Message):
    """A request that knows whose it is, and so do those for its later blocks."""

    sender: tuple[str, int]
    """The node, and its token."""

    def copy(self, **changes: Any) -> _Request:
        copied: _Request = super().copy(**changes)
        copied.sender = self.sender
        return copied


class _Interface(MessageInterfaceSimpleServer):
    """aiocoap's simple transport, looked over the shoulder."""

    binding: AiocoapBinding

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.unacknowledged: dict[tuple[Any, int], tuple[str, int]] = {}
        """The node and its token of each request that is not acknowledged, by address and message id."""

    def address_of(self, ip: str, port: int) -> Any:
        """The remote that stands for a device."""
        return self._pool._Address(self._pool, (ip, port))

    def send(self, message: Any) -> None:
        if isinstance(message, _Request):
            self.unacknowledged[message.remote, message.mid] = message.sender
        data = message.encode()
        self.binding.on_sent(message.remote.address[0], message, len(data))
        message.remote.send(data)

    def _received_datagram(self, address: Any, datagram: bytes) -> None:
        if len(datagram) >= 4 and datagram[0] >> 4 & 3 == _ACK_TYPE:
            sender = self.unacknowledged.pop((address, int.from_bytes(datagram[2:4], "big")), None)
            # A response of a whole block is hardly the last.
            if sender is not None and (datagram[1] == _EMPTY_CODE or len(datagram) > BLOCK_BYTES):
                self.binding.on_acknowledged(*sender)
        super()._received_datagram(address, datagram)


def _refusal(request: Any) -> int | None:
    """The code that answers a request which nodes do not deal with; None for a plain GET."""
    if request.code != aiocoap.GET:
        return METHOD_NOT_ALLOWED
    if request.opt.proxy_uri is not None or request.opt.proxy_scheme is not None:
        return PROXYING_NOT_SUPPORTED
    return BAD_OPTION if request.opt.uri_query else None


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
