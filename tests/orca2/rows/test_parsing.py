"""Conversations and official forms -> examples, exactly."""

import pytest

from orca2.errors import DataError
from orca2.records import UNLABELLED, Turn
from orca2.rows.parsing import RowParser
from orca2.settings import build, compose_config


def parse(layout, row, **changes):
    return RowParser(source="s", layout=layout, **changes).example("1", row)


def chat(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def test_messages_with_system_and_history():
    """The last answer is the example; the turns before are its history."""
    row = chat(("system", "S"), ("user", "u1"), ("assistant", "a1"), ("user", "u2"), ("assistant", "a2"))
    example = parse("messages", row)
    assert (example.system, example.user, example.answer) == ("S", "u2", "a2")
    assert example.history == (Turn(user="u1", answer="a1"),)


def test_sharegpt_names_and_another_column():
    """Most public chats come in this form."""
    turns = [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]
    example = parse("sharegpt", {"chat": turns, "model": "m"}, columns={"messages": "chat", "teacher": "model"})
    assert (example.system, example.user, example.answer, example.history, example.teacher) == (
        "",
        "u",
        "a",
        (),
        "m",
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "column 'messages' is missing"),
        ({"messages": []}, "the conversation is empty"),
        ({"messages": "u: hello"}, "the conversation must be a list, not str"),
        ({"messages": '[{"role": '}, "the conversation is a text that is not JSON"),
        ({"messages": ["hello"]}, "turn 1 is not an object with 'role' and 'content'"),
        ({"messages": [{"role": 1, "content": "u"}]}, "turn 1 has no text 'role' or 'from'"),
        (chat(("narrator", "x")), "turn 1 has the role 'narrator'; known are system, developer, user"),
        (chat(("user", "u"), ("tool", "x"), ("assistant", "a")), "turn 2 is a call or a reply of a tool"),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]},
            "turn 1 is a call or a reply of a",
        ),
        ({"messages": [{"role": "user", "content": None}]}, "turn 1 has no text 'content' or 'value'"),
        ({"messages": [{"role": "user", "content": []}]}, "turn 1 has no text 'content' or 'value'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "turn 1 has a part of type 'image_url'"),
        (chat(("user", "u")), "no turn of the user has an answer after it"),
        (chat(("system", "S")), "no turn of the user has an answer after it"),
        (chat(("assistant", "a"), ("user", "u")), "no turn of the user has an answer after it"),
        (chat(("user", "u"), ("system", "S"), ("assistant", "a")), "turn 2 is a system message inside"),
        (
            chat(("user", "u"), ("assistant", "a")) | {"system": 3} | {"history": [1]},
            "history must be a list of objects",
        ),
        (
            chat(("user", "u"), ("assistant", ""), ("user", "v"), ("assistant", "a")),
            "answer of turn 1 is empty",
        ),
        (chat(("user", "u"), ("assistant", "\udc00")), "answer holds a lone surrogate"),
        (chat(("system", "\ud800"), ("user", "u"), ("assistant", "a")), "system holds a lone surrogate"),
    ],
)
def test_unusable_conversations_say_why(row, reason):
    """A conversation that is cut or re-ordered in silence teaches nonsense."""
    with pytest.raises(DataError, match=reason):
        parse("messages", row)


def test_gsm8k_form():
    """Calculator marks must not be learnt; the final line is the one that our tasks share."""
    row = {
        "question": "How many clips?",
        "answer": "48/2 = <<48/2=24>>24 in May.\nTotal 48+24 = <<48+24=72>>72.\n#### 1,072",
    }
    example = parse("gsm8k", row)
    assert example.answer == "48/2 = 24 in May.\nTotal 48+24 = 72.\nAnswer: 1072"
    assert (example.gold, example.task, example.strategy, example.teacher) == (
        "1072",
        "gsm8k",
        UNLABELLED,
        "gold",
    )
    assert (example.user, example.system) == ("How many clips?", "")


@pytest.mark.parametrize("answer", ["It is 72.", "#### ", "72\n####"])
def test_gsm8k_without_a_final_number_is_broken(answer):
    """An example without its gold answer cannot be checked."""
    with pytest.raises(DataError, match="does not end with a line '#### <number>'"):
        parse("gsm8k", {"question": "?", "answer": answer})


