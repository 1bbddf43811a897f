"""A slow line: a TCP forwarder with the delay and the rate of a long way, for kernels without netem.

Each direction is one queue for all connections: a byte leaves when those before it have left at the line's rate, and
arrives half a round trip later. There is no loss and no slow start. A cut holds what is under way, as retransmission
would; a new connection during a cut is accepted and then hears nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

QUEUED = 0.01  # seconds of data that wait to leave: enough to keep the line busy while we oversleep
RESET = None  # travels the line like data


async def sleep_until(when: float) -> None:
    """Sleep until the loop's clock says so, as closely as epoll's whole milliseconds (rounded up) allow."""
    if (seconds := when - asyncio.get_running_loop().time() - 0.0005) > 0:
        await asyncio.sleep(seconds)


def abort(writer: asyncio.StreamWriter) -> None:
    """Reset the connection."""
    raw: socket.socket | None = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@dataclass
class Direction:
    """One way of the line, shared by all connections."""

    seconds: float
    rate: float  # bytes per second
    up: asyncio.Event = field(default_factory=asyncio.Event)
    free: float = 0.0  # when all that is queued will have left
    delivered: int = 0

    @property
    def piece(self) -> int:
        """Bytes to send at once: 2 ms of the line, so that connections share it."""
        return max(1448, min(65536, int(self.rate * 0.002)))

    def send(self, size: int) -> float:
        """Queue so many bytes; return when they arrive."""
        self.free = max(self.free, asyncio.get_running_loop().time()) + size / self.rate
        return self.free + self.seconds


@dataclass
class Pipe:
    """One direction of one connection: what is read waits for its time, then is written."""

    line: Direction
    items: asyncio.Queue[tuple[float, bytes | None]] = field(default_factory=lambda: asyncio.Queue(1024))

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Queue what the sender sends, no faster than the line takes it, and its end or reset."""
        item: bytes | None = b"."
        while item:
            try:
                item = await reader.read(self.line.piece)
            except OSError:
                item = RESET
            await self.put(item)
            await sleep_until(self.line.free - QUEUED)

    async def put(self, item: bytes | None) -> None:
        """Send one item on its way."""
        await self.line.up.wait()
        await self.items.put((self.line.send(len(item or b"")), item))

    async def write(self, writer: asyncio.StreamWriter, back: Pipe) -> bool:
        """Deliver every item when it is due; true at a clean end. A receiver that is gone sends a reset back."""
        item: bytes | None = b"."
        while item:
            due, item = await self.items.get()
            await sleep_until(due)
            await self.line.up.wait()
            try:
                await self.deliver(item, writer)
            except OSError:
                await back.put(RESET)
                return False
        return item is not RESET

    async def deliver(self, item: bytes | None, writer: asyncio.StreamWriter) -> None:
        """Hand one item to the receiver."""
        if item is RESET:
            abort(writer)
        elif item:
            self.line.delivered += len(item)  # first: who has received them may ask for the count at once
            writer.write(item)
            await writer.drain()
        else:
            writer.write_eof()


class SlowLine:
    """A line to `target` that begins at 127.0.0.1:`port`; a context manager, usable from any thread."""

    def __init__(self, target: tuple[str, int], round_trip: float, bits_per_second: float, *, port: int = 0) -> None:
        self._target = target
        self._trip = round_trip
        self._there = Direction(round_trip / 2, bits_per_second / 8)
        self._back = Direction(round_trip / 2, bits_per_second / 8)
        self._wanted = port
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0

    @property
    def received_by_target(self) -> int:
        """Bytes delivered to the target so far."""
        return self._there.delivered

    @property
    def sent_by_target(self) -> int:
        """Bytes of the target delivered to its clients so far."""
        return self._back.delivered

    def start(self) -> Self:
        """Begin to listen."""
        listener = socket.create_server(("127.0.0.1", self._wanted), backlog=128)
        self.port = listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="slow line", daemon=True)
        self._thread.start()
        self._run(self._listen(listener))
        self.heal()
        return self

    def stop(self) -> None:
        """Reset every connection and stop listening."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Let nothing pass any more: no data, no end, no reset."""
        self._run(self._switch(up=False))

    def heal(self) -> None:
        """Let everything pass again, first of all what was under way."""
        self._run(self._switch(up=True))

    def reset(self) -> None:
        """Reset every connection at both ends, at once."""
        self._run(self._drop())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _run(self, work: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _switch(self, *, up: bool) -> None:
        for line in (self._there, self._back):
            (line.up.set if up else line.up.clear)()

    async def _listen(self, listener: socket.socket) -> None:
        self._server = await asyncio.start_server(self._accept, sock=listener)

    async def _close(self) -> None:
        self._server.close()
        await self._drop()

    async def _drop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back, ends, clean = Pipe(self._there), Pipe(self._back), [writer], False
        reading: list[asyncio.Task[None]] = []
        try:
            await asyncio.sleep(self._trip)  # the handshake: the client may send now, the target hears of it later
            reading.append(asyncio.create_task(there.read(reader)))
            await asyncio.sleep(self._trip / 2)
            await self._there.up.wait()
            far_reader, far = await asyncio.open_connection(*self._target)
            ends.append(far)
            reading.append(asyncio.create_task(back.read(far_reader)))
            clean = all(await asyncio.gather(there.write(far, back), back.write(writer, there)))
            await asyncio.sleep(0 if clean else self._trip / 2)
        except OSError:
            pass  # the target refused: `ends` are reset, as the target would do
        finally:
            for task in reading:
                task.cancel()
            for end in ends:
                end.close() if clean else abort(end)


def seconds(text: str) -> float:
    """Parse `50ms` or `0.2s`."""
    return _quantity(text, {"ms": 0.001, "s": 1.0})


def bits(text: str) -> float:
    """Parse `20Mbit`, `512kbit` or `1Gbit` (per second)."""
    return _quantity(text, {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9})


def _quantity(text: str, units: dict[str, float]) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([a-z]+)", text.lower(), re.ASCII)
    if match is None or match[2] not in units or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number followed by one of {', '.join(units)}")
    return float(match[1]) * units[match[2]]


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def main() -> None:
    """Forward until interrupted, then print what was carried."""
    parser = argparse.ArgumentParser(prog="python -m ops.slowline", description="a slow line to a TCP port")
    parser.add_argument("--target", type=_address, required=True, help="HOST:PORT")
    parser.add_argument("--round-trip", type=seconds, default=0.05, help="such as 50ms")
    parser.add_argument("--rate", type=bits, default=20e6, help="such as 20Mbit, each way")
    parser.add_argument("--port", type=int, default=0, help="to listen on, on 127.0.0.1; default: any")
    options = parser.parse_args()
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before there are threads, so that only sigwait sees them
    with SlowLine(options.target, options.round_trip, options.rate, port=options.port) as line:
        print(f"127.0.0.1:{line.port}", flush=True)
        signal.sigwait(ends)
        counts = ("connections", "received_by_target", "sent_by_target")
        print(json.dumps({name: getattr(line, name) for name in counts}))


if __name__ == "__main__":
    main()
