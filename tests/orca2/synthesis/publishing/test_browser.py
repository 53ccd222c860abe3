"""The page to look at records: all of them are data, none of them is markup, and it loads nothing."""

import json
import re
from dataclasses import replace
from pathlib import Path

from orca2.erasing import FixedErasing
from orca2.records import Example, Turn
from orca2.synthesis.publishing.browser import even_sample, write_browser

ERASING = FixedErasing("cautious", "be careful")
EXAMPLE = Example(
    id="c/t/0", source="c", task="t", strategy="direct", system="answer at once", user="2 + 2?", answer="4",
    teacher="m", gold="4", verdict="right",
)  # fmt: skip
HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(1)> & &lt; $data ${x} \u2028 漢"


def embedded(text: str) -> dict:  # type: ignore[type-arg]
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])  # type: ignore[no-any-return]


def test_hostile_records_stay_text(tmp_path: Path) -> None:
    """A record that ends the script element would run its own script in the browser of its reader."""
    hostile = replace(
        EXAMPLE, id=HOSTILE, task=HOSTILE, system=HOSTILE, user=HOSTILE, answer=HOSTILE,
        history=(Turn(user=HOSTILE, answer=HOSTILE),),
    )  # fmt: skip
    write_browser(tmp_path / "b.html", HOSTILE, [hostile], 1, ERASING)
    text = (tmp_path / "b.html").read_text()
    assert text.count("<script") == text.count("</script>") == 2 and "<img" not in text and "<!--" not in text
    content = embedded(text)
    record = content["records"][0]
    assert content["title"] == HOSTILE and record["history"] == [{"user": HOSTILE, "answer": HOSTILE}]
    assert all(record[key] == HOSTILE for key in ("id", "task", "unerased", "user", "answer"))


def test_both_prompts_stand_beside_the_answer(tmp_path: Path) -> None:
    """Looking at erased prompts only, nobody would see what the teacher was told."""
    write_browser(tmp_path / "b.html", "title", [EXAMPLE], 1, ERASING)
    record = embedded((tmp_path / "b.html").read_text())["records"][0]
    assert (record["unerased"], record["erased"], record["verdict"]) == ("answer at once", "be careful", "right")


def test_the_sample_is_even_ordered_and_repeatable() -> None:
    """The first thousand rows of a data set are its first task; another sample per run cannot be compared."""
    ids = [f"c/t/{number}" for number in range(1000)]
    places = even_sample(iter(ids), 100)
    assert len(places) == 100 and places == sorted(places) == even_sample(ids, 100)
    assert 35 < sum(place < 500 for place in places) < 65
    assert even_sample(ids[:5], 100) == [0, 1, 2, 3, 4]


def test_the_page_loads_nothing_and_sets_text_only(tmp_path: Path) -> None:
    """An address in the page breaks it offline and tells a stranger who looks at the data."""
    write_browser(tmp_path / "b.html", "title", [EXAMPLE], 1, ERASING)
    text = (tmp_path / "b.html").read_text()
    assert "default-src 'none'; script-src 'sha256-" in text
    assert not re.search(r"https?://|\bsrc=|\bhref=|url\(|@import", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", text)
