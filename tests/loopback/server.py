"""A teacher's server on 127.0.0.1 that misbehaves on demand and counts what it bills.

It speaks chat completions, files and batches. Only the standard library, and HTTP/1.1 by hand: the server
must be faster than the client that it measures.

    with serving(Faults(rate_limit=0.2)) as server:      in a thread, for tests
        server.url, server.counters()
    python -m tests.loopback.server --delay 0.02         in a process, from the repository's root; prints its URL

Whether a call meets a fault is drawn from the request's content and the number of times that it was asked, so
it depends neither on time nor on order. Words in the user's message force an outcome: see `modes.py`.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from random import Random
from typing import Any

from tests.loopback import modes

KEY = "sk-loopback-secret-0123456789"


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Shares of the calls that go wrong, and the server's other habits."""

    rate_limit: float = 0.0
    error: float = 0.0
    hang: float = 0.0
    """The answer is made and billed, and never sent."""
    truncate: float = 0.0
    """The body ends before its announced length; billed."""
    malformed: float = 0.0
    """Half a JSON text; billed."""
    drip: float = 0.0
    """The body comes byte by byte forever; billed."""
    drop: float = 0.0
    """The connection is closed without a word; billed."""
    seed: int = 0
    delay: float = 0.0
    """Seconds for each answer."""
    retry_after: str = "0.05"
    overload_above: int | None = None
    """429 for calls beyond this many at a time."""
    freeze_after: int | None = None
    """After this many answers, calls are held unanswered and unbilled."""
    need_key: bool = False
    batch_seconds: float = 0.05
    batch_expires: float = 0.0
    """Share of a batch's requests that expire unanswered, at their first batch."""
    batch_usage: bool = True
    """False: answers of a batch do not say what they took."""


@dataclass
class Counters:
    """What the server saw; `usd`-free: prices are the client's business."""

    requests: int = 0
    answered: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    billed: int = 0
    under_way: int = 0
    most_under_way: int = 0
    batches: int = 0
    files: int = 0


