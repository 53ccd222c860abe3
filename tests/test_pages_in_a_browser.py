"""Every page, filled with hostile text, in a real browser: what strangers wrote must stay text there."""

import shutil
import subprocess
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest

from orca2.erasing import FixedErasing
from orca2.evaluation.report.write import write_report
from orca2.records import Turn
from orca2.synthesis.publishing.browser import write_browser
from tests.orca2.evaluation.report.test_evaluation_report import TURN, records, run
from tests.orca2.synthesis.publishing.test_browser import EXAMPLE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=2000",
    "--dump-dom",
]
RUNS = "document.documentElement.dataset.owned = 1"
HOSTILE = (
    f"</script><script>{RUNS}</script></textarea></title></style></svg><img src=x onerror='{RUNS}'>"
    f"<svg onload='{RUNS}'><a href='javascript:{RUNS}'>\"'><iframe srcdoc='<script>parent.{RUNS}</script>'>"
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
]


def seen(page: Path, folder: Path) -> str:
    """The page's document after its scripts have run."""
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "</html>" in done.stdout, done.stderr
    return done.stdout


def test_the_browser_would_show_an_attack(tmp_path: Path) -> None:
    """The tests below pass on a browser that runs nothing."""
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><html><body>{HOSTILE}</body></html>", encoding="utf-8")
    assert "data-owned" in seen(page, tmp_path)


def test_a_hostile_evaluation_stays_text(tmp_path: Path) -> None:
    """A report is shared; a student's answer must not run in the browser of its reader."""
    turn = replace(TURN, user=HOSTILE, prompt=HOSTILE, output=HOSTILE)
    rows = records("gsm8k", "empty", [1, 0], turns=(turn,), task=HOSTILE, gold=((HOSTILE,),), choices={"A": HOSTILE})
    write_report([run(rows, name=HOSTILE)], tmp_path)
    page = seen(tmp_path / "report.html", tmp_path)
    assert "data-owned" not in page
    assert "2 shown" in page, "the page's own script did not run"
    assert escape(HOSTILE, quote=False)[:60] in page


def test_a_hostile_data_set_stays_text(tmp_path: Path) -> None:
    """A published data set is opened by strangers."""
    turns = (Turn(user=HOSTILE, answer=HOSTILE),)
    hostile = replace(EXAMPLE, id=HOSTILE, task=HOSTILE, system=HOSTILE, user=HOSTILE, answer=HOSTILE, history=turns)
    write_browser(tmp_path / "records.html", HOSTILE, [hostile], 1, FixedErasing("cautious", "be careful"))
    page = seen(tmp_path / "records.html", tmp_path)
    assert "data-owned" not in page
    assert "1 of 1 records" in page, "the page's own script did not run"
