"""Chats, pairs and instructions in the forms in which people have them -> what trains, and what is said of the rest."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orca2.errors import ConfigError, DataError
from orca2.records import Turn
from orca2.rows.conversations import read_conversation
from orca2.rows.layouts import layout_of
from orca2.rows.parsing import RowParser
from orca2.settings import build, compose_config

U, V = ({"role": "user", "content": text} for text in "uv")
A, B = ({"role": "assistant", "content": text} for text in "ab")
PAIR = {"user": "user", "answer": "answer"}


def parser(layout="auto", **changes):
    return RowParser(source="s", layout=layout, **changes)


def said(row, layout="auto", **changes):
    """(system, history as texts, user, answer) of a row."""
    one = parser(layout, **changes).example("1", row)
    return one.system, [(turn.user, turn.answer) for turn in one.history], one.user, one.answer


def notes(row, **changes):
    return set(parser(**changes).notes(row))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"user": "u", "answer": "a"}, ("", [], "u", "a")),
        ({"user": "u", "answer": "a", "system": "S"}, ("S", [], "u", "a")),
        ({"user": "u", "answer": "a", "system": ""}, ("", [], "u", "a")),
        ({"user": "u", "answer": "a", "history": [["x", "y"]]}, ("", [("x", "y")], "u", "a")),
        ({"user": "u", "answer": "a", "history": '[["x", "y"]]'}, ("", [("x", "y")], "u", "a")),
        ({"user": "u", "answer": "a", "history": [V, B]}, ("", [("v", "b")], "u", "a")),
        ({"user": "u", "answer": "a", "history": ""}, ("", [], "u", "a")),
        ({"messages": [U, A]}, ("", [], "u", "a")),
        ({"messages": json.dumps([U, A])}, ("", [], "u", "a")),
        ({"messages": [{"role": "developer", "content": "S"}, U, A]}, ("S", [], "u", "a")),
        ({"messages": [U, A], "system": "S"}, ("S", [], "u", "a")),
        ({"messages": [{"role": "system", "content": "S"}, U, A], "system": "S"}, ("S", [], "u", "a")),
        ({"messages": [U, A, V]}, ("", [], "u", "a")),
        ({"messages": [B, U, A]}, ("", [], "u", "a")),
        ({"messages": [U, V, A]}, ("", [], "u\n\nv", "a")),
        ({"messages": [U, A, B, V, B]}, ("", [("u", "a\n\nb")], "v", "b")),
        (
            {"messages": [U | {"content": [{"type": "text", "text": "u"}, {"type": "text", "text": "v"}]}, A]},
            ("", [], "u\nv", "a"),
        ),
        (
            {"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}], "system": "S"},
            ("S", [], "u", "a"),
        ),
        ({"conversations": [U, A]}, ("", [], "u", "a")),
        ({"prompt": "u", "completion": " a"}, ("", [], "u", " a")),
        ({"prompt": [U], "completion": [A]}, ("", [], "u", "a")),
        ({"prompt": [U, B, V], "completion": [A]}, ("", [("u", "b")], "v", "a")),
        ({"prompt": [U], "completion": "a"}, ("", [], "u", "a")),
        ({"prompt": json.dumps([U]), "completion": json.dumps([A])}, ("", [], "u", "a")),
        ({"instruction": "u", "input": "", "output": "a"}, ("", [], "u", "a")),
        ({"instruction": "u", "output": "a"}, ("", [], "u", "a")),
        ({"instruction": "u", "input": "v", "output": "a"}, ("", [], "u\n\nv", "a")),
        (
            {"instruction": "u", "input": None, "output": "a", "system": "S", "history": [["x", "y"]]},
            ("S", [("x", "y")], "u", "a"),
        ),
    ],
)
def test_rows_of_every_form_are_read(row, expected):
    """A file that any other trainer reads must not be refused, nor lose a message."""
    assert said(row) == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [U, V, A]}, "turns 1 and 2 are both the user's; repeated_turns=join joins them"),
        ({"messages": [{"role": "system", "content": "S"}] * 2 + [U, A]}, "turns 1 to 2 are all system messages"),
    ],
)
def test_turns_in_a_row_can_be_rejected(row, reason):
    """In some files two turns of one speaker mean that an answer is missing."""
    with pytest.raises(DataError, match=reason):
        said(row, repeated_turns="reject")
    said(row)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [U, A | {"weight": 0.5}]}, "turn 2 has weight 0.5; only 0"),
        ({"messages": [U, A | {"weight": 0}]}, "no answer of the conversation bears loss"),
        (
            {"messages": [U, A | {"weight": 0}, B]},
            "turns 2 and 3 are .* one with loss and one without",
        ),
        (
            {"messages": [{"role": "system", "content": "S"}, U, A], "system": "T"},
            "a system message in its conversation",
        ),
        ({"prompt": [U, A], "completion": []}, "no answer of the conversation bears loss"),
        ({"prompt": "u", "chosen": "a", "rejected": "b"}, "column 'user' is missing"),
        ({"instruction": "u", "input": 3, "output": "a"}, "column 'input' holds int, not text"),
        ({"instruction": "u", "output": None}, "column 'output' holds nothing, not text"),
    ],
)
def test_rows_that_cannot_train_say_why(row, reason):
    """Each row that is not read needs one reason that a person can act on."""
    with pytest.raises(DataError, match=reason):
        said(row)


@pytest.mark.parametrize("key", ["weight", "train", "loss"])
@pytest.mark.parametrize("zero", [0, 0.0, False])
def test_turns_of_weight_0_bear_no_loss(key, zero):
    """`weight: 0` was trained on. What follows the last answer with weight cannot be seen by it, so it is left out."""
    row = {"messages": [U, A | {key: zero}, V, B | {key: 1}, U, A | {key: zero}]}
    one = parser().example("1", row)
    assert one.history == (Turn(user="u", answer="a", loss=False),)
    assert (one.user, one.answer) == ("v", "b")
    assert notes(row) == {("end with turns of weight 0: they are left out, as nothing after them is learnt", "")}


def test_the_turns_of_a_prompt_bear_no_loss():
    """TRL learns the completion alone, also where the prompt holds earlier answers."""
    one = parser().example("1", {"prompt": [U, A, V], "completion": [B, U, A]})
    assert one.history == (Turn(user="u", answer="a", loss=False), Turn(user="v", answer="b"))


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_the_trace_of_a_turn_is_kept(key):
    """`reasoning_content` vanished. Only the last answer has one; earlier turns are asked without theirs."""
    one = parser().example("1", {"messages": [U, A | {key: "old"}, V, B | {key: "why"}]})
    assert (one.reasoning, one.answer) == ("why", "b")
    part = {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "b"}]}
    assert parser().example("1", {"messages": [U, part]}).reasoning == "hm"


def test_what_is_left_out_or_not_used_is_noted():
    """A key that is dropped in silence may be the one that matters."""
    row = {"messages": [B, U | {"name": "Ann", "weight": 0}, A | {"id": 3, "refusal": None, "weight": None}, V]}
    row |= {"id": "x", "topic": "", "tools": [{}], "system": {"a": 1}}
    assert notes(row) == {
        ("begin with the assistant: that turn is left out", ""),
        ("end with the user: that turn is left out", ""),
        ("have keys of turns that are not used", "name of user"),
        ("have keys of turns that are not used", "id of assistant"),
        ("have columns that are not used", "id"),
        ("have columns that are not used", "tools"),
        ("have columns that are not used", "system"),
    }
    assert notes({"messages": [U, V, A]}) == {("have several turns of one speaker in a row: they are joined", "")}
    assert notes({"user": "u", "answer": "a", "system": "S", "history": [], "reasoning": "r"}) == set()
    assert notes({"user": "u", "answer": "a", "topic": "t", "task": "x"}, columns={**PAIR, "task": "topic"}) == {
        ("have columns that are not used", "task")
    }


def test_named_columns_are_a_wish():
    """A typo in a column's name must not end in rows that are read by another layout."""
    row = {"question": "q", "answer": "a", "messages": [U, B]}
    assert layout_of(row, {"user": "question", "answer": "answer"}) == "columns"
    with pytest.raises(DataError, match="column 'query' is missing"):
        said(row, columns={"user": "query", "answer": "answer"})
    assert layout_of(row, {}) == "messages"
    assert layout_of({"user": "u", "answer": "a", "messages": []}, {}) == "columns"


