"""`python synthesize.py` as a process of its own: killed, resumed, shared by ranks, capped, misspelt."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orca2.asking.cache import Cache

ROOT = Path(__file__).parents[3]
ITEMS = 2000
SERVED = (
    "teacher=vllm_server", "teacher.model=m", "teacher.max_tokens=40", "teacher.timeout_s=20", "teacher.concurrency=64",
    "teacher.start_concurrency=64", "attempts=30", "first_wait_s=0.01", "longest_wait_s=0.1", f"size={ITEMS}",
    "shard_rows=700", "teacher.usd_per_million.prompt=1", "teacher.usd_per_million.completion=2",
)  # fmt: skip
FAULTS = {"rate_limit": 0.01, "error": 0.05, "truncate": 0.02, "malformed": 0.02, "drop": 0.02}


def start(out_dir: Path, *overrides: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command = [sys.executable, str(ROOT / "synthesize.py"), f"out_dir={out_dir}", *overrides]
    return subprocess.Popen(
        command, cwd=out_dir.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def ended(process: "subprocess.Popen[str]", code: int = 0) -> str:
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == code, printed
    return printed


def stored(out_dir: Path) -> int:
    """Answers in the cache of a run that may be under way."""
    path = out_dir / "cache.sqlite"
    if not path.exists():
        return 0
    with Cache(path) as cache:
        return len(cache)


@pytest.mark.slow
def test_killed_at_half_and_resumed_pays_for_nothing_twice(tmp_path: Path, loopback: Any, data_sets: Any) -> None:
    """kill -9 in the middle of 2,000 items, then the rest by one process, by two, and with other shards."""
    # The whole run also meets answers that never come and answers that drip; each takes a time-out.
    with loopback.serving(loopback.Faults(**FAULTS, hang=0.001, drip=0.001)) as server:
        ended(start(tmp_path / "whole", *SERVED, f"teacher.base_url={server.url}"))
        unique = server.counters()["unique_answered"]
    assert ITEMS * 0.9 < unique <= ITEMS  # some generated questions are equal
    with loopback.serving(loopback.Faults(**FAULTS, freeze_after=ITEMS // 2)) as server:
        served = (*SERVED, f"teacher.base_url={server.url}")
        process = start(tmp_path / "killed", *served)
        # The server holds all further answers back, so the client stores those it was given and then waits.
        deadline = time.monotonic() + 300
        while stored(tmp_path / "killed") < ITEMS // 2 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert stored(tmp_path / "killed") == server.counters()["answered"] == ITEMS // 2
        assert not (tmp_path / "killed" / "data").exists()
        shutil.copytree(tmp_path / "killed", tmp_path / "shared")
        server.thawed = True
        assert f"is done: {ITEMS:,} examples" in ended(start(tmp_path / "killed", *served))
        counters = server.counters()
        assert counters["answered"] == counters["unique_answered"] == unique
    whole = data_sets.bytes(tmp_path / "whole")
    assert len([name for name in whole if name.startswith("data/")]) == 3
    assert data_sets.bytes(tmp_path / "killed") == whole
    with loopback.serving(loopback.Faults(**FAULTS)) as server:
        served = (*SERVED, f"teacher.base_url={server.url}", "world=2")
        ranks = [start(tmp_path / "shared", *served, f"rank={rank}") for rank in range(2)]
        printed = "".join(ended(rank) for rank in ranks)
        assert printed.count(" is done: ") == 1 and printed.count("this share is done") == 1
        counters = server.counters()
        assert counters["answered"] == counters["unique_answered"] == unique - ITEMS // 2
        assert data_sets.bytes(tmp_path / "shared") == whole
        cache = f"cache={tmp_path / 'whole' / 'cache.sqlite'}"
        ended(start(tmp_path / "other", *served[:-1], cache, "shard_rows=300"))
        assert server.counters() == counters, "another shard size asked again"
    assert data_sets.rows(tmp_path / "other") == data_sets.rows(tmp_path / "whole")


@pytest.mark.slow
def test_a_cap_holds_with_many_calls_at_a_time(tmp_path: Path, loopback: Any) -> None:
    """64 calls that each find room for themselves would pass the cap together; the server's own count decides."""
    faults = loopback.Faults(error=0.05, malformed=0.05, truncate=0.05, delay=0.02)
    with loopback.serving(faults) as server:
        served = (*SERVED, f"teacher.base_url={server.url}")
        usd = 0.1
        printed = ended(start(tmp_path / "a", *served, f"max_usd={usd}"), code=2)
        counters = server.counters()
        spent = (counters["prompt_tokens"] + 2 * counters["completion_tokens"]) / 1e6
        assert 0.5 * usd < spent <= usd  # calls that broke off count at their worst
        assert counters["most_under_way"] > 32
        assert "stopped before max_usd=0.1 could be passed" in printed and "The rest is about" in printed
        assert "Traceback" not in printed
        tokens = 60_000
        ended(start(tmp_path / "b", *served, f"max_tokens={tokens}"), code=2)
        after = server.counters()
        taken = sum(after[kind] - counters[kind] for kind in ("prompt_tokens", "completion_tokens"))
        assert 0.5 * tokens < taken <= tokens


def test_mistakes_are_listed_at_once(tmp_path: Path) -> None:
    """A misspelt key that is found after an hour of asking, or never."""
    printed = ended(start(tmp_path / "a", "taks=gsm8k", "verification.samples=none", "size=abc"), code=2)
    assert "'taks' is not a key of SynthesizeConfig; did you mean 'tasks'?" in printed
    assert "verification.samples = 'none'" in printed and "size" in printed
    assert "Traceback" not in printed and not (tmp_path / "a").exists()
