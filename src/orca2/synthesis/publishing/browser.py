"""One HTML file to look at a data set with: filters, the answer, and both prompts side by side.

    ids ──▶ the `SAMPLE` with the smallest hashes ──▶ their records ──▶ browser.html
                                                                        ├─ records as JSON, inside the page
                                                                        └─ one script, which only ever sets text

Data are strangers' text. None of it becomes markup: the JSON has no `<`, `>` or `&`, the script makes nodes and
fills them with `textContent`, and the page's policy lets no other script run and nothing be loaded.
"""

import heapq
import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from orca2.erasing import Erasing
from orca2.files import atomic_write_text
from orca2.hashing import hash64
from orca2.leaks import leaked_ngrams
from orca2.pages import content_policy
from orca2.records import Example

SAMPLE = 2000
"""Records in the page; ours. At 4 kB each it is 8 MB, which opens in a second."""


def even_sample(ids: Iterable[str], most: int = SAMPLE) -> list[int]:
    """Places of an even sample of the records with these ids, in order; all of them where there are few."""
    return sorted(place for _, place in heapq.nsmallest(most, ((hash64(id), place) for place, id in enumerate(ids))))


def write_browser(path: Path, title: str, sample: Iterable[Example], total: int, erasing: Erasing) -> None:
    """Write the page with these records, of `total` in the data set."""
    atomic_write_text(path, page(title, [_record(example, erasing) for example in sample], total, erasing.name))


def page(title: str, records: list[dict[str, Any]], total: int, erasing: str) -> str:
    """The whole page. Every text of `records` is data to it, whatever it says."""
    folder = files("orca2.synthesis.publishing")
    script = (folder / "browser.js").read_text(encoding="utf-8")
    style = (folder / "browser.css").read_text(encoding="utf-8")
    content = {"title": title, "total": total, "erasing": erasing, "records": records}
    return Template((folder / "browser.html").read_text(encoding="utf-8")).substitute(
        policy=content_policy([script], [style]),
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
        "reasoning": example.reasoning,
        "answer": example.answer,
        "leaks": leaked_ngrams(example)[:5],
    }


def _json(content: Any) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element or begin another."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
