"""What a run says of its rows before it trains on them."""

import json

import pytest

from orca2.data.looking import look
from orca2.data.mixture import Mixture
from orca2.erasing import FixedErasing, KeepInstruction
from orca2.records import Rejected
from orca2.rows.row_files import FileSource
from orca2.settings import build, compose_config

CAUTIOUS = FixedErasing("cautious", "Be careful.")
KEEP = KeepInstruction("keep", CAUTIOUS)


@pytest.fixture
def source(tmp_path):
    def make(rows, name="s", **changes):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(rows))
        return FileSource(name=name, path=str(path), layout="auto", cache_dir=str(tmp_path / "cache"), **changes)

    return make


def chat(*texts, **columns):
    roles = [("user", "assistant")[at % 2] for at in range(len(texts))]
    turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    return {"messages": turns, **columns}


def test_replaced_system_messages_are_counted(source, direct):
    """A user whose rows have personas must not find out after the training that none was learnt."""
    rows = source([chat("u", "a", system="You are Ann.")] * 3 + [chat("u", "a")] * 2 + [chat("u", "a", system=" ")])
    assert look(rows, direct, CAUTIOUS) == [
        "source s, all 6 rows looked at: 3 have a system message of their own, which erasing=cautious replaces; "
        "erasing=keep trains under it"
    ]
    assert look(rows, direct, KEEP) == []
    labelled = source([chat("u", "a", system="S", how="direct")], name="t", columns={"strategy": "how"})
    assert look(labelled, direct, CAUTIOUS) == []  # a strategy's instruction is there to be erased


def test_what_is_left_out_is_counted_by_kind(source, direct):
    """One line for a thing, not one for a row; members of a mixture each have their own."""
    many = [chat("u", "a", "v", id=at, topic="t") for at in range(1500)]
    mixture = Mixture(
        name="m", members={"s": source(many), "t": source([chat("u", "a")] * 2, name="t")}, when_exhausted="continue"
    )
    assert look(mixture, direct, KEEP) == [
        "source s, 1,000 of 1,500 rows looked at: 1,000 end with the user: that turn is left out",
        "source s, 1,000 of 1,500 rows looked at: 1,000 have columns that are not used: id, topic",
    ]


def test_a_synthesized_row_has_no_columns_without_use(tmp_path, direct):
    """Each training on what `synthesize.py` wrote said that a column of its rows is not used."""
    row = dict.fromkeys(("source", "task", "strategy", "system", "user", "answer", "teacher", "lineage"), "direct")
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"topic": "t"}) + "\n")
    given = [f"source.path={tmp_path / 'rows.jsonl'}", f"source.cache_dir={tmp_path / 'cache'}"]
    own, other = (build(compose_config("train", [f"source={name}", *given]).source) for name in ("records", "jsonl"))
    unused = "have columns that are not used"
    assert look(own, direct, KEEP) == [f"source records, all 2 rows looked at: 1 {unused}: topic"]
    assert f"2 {unused}: lineage, source, strategy, task, teacher, topic" in "\n".join(look(other, direct, KEEP))


def test_a_bad_head_does_not_refuse_the_file(source, direct):
    """100 unusable rows at the head refused 400 good ones behind them."""
    rows = source([{"messages": []}] * 100 + [chat("u", "a")] * 400)
    rows.prepare()
    kept = [rows.read(row, direct) for row in range(rows.size)]
    assert sum(isinstance(each, Rejected) for each in kept) == 100
    assert kept[3] == Rejected(source="s", row="item 4", kind="broken", reason="the conversation is empty")
    far = source([{"messages": []}] * 30_000 + [chat("u", "a")] * 30_000, name="far")
    far.prepare()
