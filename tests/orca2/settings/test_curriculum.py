"""A curriculum: what each stage's run is made of, and that it cannot lean on what is not there yet."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from orca2.data.mixture import Mixture
from orca2.data.procedural import ProceduralSource
from orca2.errors import ConfigError
from orca2.runs import differing, movable, signature
from orca2.settings import build, check, compose_config, plain, stage_configs, storable
from orca2.settings.curriculum import Curriculum, Stage

STAGES = sorted((Path(__file__).parents[3] / "conf" / "stage").glob("*.yaml"))
OPENORCA = "Open-Orca/OpenOrca"
SOURCE = ProceduralSource(name="generated", size=5, seed=3, split="train", level=1)


def stages_of(*overrides: str) -> dict[str, dict[str, Any]]:
    """The plain root config of each stage."""
    return {key: plain(config) for key, config in stage_configs(compose_config("train", overrides)).items()}


def test_a_stage_starts_from_the_student_before_it_in_a_run_of_its_own() -> None:
    """A stage that trained the root's model again would throw the stages before it away."""
    gold, explained, erased = stages_of("curriculum=smoke", "run_dir=r", "name=n").values()
    assert [one["run_dir"] for one in (gold, explained, erased)] == ["r/1-gold", "r/2-explained", "r/3-erased"]
    assert [one["name"] for one in (gold, explained, erased)] == ["n/1-gold", "n/2-explained", "n/3-erased"]
    assert {one["logger"]["group"] for one in (gold, explained, erased)} == {"n"}
    assert gold["model"] == plain(compose_config("train").model)
    assert explained["model"]["weights"] == "r/1-gold/student"
    assert erased["model"]["weights"] == "r/2-explained/student"
    assert not {"architecture", "tokenizer_vocabulary"} & set(erased["model"])
    assert [one["optimizer_from"] for one in (gold, explained, erased)] == [None, None, "r/2-explained/checkpoints"]


def test_a_stage_says_what_differs_and_the_root_says_the_rest() -> None:
    """Keys of the root that a stage does not name must reach it, and those it names must win."""
    gold, explained, erased = stages_of(
        "curriculum=smoke", "epochs=5", "packs_per_step=4", "optimizer.beta2=0.5",
        "+curriculum.stages.erased.tokens=900", "curriculum.stages.erased.epochs=null",
        "+curriculum.stages.explained.packs_per_step=8",
    ).values()  # fmt: skip
    assert (gold["epochs"], gold["tokens"], gold["packs_per_step"]) == (1, None, 4)
    assert (erased["tokens"], explained["packs_per_step"]) == (900, 8)
    assert (gold["optimizer"]["final_ratio"], gold["optimizer"]["beta2"]) == (0.3, 0.5)
    assert (erased["optimizer"]["warmup"], erased["optimizer"]["final_ratio"]) == (0.0, 0.05)
    assert [one["strategy"]["name"] for one in (gold, explained, erased)] == ["direct", "explain_then_answer", "mixed"]
    assert [one["erasing"]["name"] for one in (gold, explained, erased)] == ["empty", "keep", "cautious"]


def test_replay_deals_an_earlier_source_in_at_its_share() -> None:
    """A replay that ended the epoch early, or saw its source only once, would change what the stage trains on."""
    source: Mixture = build(stage_configs(compose_config("train", ["curriculum=smoke"]))["erased"].source)
    assert (source.size, source.members["erased"].size) == (440, 400)
    rows = source.order(seed=1, epoch=0).rows(0, source.size)
    assert sorted(row for row in rows if row < 400) == list(range(400))
    assert len({row for row in rows if row >= 400}) == 40
    assert {question.task for question in source.questions(1)} == {q.task for q in source.members["gold"].questions(1)}


@pytest.mark.parametrize("name", [file.stem for file in STAGES])
def test_every_stage_can_join_a_curriculum(name: str) -> None:
    """A stage is one new file: it must be whole without the curriculum that it was written for."""
    joined = [f"+stage@curriculum.stages.extra={name}"]
    cfg = compose_config("train", ["curriculum=smoke", *joined])
    for key in sorted(OmegaConf.missing_keys(cfg)):
        OmegaConf.update(cfg, key, "given")
    check(cfg)
    curriculum: Curriculum = build(cfg.curriculum)
    assert curriculum.stages["extra"].name == name
    assert list(stage_configs(cfg))[-1] == "extra"


def test_moments_of_another_run_are_for_the_first_stage() -> None:
    """Every later stage would throw away what it is told to keep, or start with foreign moments where it resets."""
    stages = stages_of("curriculum=smoke", "optimizer_from=before/checkpoints", "run_dir=r")
    found = {key: stage["optimizer_from"] for key, stage in stages.items()}
    assert found == {"gold": "before/checkpoints", "explained": None, "erased": "r/2-explained/checkpoints"}


def test_there_are_stages() -> None:
    """The test above passes on an empty folder."""
    assert {"flan", "chatgpt", "gpt4"} <= {file.stem for file in STAGES}


