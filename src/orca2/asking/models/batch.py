"""A provider's Batch API: answers within a day, at a discount; through the same cache as the HTTP teacher.

    requests ─▶ token and keys stored ─▶ file uploaded ─▶ job created with the token ─▶ its id stored
                                                                                           │ poll
              answers, by key, in any order ◀── results stored in one transaction ◀─────────┘

A job outlives its process. `open` first waits for the jobs that earlier processes of the same runs left behind: one
with an id is polled; one without is searched for by its token in the provider's list: its process died in between.
So whatever was paid is in the cache before anything is asked. Other runs may be at work in the same cache: their jobs
are left alone.
"""

import asyncio
import io
import json
import logging
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from orca2.asking.budget import Price, price_of
from orca2.asking.cache import BatchResult, Cache
from orca2.asking.models.gathering import Gathering, Outcome
from orca2.asking.models.http import body_of, speaker_of
from orca2.asking.requests import Answer, Decoding, Request, TeacherError
from orca2.errors import ConfigError
from orca2.serving.client import open_client
from orca2.serving.limits import Limits
from orca2.serving.outcomes import NO_USAGE, Failure, Reply, Trouble, Unusable
from orca2.serving.refusals import Speaker, read_error, redacted
from orca2.serving.wire import TokenLimitField, read_reply

