"""What a run read must be what it reads again: data sets of the hub are named by commit."""

import re
from pathlib import Path

import pytest
import yaml

from lightning_modules.training_job import NOT_OF_THE_JOB, TrainingJob
from orca2.errors import ConfigError, DataError
from orca2.rows.benchmark_rows import Layout
from orca2.rows.pinning import unpinned
from orca2.settings import build_all, compose_config

CONF = Path(__file__).parents[3] / "conf"
COMMIT = re.compile(r"[0-9a-f]{40}")
REPO = re.compile(r"[\w.-]+/[\w.-]+")
TO_BE_NAMED = {"hub", "flan2021", "t0", "niv2", "cot", "hhh"}
"""Configs whose commit the user has to give: no pinned one could be found."""


def nodes(value):
    """Every mapping in a YAML file."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from nodes(each)


def hub_entries():
    for group in ("benchmark", "source", "tasks"):
        for file in sorted((CONF / group).glob("*.yaml")):
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            for node in nodes(content):
                repo = str(node.get("hub", node.get("repo", node.get("path"))))
                if REPO.fullmatch(repo) or isinstance(node.get("data_files"), str):
                    yield str(node.get("name", content["name"])), repo, node


ENTRIES = list(hub_entries())


def test_every_data_set_of_the_configs_is_pinned():
    """A benchmark that its owner edits would give another score for the same student, and nobody could tell why."""
    assert len(ENTRIES) > 20
    for name, repo, node in ENTRIES:
        urls = [url for url in [node.get("data_files")] if isinstance(url, str)]
        assert all(COMMIT.search(url) for url in urls), f"{name}: {urls} name no commit"
        if name not in TO_BE_NAMED:
            assert unpinned(repo, node.get("revision"), "x") is None, f"{name}: {repo} is not pinned"
    assert {name for name, _, node in ENTRIES if node.get("revision")} >= {"mmlu", "drop", "openorca", "openorca_gpt4"}


@pytest.mark.parametrize(
    ("repo", "revision", "reason"),
    [
        ("o/n", None, "has no `revision`"),
        ("o/n", "main", "is named at 'main', which is not a commit and can move"),
        ("o/n", "c0ffee", "is not a commit"),
        ("o/n", "0" * 40, None),
        ("json", None, None),
        (str(CONF), None, None),
    ],
)
def test_only_a_commit_pins(repo, revision, reason):
    """A branch or a tag can be moved to other rows."""
    found = unpinned(repo, revision, "the.key")
    assert (found is None) if reason is None else (reason in found and "set the.key to a commit" in found)


def test_a_run_refuses_unpinned_data_before_it_starts():
    """All members are named at once; a plan needs no commit."""

    def job(*overrides):
        return TrainingJob(**build_all(compose_config("train", list(overrides)), leave_out=NOT_OF_THE_JOB))

    flan = job("source=flan", "model=7b")
    with pytest.raises(ConfigError) as caught:
        flan.require_here()
    assert all(name in str(caught.value) for name in ("flan2021", "t0", "niv2", "cot"))
    with pytest.raises(ConfigError, match="source 'hub': the hub data set 'o/n' has no `revision`"):
        job("source=hub", "source.path=o/n").require_here()
    job("source=hub", "source.path=o/n", f"source.revision={'0' * 40}").require_here()


def test_a_benchmark_without_a_commit_is_not_read():
    """The commit of what was scored must be known."""
    entries = {"hub": "o/n", "split": "test", "question": "q", "revision": None}
    layout = Layout.read("b", "hub", entries, frozenset({"question"}))
    with pytest.raises(DataError, match=r"has no `revision`: set benchmark.layouts.hub.revision to a commit"):
        list(layout.rows(None, "t"))
