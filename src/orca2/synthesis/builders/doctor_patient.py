"""Doctor-patient conversations with a four-section note (arXiv 2311.11045, section 4.1: 2,000 of them, two
prompts).

    patient #7   "61 years old, bus driver, ..."   ──call 1──▶ conversation ──call 2──▶ note

The patients are drawn here, so that 2,000 conversations do not collapse into a few. The paper publishes
neither its
prompts nor how it varied them; vocabulary and wording are ours. Whether the note's instruction is the short
or the
detailed one is the task: `doctor_patient_short`, `doctor_patient_detailed`, in turn.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from orca2.errors import ConfigError
from orca2.records import Rejected
from orca2.rows.items import TaskItem

HEADINGS = ("HISTORY OF PRESENT ILLNESS", "PHYSICAL EXAM", "RESULTS", "ASSESSMENT AND PLAN")
"""The four fixed sections (arXiv 2311.11045, section 4.1)."""

VARIANTS = ("short", "detailed")
STRATEGY = "extract_then_generate"
"""The note has to rest on the conversation alone."""

COMPLAINTS = (
    "chest tightness on exertion", "a cough for three weeks", "lower back pain after lifting",
    "recurring migraines", "shortness of breath at night", "a swollen left knee",
    "burning when passing water", "a rash on both forearms", "dizziness when standing up",
    "pain in the right shoulder", "heartburn after meals", "tingling in both feet",
    "a sore throat with fever", "palpitations", "trouble sleeping", "blurred vision",
    "weight loss without dieting", "stiff fingers in the morning", "abdominal cramps after milk",
    "hearing loss in one ear", "a fall on the stairs", "leg cramps while walking", "a lump in the neck",
    "fatigue since a viral infection",
)  # fmt: skip
OCCUPATIONS = (
    "bus driver", "primary school teacher", "retired electrician", "nurse on night shifts", "student",
    "farmer", "software developer", "chef", "violinist", "warehouse worker", "accountant", "hairdresser",
    "carpenter", "retired librarian", "parent on leave", "postal worker",
)  # fmt: skip
BACKGROUNDS = (
    "type 2 diabetes", "high blood pressure", "asthma", "no known illnesses",
    "a hip replacement five years ago", "hypothyroidism", "atrial fibrillation", "depression in remission",
    "chronic kidney disease, stage 3", "a penicillin allergy", "migraine with aura", "psoriasis",
)  # fmt: skip
VISITS = (
    "a first visit", "a follow-up after two weeks", "a follow-up with new laboratory results",
    "an urgent visit", "a follow-up with an X-ray taken this morning", "a yearly check-up",
)  # fmt: skip
MANNERS = (
    "answers briefly", "wanders off the subject", "worries about medication", "has looked everything up",
    "plays the trouble down", "brings a relative who joins in", "first gets a date wrong and corrects it",
)  # fmt: skip

AGES = (19, 88)


def note_task(conversation: str) -> str:
    """The user's text of the stored example."""
    return (
        "Write the clinical note for this conversation between a doctor and a patient, with the sections "
        f"{', '.join(HEADINGS)}.\n\n{conversation.strip()}"
    )


@dataclass(frozen=True, kw_only=True)
class DoctorPatient:
    """`size` patients, whose conversations and notes a teacher writes."""

    name: str
    size: int
    seed: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"tasks={self.name}: size is {self.size}; ask for at least 1 conversation")

    def of_size(self, size: int) -> "DoctorPatient":
        return replace(self, size=size)

    def stream(self) -> Iterator[TaskItem | Rejected]:
        for index in range(self.size):
            task = f"doctor_patient_{VARIANTS[index % len(VARIANTS)]}"
            yield TaskItem(
                id=f"{self.name}/{task}/{self.seed}-{index}",
                collection=self.name,
                task=task,
                category=task,
                user=_patient(Random(f"{self.name}/{self.seed}/{index}")),
                gold=(),
                answer_kind="text",
                suggested=STRATEGY,
                offered=(STRATEGY,),
                licence="generated",
                lineage=f"doctor_patient seed={self.seed} index={index}",
            )


def _patient(rng: Random) -> str:
    return (
        f"The patient is {rng.randint(*AGES)} years old, {rng.choice(OCCUPATIONS)}, "
        f"with {rng.choice(BACKGROUNDS)}. This is {rng.choice(VISITS)} because of {rng.choice(COMPLAINTS)}. "
        f"The patient {rng.choice(MANNERS)}. Write the conversation."
    )
