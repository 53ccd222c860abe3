"""Builders: shots never show the target, notes rest on the conversation, arithmetic is exact."""

import asyncio
from collections import Counter
from fractions import Fraction
from random import Random

from orca2.asking.requests import Decoding, Request
from orca2.records import Example
from orca2.rows.items import TaskItem
from orca2.serving.outcomes import Reply, Usage
from orca2.synthesis.builders.arithmetic import MODULES, Arithmetic, in_base, nearest_root
from orca2.synthesis.builders.doctor_patient import HEADINGS, STRATEGY, DoctorPatient
from orca2.synthesis.builders.few_shot import FewShot
from orca2.synthesis.builders.plans import WrittenExample, plan_of
from orca2.synthesis.instructions import Instruction


def examples() -> list[Example]:
    return [
        Example(
            id=f"s/{task}/{n}", source="s", task=task, strategy="direct", system=f"do {task} {n % 2}",
            user=f"question {task} {n}.", answer=f"answer {task} {n}.", teacher="t", lineage="f",
        )
        for task in ("a", "b") for n in range(20)
    ]  # fmt: skip


def test_shots_share_task_and_instruction_and_leave_the_target_out() -> None:
    """google-research/FLAN#25 took shots from other tasks; a shot equal to the target gives the answer away."""
    built = list(FewShot(seed=0).build(lambda: iter(examples()), 12))
    assert len(built) == 12
    by_id = {example.id: example for example in examples()}
    for example in built:
        target = by_id[example.id.removesuffix("/few_shot")]
        shots = [by_id[name] for name in str(example.lineage).partition("shots ")[2].split(", ")]
        assert 3 <= len(shots) <= 5 and target not in shots and len({shot.id for shot in shots}) == len(shots)
        assert {(shot.task, shot.system) for shot in shots} == {(target.task, target.system)}
        assert example.answer == target.answer and target.answer not in example.user
        assert all(shot.user in example.user and shot.answer in example.user for shot in shots)
        assert example.user.endswith(target.user)
    assert built == list(FewShot(seed=0).build(lambda: iter(examples()), 12))


def test_the_note_is_written_from_the_conversation_alone() -> None:
    """The patient's description in the second call would put into the note what nobody said."""
    asked: list[Request] = []

    async def ask(request: Request) -> Reply:
        asked.append(request)
        usage = Usage(prompt_tokens=1, completion_tokens=2)
        return Reply(text=f"reply {len(asked)}", finish_reason="stop", usage=usage, model="m")

    (patient,) = DoctorPatient(name="doctor_patient", size=1, seed=0).stream()
    assert isinstance(patient, TaskItem) and patient.offered == (STRATEGY,)
    instruction = Instruction(strategy=STRATEGY, system="talk", calls="conversation_then_note", check="note")
    request = Request(model="m", decoding=Decoding(max_tokens=9), system="talk", user=patient.user)
    written = asyncio.run(plan_of(instruction)(request, ask))
    assert isinstance(written, WrittenExample)
    assert [one.system for one in asked] == ["talk", "note"]
    assert patient.user not in asked[1].user and "reply 1" in asked[1].user
    assert all(heading in written.user for heading in HEADINGS)
    assert (written.system, written.reply.text, written.reply.usage.completion_tokens) == ("note", "reply 2", 4)


def test_arithmetic_answers_are_exact() -> None:
    """Gold answers off by a rounding would reject right answers of the teacher."""
    assert (in_base(-46, 7), in_base(0, 2), in_base(255, 16)) == ("-64", "0", "FF")
    assert [nearest_root(n, 2) for n in (2, 6, 7, 12, 13)] == [1, 2, 3, 3, 4]
    for seed in range(200):
        question = MODULES["add_sub_multiple"](Random(seed))
        text = question.text
        for word in ("What is ", "Calculate ", "Work out ", "Evaluate ", " = ?"):
            text = text.replace(word, "")
        assert Fraction(question.answer) == total(text.strip("?. "))


def total(text: str) -> Fraction:
    """A small evaluator of + and - with brackets, so that the generator is not checked by itself."""
    tokens = text.replace("(", " ( ").replace(")", " ) ").split()

    def expression(at: int) -> tuple[Fraction, int]:
        value, at = operand(at)
        while at < len(tokens) and tokens[at] in "+-":
            right, after = operand(at + 1)
            value = value + right if tokens[at] == "+" else value - right
            at = after
        return value, at

    def operand(at: int) -> tuple[Fraction, int]:
        if tokens[at] != "(":
            return Fraction(tokens[at]), at + 1
        value, at = expression(at + 1)
        return value, at + 1

    return expression(0)[0]


def test_arithmetic_modules_come_in_turn() -> None:
    """A mixture that is even only at its full size."""
    items = list(Arithmetic(name="arithmetic", size=18, seed=1).stream())
    assert set(Counter(item.task for item in items if isinstance(item, TaskItem)).values()) == {2}
    assert len(MODULES) == 9
