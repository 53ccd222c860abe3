"""One JSON line per sample, written when its answer is there; the only thing that reports and judges read.

    {"benchmark": "gsm8k", "message": "empty", "sample": "gsm8k/gsm8k/17", "turns": [{"user": …, "prompt": …,
     "output": …, "finish_reason": "stop", "answer_tokens": 93, …}], "extraction": {"value": ["42"], "ok": true, …},
     "gold": [["42"]], "scores": {"accuracy": 1.0}, …, "key": "9f…", "check": "5c…"}

`key` says what was asked of whom, so a resumed run knows what it has. `check` is a hash of the rest of the line:
a line that a crash tore, or that somebody edited, is not believed; its sample is asked again.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from orca2.answers.extraction import Extraction
from orca2.errors import CheckpointError, DataError
from orca2.evaluation.benchmark import Domain, Judgement
from orca2.files import growing
from orca2.generation import Chat, ChatReply, FinishReason
from orca2.reasoning import split
from orca2.records import ANSWER_KINDS, AnswerKind

SYNC_EVERY_S = 1.0
"""Seconds between two calls of fsync; ours. A killed process loses no whole line, a lost machine this much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredTurn:
    """One question of a sample with its answer."""

    user: str
    """The question as it was asked, after any shortening."""
    prompt: str
    """What the model saw, markup and system message included."""
    output: str
    """The answer, which is extracted from, judged, and repeated in the history of later turns."""
    finish_reason: FinishReason
    """`length` also where a reasoning trace never ended."""
    prompt_tokens: int
    answer_tokens: int
    """All that the model wrote, its trace included, without the end token; 0 where the backend does not count."""
    truncated_tokens: int
    """Tokens of the prompt that were cut out of its document because the context is too short; 0: asked whole."""
    seconds: float
    reasoning: str = ""
    """The trace before the answer, without markers."""
    raw: str = ""
    """The text as the model wrote it, where `output` is only a part of it."""

    @classmethod
    def of(cls, chat: Chat, reply: ChatReply, truncated_tokens: int = 0) -> "AnsweredTurn":
        """The last question of a chat with the reply to it."""
        said = split(reply.text, reply.reasoning)
        return cls(
            user=chat.user,
            prompt=reply.prompt,
            output=said.answer,
            finish_reason=reply.finish_reason if said.closed else "length",
            prompt_tokens=reply.prompt_tokens,
            answer_tokens=reply.answer_tokens,
            truncated_tokens=truncated_tokens,
            seconds=round(reply.seconds, 4),
            reasoning=said.reasoning,
            raw=reply.text if said.answer != reply.text else "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRecord:
    """One sample under one system message, with its answer and its scores."""

    key: str
    benchmark: str
    version: int
    domain: Domain
    judgement: Judgement
    kind: AnswerKind
    task: str
    message: str
    """Name of the system message; its text stands in the prompt."""
    sample: str
    """The sample's id."""
    turns: tuple[AnsweredTurn, ...]
    """One but for MT-Bench; the last one's output is what was extracted from."""
    extraction: Extraction
    gold: tuple[tuple[str, ...], ...]
    choices: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    """Metric -> 0 to 1, as `Benchmark.score` gives them; empty where only a judge scores."""

    @property
    def output(self) -> str:
        return self.turns[-1].output

    @property
    def truncated(self) -> bool:
        """Whether an answer ran into its limit, so that its end, and often its final answer, is missing."""
        return any(turn.finish_reason == "length" for turn in self.turns)


def to_line(record: SampleRecord) -> str:
    """The record as one line of JSON, with its `check`, without the line break."""
    content = asdict(record) | {"extraction": record.extraction._asdict()}
    return _dumps(content | {"check": _check(content)})


def from_line(line: str) -> SampleRecord:
    """Raises DataError where the line is not a whole, unchanged record, and CheckpointError where it is one of another
    version; the message says why."""
    try:
        content = json.loads(line)
        check = content.pop("check")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise DataError("not a whole record") from None
    if check != _check(content):
        raise DataError("its hash does not fit: the line was changed after it was written")
    content["turns"] = tuple(AnsweredTurn(**turn) for turn in content["turns"])
    read = content["extraction"]
    span = None if read["span"] is None else (read["span"][0], read["span"][1])
    content["extraction"] = Extraction(tuple(read["value"]), read["ok"], read["rule"], span)
    content["gold"] = tuple(map(tuple, content["gold"]))
    if content["kind"] not in ANSWER_KINDS:
        allowed = ", ".join(ANSWER_KINDS)
        raise CheckpointError(f"written by another version: kind = {content['kind']!r}; allowed are {allowed}")
    return SampleRecord(**content)


def read_records(path: Path) -> Iterator[SampleRecord | str]:
    """Every record of a file, and for each line that is not a record a sentence that says which and why.

    A last line without a line break was torn by a crash, and is left out.

    Raises CheckpointError at the first record of another version, so that no evaluation is asked again unbidden.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield from_line(line.decode("utf-8"))
            except (DataError, UnicodeDecodeError) as error:
                yield f"{path.name}, line {number}: {error}"
            except CheckpointError as error:
                raise CheckpointError(
                    f"{path}, line {number}: {error}; move this folder away, or evaluate into another one"
                ) from error


class RecordWriter:
    """Appends records to one file, which it locks. A torn last line is cut off first.

    Raises:
        CheckpointError: another process writes there.
        DataError: the disk is full, or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = growing(path)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror}; choose another out_dir") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise CheckpointError(f"{path}: another process writes there; wait for it to end") from error
        self._end = _end_of_last_line(path)
        self._file.truncate(self._end)
        self._synced = time.monotonic()

    def write(self, record: SampleRecord) -> None:
        line = to_line(record).encode() + b"\n"
        try:
            if self._file.write(line) != len(line):
                raise OSError("the disk took only a part of the line")
            self._end += len(line)
            if time.monotonic() - self._synced >= SYNC_EVERY_S:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            self._file.truncate(self._end)
            raise DataError(
                f"{self._path} cannot be written: {error}; make room and give the same command again: "
                "what was answered is kept"
            ) from error

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def _end_of_last_line(path: Path) -> int:
    """Bytes up to and including the last line break."""
    size = path.stat().st_size
    with path.open("rb") as file:
        end = size
        while end > 0:
            start = max(0, end - 65_536)
            file.seek(start)
            at = file.read(end - start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            end = start
    return 0


def _check(content: Mapping[str, Any]) -> str:
    """16 hex digits of BLAKE2b over the content as JSON with sorted keys."""
    return hashlib.blake2b(_dumps(dict(sorted(content.items()))).encode(), digest_size=8).hexdigest()


def _dumps(content: Mapping[str, Any]) -> str:
    # A model can write half a surrogate pair's escape, which UTF-8 cannot hold: hence ASCII.
    return json.dumps(content, ensure_ascii=True, allow_nan=False)
