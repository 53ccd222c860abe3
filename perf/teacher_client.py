"""Throughput and memory of the HTTP teacher against a loopback server, one client process and one server process.

    python perf/teacher_client.py --json out.json                           (extra: teacher)
    python perf/teacher_client.py --json out.json --requests 100000         memory over a long run

The server answers each call after `--delay` seconds. Every request is new, so each one is a call, a row in the cache
and two in the accounts of the budget. Processor time is the client's own, so it holds on a busy machine as well.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orca2.asking.budget import Budget
from orca2.asking.cache import Cache
from orca2.asking.call_plans import answer_once
from orca2.asking.engine import asking
from orca2.asking.models.http import HttpTeacher
from orca2.asking.requests import Request
from orca2.serving.outcomes import Reply

ROOT = Path(__file__).resolve().parent.parent
WANTED_PER_SECOND = 300
"""The project's own goal for a process; hosted APIs allow less."""
SYSTEM = "You are a careful assistant. Work step by step, and explain each step. " * 5
QUESTION = "Ann has {i} cups and buys two more every day. How many has she after a week? " * 4
"""About 650 bytes together, as a short task under a detailed instruction."""


def requests(teacher: HttpTeacher, count: int) -> Iterator[Request]:
    for i in range(count):
        yield Request(model=teacher.model, decoding=teacher.decoding, system=SYSTEM, user=QUESTION.format(i=i))


def resident_mib() -> float:
    """Resident memory of this process, MiB. Linux."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def measure(url: str, count: int, concurrency: int) -> dict[str, Any]:
    teacher = HttpTeacher(
        name="loopback", model="m", base_url=url, api_key_env=None, max_tokens=64, temperature=0.0, top_p=None,
        seed=None, timeout_s=60.0, concurrency=concurrency, start_concurrency=concurrency,
        requests_per_minute=None, tokens_per_minute=None, token_limit_field="max_tokens",
        usd_per_million={"prompt": 1.0, "completion": 2.0},
    )  # fmt: skip
    memory: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as folder, Cache(Path(folder) / "cache.sqlite") as cache:
        async with asking(teacher, cache, Budget(max_usd=1e6)) as asked:
            done, start, processor = 0, time.perf_counter(), time.process_time()
            async for _, result in asked.map(requests(teacher, count), answer_once):
                assert isinstance(result, Reply), result
                done += 1
                if done % max(1, count // 10) == 0:
                    memory.append((done, resident_mib()))
            seconds, processor = time.perf_counter() - start, time.process_time() - processor
        assert len(cache) == done == count
    return {
        "requests": count,
        "concurrency": concurrency,
        "seconds": seconds,
        "requests_per_s": count / seconds,
        "processor_ms_per_request": 1000 * processor / count,
        "memory_mib": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--delay", type=float, default=0.02, help="seconds per answer")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "tests.loopback.server", "--delay", str(arguments.delay)]
    runs = []
    for _ in range(arguments.rounds):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                url = server.stdout.readline().strip()
                runs.append(asyncio.run(measure(url, arguments.requests, arguments.concurrency)))
            finally:
                server.kill()
    print("requests  concurrency  requests/s  processor ms/request  memory MiB at 10 %  at 100 %")
    for run in runs:
        memory = run["memory_mib"]
        print(
            f"{run['requests']:>8,}  {run['concurrency']:>11}  {run['requests_per_s']:>10.0f}  "
            f"{run['processor_ms_per_request']:>20.2f}  {memory[0][1]:>18.1f}  {memory[-1][1]:>8.1f}"
        )
    best = max(run["requests_per_s"] for run in runs)
    print(f"best {best:.0f} requests/s, wanted {WANTED_PER_SECOND}")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"runs": runs, "ratio": {"wanted": best / WANTED_PER_SECOND}}, indent=1))


if __name__ == "__main__":
    main()
