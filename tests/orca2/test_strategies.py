from collections import Counter
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from orca2.errors import ConfigError
from orca2.records import UNLABELLED
from orca2.strategies import RandomStrategy, Strategy, StrategyChoice, StrategyMixture

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "strategy").glob("*.yaml"))
SINGLE = sorted(set(NAMES) - {"mixed", "random", "measured", "any"})

direct = Strategy(name="direct", instruction="Only the answer.")
steps = Strategy(name="steps", instruction="Step by step.")
recall = Strategy(name="recall", instruction="Recall first.")
MEMBERS = {"direct": direct, "steps": steps, "recall": recall}
mixture = StrategyMixture(name="mixed", members=MEMBERS, by_task={"sums": "steps"}, default="recall")
lottery = RandomStrategy(name="random", members=MEMBERS, seed=0)


def configured(name: str) -> StrategyChoice:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(overrides=[f"+strategy={name}"])
    choice: StrategyChoice = instantiate(config.strategy, _convert_="all")
    return choice


def test_the_paper_s_strategies_are_all_there() -> None:
    """Prevents that one of the strategies that the paper names is lost."""
    assert SINGLE == [
        "direct",
        "explain_then_answer",
        "extract_then_generate",
        "guess_and_check",
        "recall_reason_generate",
        "recall_then_generate",
        "step_by_step",
    ]


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"measured", "any"}))  # to be measured first; of stored rows alone
def test_each_file_makes_a_choice_of_its_name(name: str) -> None:
    """Prevents a file that cannot be built, or that names itself otherwise in W&B and labels."""
    choice = configured(name)
    assert choice.name == name
    assert choice.assign("any", "row") is not None
    raw = OmegaConf.load(CONF / "strategy" / f"{name}.yaml")
    keys = [str(key) for key in raw if key != "defaults"]
    assert keys[:2] == ["_target_", "name"]


@pytest.mark.parametrize("name", ["mixed", "random"])
def test_shipped_collections_hold_every_single_strategy(name: str) -> None:
    """Prevents a new strategy file that the mixture and the control silently lack."""
    choice = configured(name)
    assert isinstance(choice, StrategyMixture | RandomStrategy)
    assert sorted(choice.members) == SINGLE
    assert all(isinstance(member, Strategy) for member in choice.members.values())


def test_instructions_say_different_things() -> None:
    """Prevents two strategies with one instruction: a copied file that was never edited."""
    instructions = [configured(name).instruction for name in SINGLE]  # type: ignore[attr-defined]
    assert len(set(instructions)) == len(SINGLE) == 7
    assert all(2 <= text.count(". ") + 1 <= 6 for text in instructions)


def test_single_strategy_answers_only_what_offers_it() -> None:
    """Prevents rows labelled with a strategy that their task cannot be answered under."""
    assert direct.assign("sums", "row") is direct
    assert direct.assign("sums", "row", offered=["direct", "steps"], suggested="steps") is direct
    assert direct.assign("sums", "row", offered=["steps"]) is None
    assert direct.assign("sums", "row", offered=[]) is None


def test_mixture_asks_the_mapping_then_the_task_then_the_default() -> None:
    """Prevents that a task's suggestion overrules the user, or that a stranger's suggestion is taken."""
    assert mixture.assign("sums", "row", suggested="direct") is steps
    assert mixture.assign("tales", "row", suggested="direct") is direct
    assert mixture.assign("tales", "row", suggested="unheard") is recall
    assert mixture.assign("tales", "row") is recall
    assert mixture.assign("tales", "row", offered=["direct", "steps"]) is None
    assert mixture.assign("sums", "row", offered=["direct", "steps"]) is steps