class Loopback:
    """The server's state; used in one event loop, counters read from anywhere."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.counts = Counters()
        self.answered_by: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.bodies: list[dict[str, Any]] = []
        self.limits_seen: list[int] = []
        """Tokens that each call asked for."""
        self.times: list[float] = []
        self.url = ""
        self.thawed = False
        self._tasks: set[asyncio.Task[None]] = set()

    def counters(self) -> dict[str, Any]:
        numbers = {f.name: getattr(self.counts, f.name) for f in fields(Counters)}
        repeated = sum(count - 1 for count in self.answered_by.values())
        return numbers | {"unique_answered": len(self.answered_by), "repeated_answers": repeated}

    def spread(self) -> float:
        """Seconds from the first call to the last one."""
        return self.times[-1] - self.times[0]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.split("\r\n")
                method, path, _ = first.split(" ")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
                content = await reader.readexactly(int(headers.get("content-length", "0")))
                if not await self._route(method, path.partition("?")[0], headers, content, reader, writer):
                    break
        writer.close()

    async def _route(
        self, method: str, path: str, headers: dict[str, str], content: bytes, reader: asyncio.StreamReader, writer: Any
    ) -> bool:
        if path == "/counters":
            return await self._json(writer, 200, self.counters())
        if self.faults.need_key and headers.get("authorization") != f"Bearer {KEY}":
            message = f"Incorrect API key provided: {headers.get('authorization')}"
            return await self._json(writer, 401, {"error": {"message": message, "code": "invalid_api_key"}})
        if path == "/v1/chat/completions":
            return await self._chat(content, reader, writer)
        status, answer = self._files_and_batches(method, path, headers, content)
        if isinstance(answer, bytes):
            return await self._send(writer, status, answer)
        return await self._json(writer, status, answer)

    async def _chat(self, content: bytes, reader: asyncio.StreamReader, writer: Any) -> bool:
        faults, counts = self.faults, self.counts
        counts.requests += 1
        counts.under_way += 1
        counts.most_under_way = max(counts.most_under_way, counts.under_way)
        try:
            if faults.overload_above is not None and counts.under_way > faults.overload_above:
                return await self._json(writer, 429, modes.error("slow down"), {"retry-after": faults.retry_after})
            request = json.loads(content)
            digest = hashlib.sha256(content).hexdigest()
            self.seen[digest] += 1
            self.bodies.append(request)
            self.limits_seen.append(request.get("max_completion_tokens") or request["max_tokens"])
            self.times.append(time.monotonic())
            fault = self._fault(digest)
            if fault == "rate_limit":
                return await self._json(writer, 429, modes.error("slow down"), {"retry-after": faults.retry_after})
            if fault == "error":
                return await self._json(writer, 500, modes.error("broken"))
            if faults.freeze_after is not None:
                while counts.answered >= faults.freeze_after and not self.thawed:
                    await asyncio.sleep(0.01)
                if reader.at_eof():
                    return False  # the client is gone: like real servers, give up before the work
            if faults.delay:
                await asyncio.sleep(faults.delay)
            status, answer = self._complete(request)
            mode = modes.response(request, self.seen[digest], status, answer)
            if mode is not None:
                return await self._deliver_mode(writer, mode, answer, digest)
            return await self._deliver(writer, fault, status, answer, digest)
        finally:
            counts.under_way -= 1

    async def _deliver(self, writer: Any, fault: str | None, status: int, answer: Any, digest: str) -> bool:
        body = json.dumps(answer).encode()
        if status == 200:
            self._bill(answer["usage"])
        if fault is None or status != 200:
            if status == 200:
                self.counts.answered += 1
                self.answered_by[digest] += 1
            return await self._send(writer, status, body)
        if fault == "malformed":
            return await self._send(writer, 200, body[: len(body) // 2])
        if fault == "drop":
            return False
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        if fault == "truncate":
            writer.write(body[: len(body) // 2])
            await writer.drain()
            return False
        for byte in body[:-1]:
            if fault == "drip":
                writer.write(bytes([byte]))
                await writer.drain()
            await asyncio.sleep(0.05)
        return False

    async def _deliver_mode(self, writer: Any, mode: modes.Response, answer: Any, digest: str) -> bool:
        if mode.status == 200:
            self._bill(answer["usage"])
            self.counts.answered += 1
            self.answered_by[digest] += 1
        return await self._send(writer, mode.status, mode.body, mode.headers)

    def _fault(self, digest: str) -> str | None:
        draw = Random(f"{self.faults.seed}/{digest}/{self.seen[digest]}").random()
        for name in ("rate_limit", "error", "hang", "truncate", "malformed", "drip", "drop"):
            draw -= getattr(self.faults, name)
            if draw < 0:
                return name
        return None

    def _bill(self, usage: dict[str, int]) -> None:
        self.counts.billed += 1
        self.counts.prompt_tokens += usage["prompt_tokens"]
        self.counts.completion_tokens += usage["completion_tokens"]

    def _complete(self, request: dict[str, Any]) -> tuple[int, Any]:
        return modes.complete(request)

    def _files_and_batches(self, method: str, path: str, headers: dict[str, str], content: bytes) -> tuple[int, Any]:
        parts = path.strip("/").split("/")[1:]
        if method == "POST" and parts == ["files"]:
            id = f"file-{len(self.files)}"
            self.files[id] = _uploaded(headers["content-type"], content)
            self.counts.files += 1
            return 200, {
                "id": id,
                "object": "file",
                "bytes": 1,
                "created_at": 0,
                "filename": "x",
                "purpose": "batch",
            }
        if method == "GET" and len(parts) == 3 and parts[0] == "files" and parts[1] in self.files:
            return 200, self.files[parts[1]]
        if method == "POST" and parts == ["batches"]:
            return 200, self._start_batch(json.loads(content))
        if method == "GET" and parts == ["batches"]:
            return 200, {
                "object": "list",
                "data": [self._batch(id) for id in reversed(self.batches)],
                "has_more": False,
            }
        if method == "GET" and len(parts) == 2 and parts[0] == "batches" and parts[1] in self.batches:
            return 200, self._batch(parts[1])
        return 404, modes.error(f"no such thing: {method} {path}")

    def _start_batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        id = f"batch_{len(self.batches)}"
        self.counts.batches += 1
        self.batches[id] = {
            "id": id,
            "object": "batch",
            "endpoint": asked["endpoint"],
            "input_file_id": asked["input_file_id"],
            "completion_window": asked["completion_window"],
            "metadata": asked.get("metadata"),
            "status": "in_progress",
            "created_at": 0,
            "ready": time.monotonic() + self.faults.batch_seconds,
        }
        return self._batch(id)

    def _batch(self, id: str) -> dict[str, Any]:
        batch = self.batches[id]
        if batch["status"] == "in_progress" and time.monotonic() >= batch["ready"]:
            good, bad, texts = [], [], {}
            for line in self.files[batch["input_file_id"]].decode().splitlines():
                row = json.loads(line)
                texts[row["custom_id"]] = row["body"]["messages"][-1]["content"]
                digest = hashlib.sha256(json.dumps(row["body"], sort_keys=True).encode()).hexdigest()
                self.seen[digest] += 1
                if Random(f"expire/{digest}/{self.seen[digest]}").random() < self.faults.batch_expires:
                    bad.append({"custom_id": row["custom_id"], "response": None, "error": {"code": "batch_expired"}})
                    continue
                status, answer = self._complete(row["body"])
                if status == 200:
                    self._bill(answer["usage"])
                    self.counts.answered += 1
                    self.answered_by[digest] += 1
                if not self.faults.batch_usage:
                    answer.pop("usage", None)
                response = {"status_code": status, "request_id": "r", "body": answer}
                (good if status == 200 else bad).append(
                    {"custom_id": row["custom_id"], "response": response, "error": None}
                )
            good.reverse()  # results come in no order
            for name, rows in (("output_file_id", good), ("error_file_id", bad)):
                if rows:
                    batch[name] = f"file-{len(self.files)}"
                    lines = [line for row in rows for line in modes.batch_lines(row, texts[row["custom_id"]])]
                    self.files[batch[name]] = "\n".join(lines).encode()
            batch["status"] = "expired" if self.faults.batch_expires and bad else "completed"
        return {key: value for key, value in batch.items() if key != "ready"}

    async def _json(self, writer: Any, status: int, content: Any, headers: dict[str, str] | None = None) -> bool:
        return await self._send(writer, status, json.dumps(content).encode(), headers)

    async def _send(self, writer: Any, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> bool:
        named = {"content-type": "application/json"} | dict(headers or {})
        extra = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        return True


def _uploaded(content_type: str, content: bytes) -> bytes:
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    for part in content.split(b"--" + boundary):
        head, _, data = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            return data.removesuffix(b"\r\n")
    raise ValueError("no file in the form")


async def _serve(state: Loopback, ready: "threading.Event | None") -> None:
    server = await asyncio.start_server(state.handle, "127.0.0.1", 0, limit=2**28, backlog=1024)
    state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    if ready is None:
        print(state.url, flush=True)
    else:
        ready.set()
    await server.serve_forever()


@contextlib.contextmanager
def serving(faults: Faults | None = None) -> Iterator[Loopback]:
    """A server in a thread of this process."""
    state, ready = Loopback(faults or Faults()), threading.Event()
    loop = asyncio.new_event_loop()
    task: Any = None

    def run() -> None:
        nonlocal task
        asyncio.set_event_loop(loop)
        task = loop.create_task(_serve(state, ready))
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        others = asyncio.all_tasks(loop)
        for other in others:
            other.cancel()
        loop.run_until_complete(asyncio.gather(*others, return_exceptions=True))
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10), "the loopback server did not start"
    try:
        yield state
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)


def main() -> None:
    parser = argparse.ArgumentParser(description="loopback teacher on 127.0.0.1")
    for f in fields(Faults):
        kind: Any = {bool: lambda text: text == "true", str: str}.get(f.type, float)
        parser.add_argument(f"--{f.name.replace('_', '-')}", type=kind, default=f.default)
    values = vars(parser.parse_args())
    for name in ("seed", "overload_above", "freeze_after"):
        values[name] = None if values[name] is None else int(values[name])
    asyncio.run(_serve(Loopback(Faults(**values)), None))


if __name__ == "__main__":
    main()
