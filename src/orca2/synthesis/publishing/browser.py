"""One HTML file to look at a data set with: filters, the answer, and both prompts side by side.

    records ──▶ the `SAMPLE` with the smallest hashes of their ids ──▶ browser.html
                                                                       ├─ records as JSON, inside the page
                                                                       └─ one script, which only ever sets text

Data are strangers' text. None of it becomes markup: the JSON has no `<`, `>` or `&`, the script makes nodes and
fills them with `textContent`, and the page's policy lets no other script run and nothing be loaded.
"""

import base64
import hashlib
import heapq
import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from orca2.erasing import Erasing
from orca2.hashing import hash64
from orca2.leaks import leaked_ngrams
from orca2.records import Example
from orca2.runs import atomic_write_text

SAMPLE = 2000
"""Records in the page; ours. At 4 kB each it is 8 MB, which opens in a second."""


def write_browser(path: Path, title: str, examples: Iterable[Example], erasing: Erasing, sample: int = SAMPLE) -> int:
    """Write the page with an even sample of the records, in their order; returns how many it holds.

    Constant memory: only the sample is kept.
    """
    total = 0

    def counted() -> Iterable[tuple[int, int, Example]]:
        nonlocal total
        for number, example in enumerate(examples):
            total = number + 1
            yield hash64(example.id), number, example

    chosen = heapq.nsmallest(sample, counted(), key=lambda entry: entry[:2])
    records = [_record(example, erasing) for _, _, example in sorted(chosen, key=lambda entry: entry[1])]
    atomic_write_text(path, page(title, records, total, erasing.name))
    return len(records)


def page(title: str, records: list[dict[str, Any]], total: int, erasing: str) -> str:
    """The whole page. Every text of `records` is data to it, whatever it says."""
    folder = files("orca2.synthesis.publishing")
    script = (folder / "browser.js").read_text(encoding="utf-8")
    style = (folder / "browser.css").read_text(encoding="utf-8")
    content = {"title": title, "total": total, "erasing": erasing, "records": records}
    return Template((folder / "browser.html").read_text(encoding="utf-8")).substitute(
        policy=f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}",
        style=style,
        data=_json(content),
        script=script,
    )


def _record(example: Example, erasing: Erasing) -> dict[str, Any]:
    return {
        "id": example.id,
        "source": example.source,
        "task": example.task,
        "strategy": example.strategy,
        "verdict": example.verdict or "unchecked",
        "teacher": example.teacher,
        "gold": example.gold,
        "lineage": example.lineage,
        "usage": dict(example.usage or {}),
        "unerased": example.system,
        "erased": erasing.system(example, 0),
        "history": [{"user": turn.user, "answer": turn.answer} for turn in example.history],
        "user": example.user,
        "answer": example.answer,
        "leaks": leaked_ngrams(example)[:5],
    }


def _json(content: Any) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element or begin another."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
