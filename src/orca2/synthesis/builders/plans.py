"""How an instruction's calls become one example.

    one                      ask(question)                            -> answer
    draft_then_check         ask(question), say(check)                -> the second answer
    conversation_then_note   ask(patient)  -> conversation
                             ask(note instruction, conversation)      -> note; the user's text is the conversation

The second call of a note is a request of its own: the note's writer must not see the patient's description,
or the
note would contain what nobody says in the conversation.
"""

from dataclasses import dataclass, replace

from orca2.asking.call_plans import Plan, answer_once, draft_then_check
from orca2.asking.requests import Ask, Request
from orca2.serving.outcomes import Failure, Reply
from orca2.synthesis.builders.doctor_patient import note_task
from orca2.synthesis.instructions import Instruction


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenExample:
    """What the calls gave: the fields of an `Example` that depend on them."""

    system: str
    user: str
    reply: Reply
    """The answer, with the usage of all calls."""


def plan_of(instruction: Instruction) -> Plan[Request, WrittenExample | Failure]:
    """The plan that answers a request whose system message is the instruction's."""

    async def plan(request: Request, ask: Ask) -> WrittenExample | Failure:
        if instruction.calls == "conversation_then_note":
            return await _conversation_then_note(instruction, request, ask)
        calls = draft_then_check(instruction.check) if instruction.calls == "draft_then_check" else answer_once
        reply = await calls(request, ask)
        if isinstance(reply, Failure):
            return reply
        return WrittenExample(system=instruction.system, user=request.user, reply=reply)

    return plan


async def _conversation_then_note(instruction: Instruction, request: Request, ask: Ask) -> WrittenExample | Failure:
    conversation = await ask(request)
    if isinstance(conversation, Failure):
        return conversation
    user = note_task(conversation.text)
    note = await ask(replace(request, system=instruction.check, user=user))
    if isinstance(note, Failure):
        return replace(note, usage=note.usage + conversation.usage)
    known = note.usage_known and conversation.usage_known
    note = replace(note, usage=note.usage + conversation.usage, usage_known=known)
    return WrittenExample(system=instruction.check, user=user, reply=note)