def test_files_that_no_layout_fits_name_what_would(tmp_path):
    """Preference data and misspelt columns must end with what can be read."""
    with pytest.raises(DataError) as caught:
        parser().check_first([{"prompt": "u", "chosen": "a", "rejected": "b"}] * 3)
    assert str(caught.value).startswith(
        "source 's': none of 3 rows can be used, mostly because column 'user' is missing. Layout 'auto' wants columns "
        "['user', 'answer'] or 'messages', or 'conversations', or 'prompt' and 'completion', or 'instruction' and "
        "'output'; found are ['prompt', 'chosen', 'rejected']"
    )


def test_the_switch_is_checked():
    """A misspelt value must not mean one of the two in silence."""
    with pytest.raises(ConfigError, match="repeated_turns is 'merge'; allowed are"):
        parser(repeated_turns="merge")
    cfg = compose_config("show", ["source=chat", "source.path=x.jsonl", "source.repeated_turns=reject"])
    assert build(cfg.source)._parser.repeated_turns == "reject"


KEYS = ("role", "content", "x")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats()
    | st.sampled_from(["", "u", "[", "[{", "gpt", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)
PARTS = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": JSON}))
TURN = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]) | JSON,
        "from": st.sampled_from(["human", "gpt"]) | JSON,
        "content": st.text(max_size=3) | PARTS | JSON,
        "value": JSON,
        **dict.fromkeys(("weight", "reasoning_content", "tool_calls", "name", "thinking"), JSON),
    },
)
TURNS = st.lists(TURN | JSON, max_size=5) | JSON
ROW = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("messages", "conversations", "prompt", "completion", "history"), TURNS),
        **dict.fromkeys(("user", "answer", "system", "instruction", "input", "output", "question", "reasoning"), JSON),
    },
)