def test_orca_columns():
    """The public re-creation of the data has empty system prompts and an id of its own."""
    columns = {"lineage": "id", "system": "system_prompt", "user": "question", "answer": "response"}
    row = {"id": "flan.564327", "system_prompt": "", "question": "q", "response": "r"}
    example = parse("columns", row, columns=columns, constants={"teacher": "gpt-4"})
    assert (example.id, example.lineage, example.system, example.teacher) == (
        "s/1",
        "flan.564327",
        "",
        "gpt-4",
    )


def test_history_must_be_turns():
    """Texts in other shapes would be rendered as something else."""
    columns = {"user": "u", "answer": "a", "history": "h"}
    for history in ("text", [{"user": "u"}], [["u", "a", "v"]], [{"role": "tool"}]):
        with pytest.raises(DataError, match=r"history must be a list|a reply of a tool"):
            parse("columns", {"u": "u", "a": "a", "h": history}, columns=columns)


def test_records_keep_their_optional_fields_and_may_lack_them():
    """A dropped history trains another answer, a dropped suggestion leaves the row out; neither must be required."""
    parser = build(compose_config("show", ["source=records", "source.path=x.jsonl"]).source)._parser
    row = {"task": "t", "strategy": "direct", "system": "", "user": "u2", "answer": "a2", "teacher": "T"}
    bare = parser.example("1", row)
    assert (bare.id, bare.history, bare.suggested, bare.gold, bare.usage) == ("records/1", (), None, None, None)
    assert parser.labels(row).suggested is None
    more = {"id": "x/9", "suggested": "direct", "gold": "7", "usage": {"tokens": 3}}
    history = [{"user": "u1", "answer": "a1"}]
    full = parser.example("1", row | more | {"history": history, "verdict": "", "lineage": None})
    assert (full.id, full.suggested, full.gold, full.usage) == ("records/x/9", "direct", "7", {"tokens": 3})
    assert (full.history, full.verdict, full.lineage) == ((Turn(user="u1", answer="a1"),), None, None)
    assert parser.labels(row | more).suggested == "direct"
    assert parser.wanted == ["task", "strategy", "system", "user", "answer", "teacher"]


def test_an_optional_field_under_another_name_is_required():
    """A mistyped column of gold answers must not end in examples without them."""
    columns = {"user": "u", "answer": "a", "gold": "g"}
    with pytest.raises(DataError, match="column 'g' is missing"):
        parse("columns", {"u": "u", "a": "a"}, columns=columns)


@pytest.mark.parametrize("column", ["reasoning", "reasoning_content"])
def test_a_trace_is_read_from_its_column(column):
    """Files of reasoning models have the trace in a column of its own, which no source's `columns` name."""
    row = {"u": "1+1?", "a": "2", column: "\n1+1 is 2\n"}
    example = parse("columns", row, columns={"user": "u", "answer": "a"})
    assert (example.reasoning, example.answer) == ("1+1 is 2", "2")
    assert parse("columns", row | {column: None}, columns={"user": "u", "answer": "a"}).reasoning == ""
    assert parse("columns", row | {column: ["a list"]}, columns={"user": "u", "answer": "a"}).reasoning == ""
    named = parse("columns", row | {"cot": "mine"}, columns={"user": "u", "answer": "a", "reasoning": "cot"})
    assert named.reasoning == "mine"


def test_a_trace_is_taken_out_of_the_answer():
    """A student would train on markup as text; earlier turns of reasoning models are asked without their traces."""
    turns = (("user", "1+1?"), ("assistant", "<think>easy</think>2"), ("user", "2+2?"))
    example = parse("messages", chat(*turns, ("assistant", "<think>\nsmall\n</think>\n\n4")))
    assert (example.reasoning, example.answer) == ("small", "4")
    assert example.history == (Turn(user="1+1?", answer="2"),)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("<think>4? no", "cut off"), ("<think>4? no</think>", "empty after its reasoning trace")],
)
def test_a_trace_without_an_answer_is_broken(answer, reason):
    """Half a trace would be learnt as an answer."""
    with pytest.raises(DataError, match=reason):
        parse("messages", chat(("user", "2+2?"), ("assistant", answer)))
    with pytest.raises(DataError, match="answer of turn 1 is a reasoning trace"):
        parse("messages", chat(("user", "1"), ("assistant", answer), ("user", "2"), ("assistant", "b")))
