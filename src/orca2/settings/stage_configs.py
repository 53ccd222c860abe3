"""The stages of a curriculum as configs of runs of their own."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from orca2.errors import ConfigError
from orca2.runs import RunDirectory
from orca2.settings.config import check, raise_all, storable
from orca2.settings.curriculum import stage_folder

OVERRIDING = ("strategy", "erasing", "thinking", "packs_per_step")
"""Root keys that a stage replaces where it does not leave them at null."""

TO_COME = "orca2.planning.lengths.SourceToCome"

ORIGIN = ("weights", "architecture", "shape", "tokenizer", "tokenizer_vocabulary")
"""Keys of a model that say where it comes from."""


def stage_configs(cfg: DictConfig) -> dict[str, DictConfig]:
    """Each stage of `cfg.curriculum` with its root config, in order: what `train.py` would run without a curriculum.

    In a plan, a source without its path is one that is not made yet, if the stage states what it expects of it.
    Raises ConfigError with the problems of all stages.
    """
    configs, found = {}, []
    for number, key in enumerate(cfg.curriculum.stages, start=1):
        config = _stage_config(cfg, number, str(key))
        if cfg.plan and str(key) in expected_tokens(cfg) and OmegaConf.missing_keys(config.source):
            config.source = {"_target_": TO_COME, "name": cfg.curriculum.stages[key].source.name}
        try:
            check(config)
        except ConfigError as error:
            found += [f"stage {key}: {line.removeprefix('  - ')}" for line in str(error).split("\n")[1:]]
        configs[str(key)] = config
    raise_all(found)
    return configs


def expected_tokens(cfg: DictConfig) -> dict[str, int]:
    """Stage -> useful tokens of one pass, for those that state it: what can be planned with before data is there."""
    stages = {} if cfg.curriculum is None else cfg.curriculum.stages
    counts = {str(key): stage.get("expected_tokens") for key, stage in stages.items()}
    return {key: count for key, count in counts.items() if count is not None}


def _stage_config(cfg: DictConfig, number: int, key: str) -> DictConfig:
    stages = cfg.curriculum.stages
    stage, config, stored = stages[key], cfg.copy(), storable(cfg)  # its names may hold `${oc.env:NAME}`, and keep it
    folder = Path(stored["run_dir"])
    with open_dict(config):
        config.curriculum = config.only_stage = None
        config.name = f"{stored['name']}/{number}-{key}"
        config.run_dir = str(stage_folder(folder, number, key))
        config.logger.group = stored["logger"]["group"] or stored["name"]
        config.source = _source(stages, key)
        for name in OVERRIDING:
            if stage.get(name) is not None:
                config[name] = _raw(stage[name])
        # The root's, also where it follows from the root's weights: a stage starts from those of the stage before.
        if "learning_rate" in cfg.optimizer:
            config.optimizer.learning_rate = cfg.optimizer.learning_rate
        for name in ("optimizer", "held_out"):
            config[name] = OmegaConf.merge(config[name], stage.get(name) or {})
        config.tokens = stage.get("tokens") or (cfg.tokens if stage.get("epochs") is None else None)
        config.epochs = stage.get("epochs") or cfg.epochs
        earlier = list(stages)[: number - 1]
        before = earlier and RunDirectory(stage_folder(folder, number - 1, earlier[-1]))
        weights = stage.get("weights") or (before and str(before.student))
        if weights:
            # Nor the `shape` of the root's weights: the first stage has added the format's tokens.
            kept = {name: value for name, value in _raw(config.model).items() if name not in ORIGIN}
            config.model = {**kept, "weights": weights}
        if before:  # the root's moments are for the first stage
            kept_moments = stage.get("optimizer_state") == "keep"
            config.optimizer_from = str(before.checkpoints) if kept_moments else None
    return config


def _source(stages: DictConfig, key: str) -> Any:
    stage = stages[key]
    own, replay = _raw(stage.source), stage.get("replay") or {}
    if not replay:
        return own
    return {
        "_target_": "orca2.data.mixture.Mixture",
        "name": stage.source.name,
        "when_exhausted": "first",
        "weights": {key: 1.0, **replay},
        "members": {key: own, **{earlier: _raw(stages[earlier].source) for earlier in replay if earlier in stages}},
    }


def _raw(node: Any) -> Any:
    """A copy of a node that keeps its interpolations; they are absolute, so they hold elsewhere too."""
    return OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