def test_the_papers_curriculum_has_the_papers_numbers() -> None:
    """Epochs and order are the paper's (section 4.2); the data is public, or made by this project."""
    stages = stages_of("curriculum=orca2", "model=hub", "model.weights=a/b", "curriculum.stages.gpt4.source.members."
                       "synthesized.path=made")  # fmt: skip
    assert {key: stage["epochs"] for key, stage in stages.items()} == {"flan": 1, "chatgpt": 3, "gpt4": 4}
    flan = stages["flan"]["source"]
    assert flan["weights"] == {"flan2021": 0.40, "t0": 0.32, "niv2": 0.20, "cot": 0.05}
    assert all(member["path"].endswith("_submix_original") for member in flan["members"].values())
    assert stages["chatgpt"]["source"]["path"] == OPENORCA
    assert stages["chatgpt"]["source"]["data_files"] == {"train": "3_5M-GPT3_5-Augmented.parquet"}
    last = stages["gpt4"]["source"]["members"]
    assert last["openorca_gpt4"]["data_files"] == {"train": "1M-GPT4-Augmented.parquet"}
    assert last["synthesized"]["path"] == "made"
    assert {stage["optimizer"]["learning_rate"] for stage in stages.values()} == {2.0e-5}
    assert [stage["erasing"]["name"] for stage in stages.values()] == ["keep", "keep", "cautious"]


def test_the_data_set_that_only_the_user_has_is_asked_for() -> None:
    """It must be missed before the first of eighty hours, not in the last stage."""
    with pytest.raises(ConfigError) as caught:
        check(compose_config("train", ["curriculum=orca2"]))
    path = "curriculum.stages.gpt4.source.members.synthesized.path"
    assert str(caught.value).endswith(f"\n  - {path}: has no value; give one with {path}=…")


def test_a_half_done_curriculum_can_be_moved() -> None:
    """Fails if the second stage counts as another run since it begins with weights of a folder that has moved."""

    def stored(run_dir: str) -> dict[str, Any]:
        stage = stage_configs(compose_config("train", ["curriculum=smoke", f"run_dir={run_dir}"]))["erased"]
        return movable(storable(stage))

    here, there = stored("runs/a"), stored("/elsewhere/b")
    assert here["model"]["weights"] == "2-explained/student"
    assert here["optimizer_from"] == "2-explained/checkpoints"
    assert here["run_dir"] == "runs/a/3-erased"
    assert differing(here, there) == {} and signature(here) == signature(there)


def test_what_is_stored_of_a_trainer_is_its_precision_here() -> None:
    """Fails if a change of trainer is refused though it computes the same, or `auto` becomes another precision."""
    trainers = ("cpu", "auto", "ddp", "fsdp")
    stored = [storable(compose_config("train", [f"trainer={name}", "trainer.accelerator=cpu"])) for name in trainers]
    assert all(differing(stored[0], other) == {} for other in stored)
    half = storable(compose_config("train", ["trainer=cpu", "trainer.precision=bf16-mixed"]))
    assert differing(stored[0], half) == {"trainer.precision": ("32-true", "bf16-mixed")}
    older = stored[0] | {"trainer": stored[0]["trainer"] | {"precision": "auto"}}
    assert differing(older, stored[0]) == {}


def test_without_a_curriculum_the_run_is_the_run_it_was() -> None:
    """Finished runs must be found again by releases that know more keys."""
    config = storable(compose_config("train"))
    new = {"curriculum", "only_stage", "tokens", "optimizer_from"}
    assert new <= set(config)
    before = {key: value for key, value in config.items() if key not in new}
    assert config["run_dir"] == "runs/tiny-mixed-cautious"
    assert differing(before, config) == {} and signature(before) == signature(config)


def test_wrong_stages_are_reported_together_and_by_name() -> None:
    """A typo in the third stage must not be found when the second has ended."""
    with pytest.raises(ConfigError) as caught:
        stages_of(
            "curriculum=smoke", "+curriculum.stages.gold.optimizer.warmpu=0.1",
            "+curriculum.stages.erased.optimizer.decay=wavy", "curriculum.stages.erased.source.size=many",
        )  # fmt: skip
    message = str(caught.value)
    assert (
        "stage gold: optimizer.warmpu: orca2.modelling.optimization.OptimizerSpec takes no such argument; did you mean"
        in message
    )
    assert "stage erased: optimizer.decay = 'wavy'" in message
    assert "stage erased: source.members.erased.size = 'many'" in message


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"epochs": 2, "tokens": 5}, "epochs and tokens are both given"),
        ({"epochs": 0}, "epochs = 0: must be at least 1"),
        ({"optimizer_state": "half"}, "optimizer_state = 'half': reset or keep"),
        ({"optimizer_state": "keep", "weights": "a/b"}, "but other weights"),
        ({"replay": {"gold": 0.0}}, "replay.gold = 0.0: must be above 0"),
    ],
)
def test_a_stage_that_contradicts_itself_is_refused(values: dict[str, Any], problem: str) -> None:
    """Each would otherwise run, and mean something else than was written."""
    with pytest.raises(ConfigError, match=problem):
        Stage(name="s", source=SOURCE, **values)


def test_a_stage_can_only_lean_on_earlier_ones() -> None:
    """What comes later has no student, no moments and nothing to replay."""
    late = Stage(name="a", source=SOURCE, replay={"b": 0.1}, optimizer_state="keep")
    with pytest.raises(ConfigError) as caught:
        Curriculum(name="c", stages={"a": late, "b": Stage(name="b", source=SOURCE)})
    assert "stage 'a' replays 'b'; earlier stages: none, it is the first" in str(caught.value)
    assert "stage 'a' is the first: there is no optimizer state to keep" in str(caught.value)
    with pytest.raises(ConfigError, match="has no stages"):
        Curriculum(name="c", stages={})