@settings(max_examples=150, deadline=None)
@given(row=ROW, layout=st.sampled_from(["auto", "messages", "sharegpt", "completion", "alpaca", "gsm8k", "columns"]))
def test_any_row_is_an_example_or_a_reason(row, layout):
    """A row of a strange shape must cost itself alone, not the run."""
    one = parser(layout, columns=PAIR if layout == "columns" else {})
    one.notes(row)
    try:
        example = one.example("1", row)
    except DataError:
        return
    assert example.user.strip() and example.answer.strip()
    assert all(turn.user.strip() and turn.answer.strip() for turn in example.history)


@settings(max_examples=150, deadline=None)
@given(roles=st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.sampled_from([0, 1])), max_size=8))
def test_conversations_keep_every_answer_with_weight(roles):
    """Leaving out and joining must never lose an answer that bears loss and follows a question."""
    turns = [{"role": role, "content": f"<{at}>", "weight": weight} for at, (role, weight) in enumerate(roles)]
    try:
        read = read_conversation(turns, "join")
    except DataError:
        return
    first = next(at for at, (role, _) in enumerate(roles) if role == "user")
    wanted = [f"<{at}>" for at, (role, weight) in enumerate(roles) if role == "assistant" and weight and at > first]
    learnt = "".join(turn.answer for turn in read.turns if turn.loss)
    assert all(text in learnt for text in wanted) and read.turns[-1].loss