MOST_REQUESTS = 50_000
"""Requests in one file (OpenAI's Batch API documentation)."""
MOST_BYTES = 200 * 10**6
"""Size of one file (OpenAI's Batch API documentation); checked with the room of one request to spare."""
WINDOW = "24h"
"""The only completion window there is."""
TOKEN = "orca2"
"""Name of the job's metadata entry that holds our token."""
TIMEOUT_S = 600.0
"""Time limit of one upload or download; ours."""
CALLS_TO_THE_SERVICE = 5
"""Attempts to upload, create or find a job; ours."""
LISTED = 10
"""Odd ids that a warning names; ours."""
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass(frozen=True, kw_only=True)
class BatchTeacher:
    """Chat completions through files and batch jobs.

    Raises:
        ConfigError: a value that cannot be used; `open` raises it for a missing key or a missing `openai`
        package.
    """

    name: str
    model: str
    base_url: str
    api_key_env: str | None
    max_tokens: int
    temperature: float | None
    top_p: float | None
    seed: int | None
    token_limit_field: TokenLimitField
    batch_size: int
    """Requests per job."""
    jobs: int
    """Jobs under way at a time; the requests of all of them are held in memory."""
    poll_s: float
    linger_s: float
    """A job that is not full is created after this long without a new request."""
    usd_per_million: Mapping[str, float | None]
    """Tokens, without the discount; as the HTTP teacher's."""
    batch_factor: float
    """What a batch answer costs of the price."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    group: str = "teacher"
    """Config group of these settings on the command line, for messages."""
    cached: bool = field(default=True, init=False)
    decoding: Decoding = field(init=False)
    limits: Limits = field(init=False)
    price: Price | None = field(init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= MOST_REQUESTS:
            raise ConfigError(f"batch_size is {self.batch_size}; allowed are 1 to {MOST_REQUESTS} requests")
        for name in ("jobs", "poll_s", "linger_s", "batch_factor"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; give a value above 0")
        decoding = Decoding(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            extra=dict(self.extra),
        )
        price = price_of(self.usd_per_million)
        object.__setattr__(self, "decoding", decoding)
        object.__setattr__(self, "limits", Limits(concurrency=self.batch_size * self.jobs))
        object.__setattr__(self, "price", None if price is None else price.scaled(self.batch_factor))

    @asynccontextmanager
    async def open(self, cache: Cache, runs: Sequence[str]) -> AsyncIterator[Answer]:
        speaker = speaker_of(self)
        async with open_client(self.base_url, speaker.secret, TIMEOUT_S, max(2, self.jobs)) as client:
            service = _Service(self, client, speaker, cache, runs[0])
            await service.take_up(runs)
            try:
                yield service.answer
            finally:
                await service.close()


class _MayExist(TeacherError):
    """A job was sent for and no answer came: it stays noted and counted, and the next process looks for it."""


class _Service:
    """The open jobs of one process."""

    def __init__(self, teacher: BatchTeacher, client: Any, speaker: Speaker, cache: Cache, run: str) -> None:
        self._teacher, self._client, self._speaker, self._cache, self._run = teacher, client, speaker, cache, run
        self._gathering = Gathering(self._answers, teacher.batch_size, teacher.linger_s)
        self.answer, self.close = self._gathering.answer, self._gathering.close

    async def take_up(self, runs: Sequence[str]) -> None:
        """Store the results of the jobs that earlier processes of these runs left behind.

        What is still unanswered then, also for a reason that would end a run, is asked like anything else.
        """
        for token, id in self._cache.batches(runs).items():
            asked = self._cache.waiting(token)
            if id is None:
                id = await self._find(token)
            if id is None:
                self._end(token, asked, {})
                continue
            self._cache.name_batch(token, id)
            await self._results(token, id, asked)

    async def _answers(self, requests: Sequence[Request]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for part in parts(requests, self._teacher.token_limit_field):
            outcomes += await self._run_job(part)
        return outcomes

    async def _run_job(self, requests: Sequence[Request]) -> list[Outcome]:
        token = f"{self._run}/{uuid.uuid4().hex}"
        asked = {request.key: request.canonical for request in requests}
        self._cache.start_batch(token, requests)
        try:
            id = await self._create(token, requests)
        except _MayExist:
            raise
        except Exception:
            # Not after a cancellation: the job may exist, and the next process looks for it.
            self._end(token, asked, {})
            raise
        if isinstance(id, Trouble):
            self._end(token, asked, {})
            return [id] * len(requests)
        self._cache.name_batch(token, id)
        outcomes = await self._results(token, id, asked)
        missing = Trouble(kind="server", reason="the batch job ended without an answer to this request")
        return [outcomes.get(request.key, missing) for request in requests]

    def _end(self, token: str, asked: Mapping[str, str], outcomes: Mapping[str, Outcome]) -> None:
        """Store a job's outcomes and settle its calls; what it left out was not billed."""
        price, results = self._teacher.price, []
        for key, request in asked.items():
            outcome = outcomes.get(key)
            if isinstance(outcome, Trouble) and outcome.maybe_paid:
                continue  # its call stays open, and so counts at its worst
            stored = outcome if isinstance(outcome, Reply | Failure) else None
            usage = NO_USAGE if stored is None else stored.usage
            counted = not isinstance(stored, Reply) or stored.usage_known
            usd = None if price is None else price.usd(usage)
            results.append(BatchResult(key, request, stored, usage if counted else None, usd))
        self._cache.end_batch(token, results)

    async def _create(self, token: str, requests: Sequence[Request]) -> str | Trouble:
        lines = (line(request, self._teacher.token_limit_field) for request in requests)
        content = io.BytesIO(b"".join(lines))
        uploaded = await self._persist(lambda: self._upload(content))
        if isinstance(uploaded, Trouble):
            return uploaded

        import openai

        unsure = False

        async def create() -> str:
            nonlocal unsure
            # An earlier attempt may have been heard and its answer lost.
            found = await self._find_once(token)
            if found is not None:
                return found
            unsure = True
            try:
                job = await self._client.batches.create(
                    input_file_id=uploaded,
                    endpoint="/v1/chat/completions",
                    completion_window=WINDOW,
                    metadata={TOKEN: token},
                )
            except openai.APIStatusError as error:
                unsure = error.status_code >= 500 or error.status_code == 408  # other answers refuse the job
                raise
            return str(job.id)

        try:
            created: str | Trouble = await self._persist(create)
        except Exception as error:
            created = Trouble(kind="server", reason=str(error))
            if not unsure:
                raise
        if unsure and isinstance(created, Trouble):
            raise _MayExist(
                f"teacher={self._teacher.name}: nobody knows whether the provider took a job of {len(requests)} "
                f"requests: {created.reason}; it is noted, run again later, when the provider's jobs can be listed"
            )
        return created

    async def _upload(self, content: io.BytesIO) -> str:
        content.seek(0)
        file = await self._client.files.create(file=("requests.jsonl", content), purpose="batch")
        return str(file.id)

    async def _find(self, token: str) -> str | None:
        found: str | Trouble | None = await self._persist(lambda: self._find_once(token))
        if isinstance(found, Trouble):
            raise TeacherError(
                f"teacher={self._teacher.name}: the provider's batch jobs cannot be listed, so a job of an "
                f"earlier run may be lost: {found.reason}; try again later"
            )
        return found

    async def _find_once(self, token: str) -> str | None:
        async for job in self._client.batches.list(limit=100):
            if (job.metadata or {}).get(TOKEN) == token:
                return str(job.id)
        return None

    async def _persist(self, call: Any) -> Any:
        """The call's result, or the last trouble after several attempts. Raises TeacherError."""
        import openai

        trouble: Trouble | None = None
        for attempt in range(CALLS_TO_THE_SERVICE):
            if attempt:
                await asyncio.sleep(self._teacher.poll_s)
            try:
                return await call()
            except openai.APIStatusError as error:
                response = error.response
                meaning = read_error(error.status_code, response.text, response.headers, self._speaker)
                if isinstance(meaning, Unusable):
                    raise TeacherError(meaning.reason) from None
                if isinstance(meaning, Failure):
                    name = self._teacher.name
                    raise TeacherError(f"teacher={name}: the batch service refuses: {meaning.reason}") from None
                trouble = meaning
            except openai.APIConnectionError as error:
                trouble = Trouble(
                    kind="connection", reason=redacted(f"{error} {error.__cause__!r}", self._speaker.secret)
                )
        assert trouble is not None
        return trouble

    async def _results(self, token: str, id: str, asked: Mapping[str, str]) -> dict[str, Outcome]:
        """Wait for a job, store its results and return them by key."""
        job = await self._ended(id)
        texts = []
        for file in (job.output_file_id, job.error_file_id):
            if not file:
                continue
            content = await self._persist(lambda file=file: self._client.files.content(file))
            if isinstance(content, Trouble):
                # The job stays noted: its results are paid, and the next process fetches them.
                raise TeacherError(
                    f"teacher={self._teacher.name}: results of job {id} cannot be fetched: {content.reason}"
                )
            texts.append(content.text)
        outcomes, oddities = read_results(texts, asked, self._speaker)
        for oddity in oddities:
            logging.getLogger(__name__).warning("teacher=%s, job %s: %s", self._teacher.name, id, oddity)
        if job.status == "failed":
            outcomes = dict.fromkeys(asked, self._refused(job))
        self._end(token, asked, outcomes)
        return outcomes

    async def _ended(self, id: str) -> Any:
        while True:
            job = await self._persist(lambda: self._client.batches.retrieve(id))
            if isinstance(job, Trouble):
                raise TeacherError(
                    f"teacher={self._teacher.name}: job {id} cannot be asked for: {job.reason}; it is noted, "
                    f"run again later"
                )
            if job.status in _ENDED:
                return job
            await asyncio.sleep(self._teacher.poll_s)

    def _refused(self, job: Any) -> Outcome:
        errors = (job.errors.data if job.errors else None) or []
        reason = redacted("; ".join(f"{error.code}: {error.message}" for error in errors), self._speaker.secret)
        if any(error.code == "token_limit_exceeded" for error in errors):
            # Too much is queued at the provider; it drains by itself.
            return Trouble(kind="rate_limit", reason=reason)
        return TeacherError(
            f"teacher={self._teacher.name}: the batch service refused a job: {reason or 'no reason given'}"
        )


