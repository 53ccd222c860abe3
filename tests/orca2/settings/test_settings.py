"""The border to Hydra: what a wrong command line or config is answered with, word for word.

The configs are a small tree of their own, so that no change to `conf/` can make these tests pass or fail.
"""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from omegaconf import OmegaConf

import orca2
from orca2.errors import ConfigError
from orca2.settings import build, build_all, check, check_command_line, compose_config, plain, storable
from orca2.settings.config import config_problems
from orca2.strategies import Strategy, StrategyMixture

FILES = {
    "conf/train.yaml": """
        defaults:
          - train_schema
          - model: small
          - strategy: mixed
          - hydra: default
          - _self_
          - debug: null
        name: ${model.name}-${strategy.name}
        run_dir: runs/${name}
        seed: 17
        lora: {}
        erasing: {}
        thinking: {}
        format: {}
        source: {}
        packing: {}
        optimizer: {}
        trainer: {}
        gpu: {}
        planning: {}
        plan: false
        logger: {}
        held_out: {}
        validation: {}
        epochs: 1
        packs_per_step: 2
        packs_per_micro_batch: 1
        workers: 0
        checkpoint_every_steps: 5
        log_every_steps: 1
        loss_on_history: false
        """,
    "conf/model/small.yaml": "{name: small, max_len: 128}",
    "conf/model/large.yaml": "{name: large, max_len: 4096}",
    "conf/debug/quick.yaml": "# @package _global_\nworkers: 0",
    "conf/hydra/default.yaml": """
        output_subdir: null
        run: {dir: "${run_dir}"}
        sweep: {dir: runs, subdir: .}
        """,
    "conf/strategy/direct.yaml": "{_target_: orca2.strategies.Strategy, name: direct, instruction: Answer.}",
    "conf/strategy/steps.yaml": "{_target_: orca2.strategies.Strategy, name: steps, instruction: Think.}",
    "conf/strategy/mixed.yaml": """
        defaults:
          - direct@members.direct
          - steps@members.steps
          - _self_
        _target_: orca2.strategies.StrategyMixture
        name: mixed
        by_task: {gsm8k: steps}
        default: direct
        """,
    "train.py": """
        from orca2.errors import DataError
        from orca2.settings import build, job_overrides, run_main

        def main(cfg):
            if cfg.seed == 99:
                raise DataError("source.path = 'nowhere': no such file")
            if cfg.seed == 98:
                raise ZeroDivisionError("a bug")
            print("RAN", cfg.name, cfg.seed, build(cfg.strategy).name, job_overrides())

        if __name__ == "__main__":
            run_main("train", main)
        """,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(dedent(text))
    return root


def problems(project: Path, *overrides: str, multirun: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_command_line("train", overrides, project / "conf", multirun)
    title, *lines = str(caught.value).split("\n")
    assert title == "this config cannot be run:"
    return [line.removeprefix("  - ") for line in lines]


def run(project: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(project / "train.py"), *arguments]
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(Path(orca2.__file__).parents[1])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("modle=13b", "modle=13b: 'modle' is not a key of TrainConfig; did you mean 'model'?"),
        ("modle.x=1", "modle.x=1: 'modle' is not a key of TrainConfig; did you mean 'model'?"),
        ("+epoch=3", "epoch: not a key of TrainConfig; did you mean 'epochs'?"),
        ("strategy=mixd", "strategy=mixd: conf/strategy has direct, mixed, steps; did you mean 'mixed'?"),
        ("model=7", "model=7: conf/model has large, small"),
        (
            "model.max_ln=1",
            "model.max_ln=1: no such key in 'model' (+model.max_ln=1 adds it); did you mean "
            "'max_len'?",
        ),
        ("strategy.by_tas=1", "strategy.by_tas=1: no such key in 'strategy'; did you mean 'by_task'?"),
        ("seed", "seed: cannot be read; write key=value"),
        ("seed=abc", "seed = 'abc': TrainConfig wants int"),
        ("seed=true", "seed = True: TrainConfig wants int"),
        ("tokens=abc", "tokens = 'abc': TrainConfig wants int or null"),
        ("benchmark_limit=0", "benchmark_limit = 0: must be at least 1"),
        ("epochs=0", "epochs = 0: must be at least 1"),
        ("seed=1,2", "seed=1,2: several values; add --multirun to run one job for each"),
        ("~strategy", "strategy: has no value; give one with strategy=…"),
        ("~nothing", "~nothing: Could not delete from config. 'nothing' does not exist."),
        ("name=${model.nme}", "name = ${model.nme}: Interpolation key 'model.nme' not found"),
        ("strategy.default=3", "strategy.default = 3: orca2.strategies.StrategyMixture wants str"),
        (
            "strategy.by_task.gsm8k=3",
            "strategy.by_task.gsm8k = 3: orca2.strategies.StrategyMixture wants "
            "str",
        ),
        (
            "strategy.members.direct=x",
            "strategy.members.direct = 'x': orca2.strategies.StrategyMixture wants "
            "Strategy",
        ),
        (
            "+strategy.members.direct.nam=x",
            "strategy.members.direct.nam: orca2.strategies.Strategy takes no such argument; "
            "did you mean 'name'?",
        ),
        (
            "strategy._target_=orca2.strategies.Strategi",
            "strategy._target_ = orca2.strategies.Strategi: module 'orca2.strategies' has no attribute "
            "'Strategi'; did you mean 'Strategy'?",
        ),
        (
            "strategy._target_=orca2.strategie.Strategy",
            "strategy._target_ = orca2.strategie.Strategy: module 'orca2' has no attribute 'strategie'; "
            "did you mean 'strategies'?",
        ),
        (
            "strategy._target_=os.system",
            "strategy._target_ = os.system: only things inside orca2, lightning, lightning_modules, "
            "datamodules may be named",
        ),
        (
            "strategy._target_=orca2.runs.os.system",
            "strategy._target_ = orca2.runs.os.system: not a class or function of orca2, lightning, "
            "lightning_modules, datamodules",
        ),
    ],
)  # fmt: skip
def test_wrong_override_is_answered_with_the_right_name(project: Path, override: str, problem: str) -> None:
    """A typo must never train something else, and the answer must name what was meant."""
    assert problem in problems(project, override)