def test_accepted_labels() -> None:
    """Prevents training on other strategies' examples, and gold answers that are left out."""
    labels = ["direct", "steps", "recall", "unheard", UNLABELLED]
    assert [label for label in labels if direct.accepts("sums", label)] == ["direct", UNLABELLED]
    assert [label for label in labels if mixture.accepts("sums", label)] == ["steps", UNLABELLED]
    assert [label for label in labels if mixture.accepts("tales", label)] == ["recall", UNLABELLED]
    assert [label for label in labels if mixture.accepts("tales", label, "direct")] == ["direct", UNLABELLED]
    assert [label for label in labels if lottery.accepts("sums", label)] == labels


def test_random_draws_evenly_from_what_is_offered() -> None:
    """Prevents a control that favours a strategy or assigns one that the task does not offer."""
    rows = [f"source/{i}" for i in range(3000)]
    counts = Counter(lottery.assign("sums", row).name for row in rows)  # type: ignore[union-attr]
    assert set(counts) == set(MEMBERS)
    assert all(900 < count < 1100 for count in counts.values())
    drawn = {lottery.assign("sums", row, offered=["steps", "recall", "unheard"]) for row in rows}
    assert drawn == {steps, recall}
    assert lottery.assign("sums", "row", offered=["unheard"]) is None


def test_random_draw_is_a_function_of_seed_task_and_row() -> None:
    """Prevents labels that change between processes, with the order of the file, or never with the seed."""
    rows = [f"source/{i}" for i in range(12)]
    turned = RandomStrategy(name="random", members=dict(reversed(MEMBERS.items())), seed=0)
    reseeded = RandomStrategy(name="random", members=MEMBERS, seed=1)
    names = [lottery.assign("sums", row).name for row in rows]  # type: ignore[union-attr]
    # Written down once: Python's hash() would give others in the next process.
    initials = "".join(name[0] for name in names)
    assert initials == "sddrsdddsrsr"
    assert [turned.assign("sums", row).name for row in rows] == names  # type: ignore[union-attr]
    assert [reseeded.assign("sums", row).name for row in rows] != names  # type: ignore[union-attr]
    assert [lottery.assign("tales", row).name for row in rows] != names  # type: ignore[union-attr]


def test_task_mapped_to_a_stranger_is_refused() -> None:
    """Prevents a typing error that sends a task to the default."""
    with pytest.raises(ConfigError) as error:
        StrategyMixture(name="mixed", members=MEMBERS, by_task={"sums": "step"}, default="direct")
    assert str(error.value) == (
        "strategy=mixed: by_task.sums is 'step', which is not a member; members are direct, recall, steps; "
        "did you mean 'steps'? Name a member, or add the strategy to the defaults list"
    )
    with pytest.raises(ConfigError, match=r"strategy=mixed: default is 'zzz', .* direct, recall, steps\. Name"):
        StrategyMixture(name="mixed", members=MEMBERS, by_task={}, default="zzz")


def test_members_are_held_under_their_own_names() -> None:
    """Prevents labels on disk that belong to another instruction."""
    with pytest.raises(ConfigError, match=r"members\.steps holds the strategy 'direct'"):
        RandomStrategy(name="random", members={"steps": direct}, seed=0)
    with pytest.raises(ConfigError, match="strategy=random has no members"):
        RandomStrategy(name="random", members={}, seed=0)


@pytest.mark.parametrize(("name", "instruction"), [("", "x"), (UNLABELLED, "x"), ("direct", " ")])
def test_nameless_or_silent_strategies_are_refused(name: str, instruction: str) -> None:
    """Prevents labels that mean "no strategy", and a strategy that tells the teacher nothing."""
    with pytest.raises(ConfigError, match="strategy"):
        Strategy(name=name, instruction=instruction)


def test_any_keeps_every_stored_row_and_answers_nothing() -> None:
    """Prevents that rows of a data set are left out because of how their teacher was instructed."""
    choice = configured("any")
    assert all(choice.accepts("sums", label) for label in ("direct", "a strategy of one's own", UNLABELLED))
    assert choice.assign("sums", "row", ["direct"]) is None