def line(request: Request, token_limit_field: str) -> bytes:
    """A request's line in a batch file; its key is the `custom_id` that joins the result to it."""
    row = {
        "custom_id": request.key,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body_of(request, token_limit_field),
    }
    return json.dumps(row).encode() + b"\n"


def parts(requests: Sequence[Request], token_limit_field: str) -> Iterator[list[Request]]:
    """The requests cut where a file would grow beyond what the service takes."""
    part: list[Request] = []
    size = 0
    for request in requests:
        length = len(line(request, token_limit_field))
        if part and size + length > MOST_BYTES:
            yield part
            part, size = [], 0
        part.append(request)
        size += length
    if part:
        yield part


def read_results(
    texts: Sequence[str], asked: Mapping[str, str], speaker: Speaker
) -> tuple[dict[str, Outcome], list[str]]:
    """Key -> outcome of a job's result files, and what is odd in them: lines that are not results, ids that were not
    asked, and ids that come again, of which the first line counts. `asked`: key -> canonical request.

    A TeacherError is the outcome where a line says that no call can succeed, for the lines beside it may hold answers.
    """
    outcomes: dict[str, Outcome] = {}
    again: list[str] = []
    unknown: list[str] = []
    broken = 0
    for row in (row for text in texts for row in text.split("\n") if row.strip()):
        try:
            values = json.loads(row)
            key, response = str(values["custom_id"]), values["response"]
            status = 0 if response is None else int(response["status_code"])
            content = None if response is None else response["body"]
        except (ValueError, KeyError, TypeError):
            broken += 1
            continue
        if key not in asked or key in outcomes:
            (again if key in outcomes else unknown).append(key)
        else:
            most = json.loads(asked[key])["decoding"]["max_tokens"]
            outcomes[key] = _outcome(status, content, values.get("error"), most, speaker)
    oddities = [
        f"{len(keys)} lines have an id that {what}: {', '.join(keys[:LISTED])}{', ...' if len(keys) > LISTED else ''}"
        for keys, what in ((again, "came before; the first answer is kept"), (unknown, "was not asked for"))
        if keys
    ]
    return outcomes, oddities + ([f"{broken} lines are not results; their requests are asked again"] if broken else [])


def _outcome(status: int, content: Any, error: Any, most_tokens: int, speaker: Speaker) -> Outcome:
    if status == 0:
        return Trouble(kind="server", reason=redacted(json.dumps(error), speaker.secret))
    if status == 200:
        outcome = read_reply(content, most_tokens, speaker)
    else:
        outcome = read_error(status, json.dumps(content), {}, speaker)
    return TeacherError(outcome.reason) if isinstance(outcome, Unusable) else outcome