def test_all_problems_are_reported_at_once(project: Path) -> None:
    """Otherwise a user mends one typo per start."""
    overrides = (
        "modle=13b",
        "strategy=mixd",
        "seed=abc",
        "model.max_ln=3",
        "+foo.bar=1",
        "strategy.default=3",
    )
    found = problems(project, *overrides)
    assert [line.split(":")[0] for line in found] == [
        "strategy=mixd",
        "modle=13b",
        "seed = 'abc'",
        "model.max_ln=3",
        "foo",
        "strategy.default = 3",
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model=large", "model.max_len=64"),
        ("debug=quick",),
        ("+strategy.by_task.bbh=direct", "~strategy.by_task.gsm8k"),
        ("++model.max_len=3", "run_dir=/somewhere/else", "name=7"),
        ("hydra.verbose=true", "strategy=steps"),
    ],
)
def test_right_overrides_pass(project: Path, overrides: tuple[str, ...]) -> None:
    """The check must not refuse what Hydra can do."""
    check_command_line("train", overrides, project / "conf")


def test_sweep_is_checked_value_by_value(project: Path) -> None:
    """A wrong value in the last job of a sweep must be found before the first job starts."""
    assert problems(project, "model=small,larg", "seed=1,x", multirun=True) == [
        "model=larg: conf/model has large, small; did you mean 'large'?",
        "seed = 'x': TrainConfig wants int",
    ]
    check_command_line("train", ["strategy=glob(*)", "seed=range(1,4)"], project / "conf", multirun=True)


def test_unknown_root_key_in_a_file_is_refused(project: Path, tmp_path: Path) -> None:
    """A typo in YAML is as silent as one on the command line."""
    (tmp_path / "train.yaml").write_text("defaults: [train_schema, _self_]\nsede: 3\n")
    with pytest.raises(ConfigError, match=r"^sede: not a key of TrainConfig; did you mean 'seed'\?$"):
        compose_config("train", folder=tmp_path)


def test_check_names_every_missing_value(project: Path, tmp_path: Path) -> None:
    """What depends on a missing value is not reported a second time."""
    (tmp_path / "train.yaml").write_text("defaults: [train_schema, _self_]\nname: ${model}\nseed: 3\n")
    with pytest.raises(ConfigError) as caught:
        check(compose_config("train", folder=tmp_path))
    assert "model: has no value; give one with model=…" in str(caught.value)
    assert "name" not in str(caught.value).replace("run_dir", "")


def test_build_gives_plain_python_values(project: Path) -> None:
    """An OmegaConf container inside an object ends up in checkpoints and cannot be pickled safely."""
    cfg = compose_config("train", folder=project / "conf")
    mixture = build(cfg.strategy)
    assert mixture == StrategyMixture(
        name="mixed",
        members={
            "direct": Strategy(name="direct", instruction="Answer."),
            "steps": Strategy(name="steps", instruction="Think."),
        },
        by_task={"gsm8k": "steps"},
        default="direct",
    )
    assert type(mixture.members) is dict and type(mixture.by_task) is dict


def test_build_passes_runtime_objects_untouched(project: Path) -> None:
    """Hydra alone turns a dataclass among the runtime arguments into a dictionary."""
    members = {"direct": Strategy(name="direct", instruction="Answer.")}
    node = OmegaConf.create({"strategy": {"_target_": "orca2.strategies.StrategyMixture", "name": "m"}}).strategy
    assert build(node, members=members, by_task={}, default="direct").members is members


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("strategy.default=guess", "^strategy: .*guess"),
        ("~strategy.default", "^strategy: .*missing 1 required positional argument: 'default'$"),
        ("strategy.members.direct.name=''", "^strategy.members.direct: "),
        (
            "~strategy.members.direct.name",
            "^strategy.members.direct: .*missing 1 required positional argument: 'name'$",
        ),
    ],
)
def test_constructor_errors_name_their_place(project: Path, override: str, message: str) -> None:
    """Without the path a user of nested configs cannot tell which node is meant."""
    cfg = compose_config("train", [override], project / "conf")
    with pytest.raises(ConfigError, match=message):
        build(cfg.strategy)


def test_build_all_collects_errors_and_keeps_plain_values(project: Path) -> None:
    """The root's nodes are built together, so their errors are told together."""
    built = build_all(compose_config("train", folder=project / "conf"))
    assert (built["seed"], built["name"], built["strategy"].name) == (17, "small-mixed", "mixed")
    assert type(built["model"]) is dict
    assert "model" not in build_all(compose_config("train", folder=project / "conf"), leave_out=("model",))
    with pytest.raises(ConfigError, match=r"  - strategy: .*guess"):
        build_all(compose_config("train", ["strategy.default=guess"], project / "conf"))


def test_environment_values_are_not_stored(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that reaches config.yaml is published with the run, also through another key."""
    monkeypatch.setenv("ORCA2_TEST_KEY", "hunter2")
    overrides = ["+logger.key=${oc.env:ORCA2_TEST_KEY}", "+logger.url=https://${logger.key}@x"]
    cfg = compose_config("train", overrides, project / "conf")
    assert plain(cfg)["logger"]["url"] == "https://hunter2@x"
    assert storable(cfg)["logger"] == {
        "key": "${oc.env:ORCA2_TEST_KEY}",
        "url": "https://${oc.env:ORCA2_TEST_KEY}@x",
    }
    assert storable(cfg)["name"] == "small-mixed"


def test_command_line_of_an_entry_point(project: Path, tmp_path: Path) -> None:
    """Run from another folder; nothing but the run directory may appear there."""
    result = run(project, tmp_path, "seed=3")
    assert (result.returncode, result.stdout) == (0, "RAN small-mixed 3 mixed ['seed=3']\n"), result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_wrong_command_line_ends_at_once(project: Path, tmp_path: Path) -> None:
    """No traceback, no folder, exit code 2."""
    result = run(project, tmp_path, "modle=13b", "seed=abc")
    assert result.returncode == 2
    assert result.stderr == (
        "ConfigError: this config cannot be run:\n"
        "  - modle=13b: 'modle' is not a key of TrainConfig; did you mean 'model'?\n"
        "  - seed = 'abc': TrainConfig wants int\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_sweep_runs_every_job_and_reports_the_failed_one(project: Path, tmp_path: Path) -> None:
    """One bad job must not cost the others, nor be lost in a sweep that ends well."""
    result = run(project, tmp_path, "-m", "seed=1,99,2")
    assert result.returncode == 2
    assert [line for line in result.stdout.splitlines() if line.startswith("RAN")] == [
        "RAN small-mixed 1 mixed ['seed=1']",
        "RAN small-mixed 2 mixed ['seed=2']",
    ]
    assert result.stderr == "DataError: source.path = 'nowhere': no such file\n"


def test_a_bug_keeps_its_traceback(project: Path, tmp_path: Path) -> None:
    """Only errors that a user can mend are shortened."""
    result = run(project, tmp_path, "seed=98")
    assert result.returncode == 1
    assert "ZeroDivisionError: a bug" in result.stderr and "in main" in result.stderr


def test_hydra_flags_still_work(project: Path, tmp_path: Path) -> None:
    """The check must not stand between a user and Hydra's own tools."""
    shown = run(project, tmp_path, "--cfg", "job", "--resolve", "model=large")
    assert shown.returncode == 0 and "max_len: 4096" in shown.stdout
    helped = run(project, tmp_path, "--help")
    assert helped.returncode == 0 and "strategy: direct, mixed, steps" in helped.stdout


def test_further_processes_get_the_flags_that_name_another_config(project: Path, tmp_path: Path) -> None:
    """Fails if ranks train with another config than the head, in the same run directory."""
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "own.yaml").write_text(
        "{_target_: orca2.strategies.Strategy, name: own, instruction: Be brief.}"
    )
    done = run(project, tmp_path, "--config-dir", str(tmp_path), "strategy=own", "seed=5")
    assert f" own ['--config-dir={tmp_path}', 'strategy=own', 'seed=5']" in done.stdout, done.stdout + done.stderr


def test_values_follow_the_student_and_the_machine() -> None:
    """Fails if pretrained weights get the rate of random ones, or no command fits a machine with many GPUs."""

    def values(*overrides: str) -> tuple[float, int]:
        config = compose_config("train", overrides)
        assert not list(config_problems(config))
        stored = storable(config)
        assert stored["optimizer"]["learning_rate"] == build(config.optimizer).learning_rate
        return stored["optimizer"]["learning_rate"], stored["packs_per_step"]

    assert values("trainer=cpu") == (3e-3, 2)
    assert values("model=7b", "trainer.devices=8", "trainer.nodes=4") == (2e-5, 32)
    assert values("model=7b", "lora=default", "packs_per_step=16") == (2e-4, 16)
    assert values("model=7b", "optimizer.learning_rate=1e-4") == (1e-4, 2)
