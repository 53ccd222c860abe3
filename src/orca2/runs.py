"""The run directory: what a run leaves behind, and whether a command starts, continues or has finished it.

    runs/<name>/
      config.yaml      the composed config; environment values stay ${oc.env:NAME}, secrets are blanked
      overrides.txt    the overrides of the command line, one a line
      manifest.json    git commit, versions, hardware, config signature; one entry more for each resume
      checkpoints/     metrics.csv   rejected.jsonl   student/   results.json
      DONE             written last
      .lock            held by the process that works here

Two configs are the same run if they agree in all but the operational keys; then the run continues.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import yaml

from orca2.errors import CheckpointError
from orca2.files import atomic_write_json, atomic_write_text, growing

OF_ASKING = (
    "base_url", "api_key_env", "timeout_s", "concurrency", "start_concurrency", "requests_per_minute",
    "tokens_per_minute", "usd_per_million", "batch_size", "batch_factor", "jobs", "poll_s", "linger_s",
)  # fmt: skip
"""Keys of a model that is asked, such as a teacher: they change how fast and at what price it answers. An address is
one of them: a model is known by its name."""

OPERATIONAL = (
    "name",
    "run_dir",
    "logger",
    "trainer.name",
    "trainer.accelerator",
    "trainer.strategy",
    "trainer.devices",
    "trainer.nodes",
    "trainer.data_parallel_size",
    "model.activation_checkpointing",
    "packs_per_micro_batch",
    "workers",
    "checkpoint_every_steps",
    "log_every_steps",
    "validation.name",
    "validation.every_steps",
    "out_dir",
    "processes",
    "cache",
    "max_usd",
    "max_tokens",
    "max_requests",
    *(f"backend.{key}" for key in ("batch_tokens", "batch_prompts", "retries", "first_wait_s", "longest_wait_s")),
    *(f"backend.model.{key}" for key in OF_ASKING),
)
"""Keys (and all below them) that say where and how a run is computed, not what it computes."""

DEPENDENCIES = (
    "torch", "lightning", "transformers", "tokenizers", "datasets", "pyarrow", "safetensors", "numpy",
    "hydra-core", "omegaconf", "wandb", "flash-attn",
)  # fmt: skip
"""Distributions whose versions a manifest records, if they are installed."""

SECRET_WORDS = ("password", "secret", "api_key", "apikey", "auth_token", "access_token", "hf_token")
"""Ends of keys whose values are never stored. `token` alone counts too; `end_token` is not a secret."""

BLANK = "(not stored)"

OF_A_START = ("config.yaml", "overrides.txt", "manifest.json", ".lock", "job.json", "job.log", "multirun.yaml")
"""Files that a run leaves before it has done anything."""
RIGHT_UNDER_ANY = ("student_cache*.sqlite*", "spending/*.json", "shards/call", "shards/*.answered")
"""Patterns of files that stay, and stay right, when a run of another config begins in the folder: answers by what was
asked and what they took, and signs between processes."""
WITHOUT_WORTH = ("FAILED", "metrics.csv", "samples.jsonl", "rejected*.jsonl")
"""Patterns of files that are worth nothing without a checkpoint or a student beside them."""

State = Literal["new", "resume", "done"]


@dataclass(frozen=True)
class RunDirectory:
    """One run's directory. One process of a run, the first rank, opens and writes it."""

    path: Path
    key: str = "run_dir"
    """The setting that names the folder, for messages."""
    operational: tuple[str, ...] = OPERATIONAL

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def overrides(self) -> Path:
        return self.path / "overrides.txt"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def student(self) -> Path:
        return self.path / "student"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def rejected(self) -> Path:
        return self.path / "rejected.jsonl"

    @property
    def done(self) -> Path:
        return self.path / "DONE"

    @property
    def is_done(self) -> bool:
        return self.done.exists()

    @contextmanager
    def locked(self, wait: bool = False) -> Iterator[None]:
        """Keep other processes out; CheckpointError if one is in, unless `wait`, and where the folder cannot be
        made. At the latest it ends with the process.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = growing(self.path / ".lock")
        except OSError as error:
            raise CheckpointError(
                f"{self.key} = {self.path} cannot be made or written: {error}; choose another folder with "
                f"{self.key}=<folder>"
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise CheckpointError(
                    f"{self.key} = {self.path}: another process is running there; wait for it, or choose "
                    f"another folder with {self.key}=<folder>"
                ) from error
            yield

    def open_or_resume(self, config: Mapping[str, Any], overrides: Sequence[str]) -> State:
        """Begin a run here or continue it, and say which; call it inside `locked()`.

        `config` is `settings.storable(cfg)`. Raises CheckpointError, listing every key that differs,
        if the directory holds a run of another config; one that never got anywhere, such as a start with
        a mistyped path, is replaced.
        """
        config = without_secrets(config)
        if not self.manifest.exists():
            return self._begin(config, overrides)
        try:
            stored = yaml.safe_load(self.config.read_text(encoding="utf-8"))
            record = json.loads(self.manifest.read_text(encoding="utf-8"))
            differences = differing(stored, config, self.operational)
        except (OSError, ValueError, yaml.YAMLError, AttributeError) as error:
            raise CheckpointError(
                f"{self.key} = {self.path}: config.yaml or manifest.json there cannot be read ({error}); "
                f"delete the folder, or choose another with {self.key}=<folder>"
            ) from error
        if differences and self._is_false_start():
            return self._begin(config, overrides)
        if differences:
            lines = (f"\n  - {key}: {then!r} in the folder, {now!r} now" for key, (then, now) in differences.items())
            raise CheckpointError(
                f"{self.key} = {self.path} holds a run of another config:{''.join(lines)}\n"
                "Give the values of the folder to continue that run, choose another folder with "
                f"{self.key}=<folder> (or another name=<name>), or delete the folder to start anew."
            )
        if self.is_done:
            return "done"
        record["resumed"].append({**provenance(), "overrides": redacted_overrides(overrides)})
        record["config_signature"] = signature(config, self.operational)
        self._write(config, overrides, record)
        return "resume"

    def record(self, key: str, value: Any) -> None:
        """Add an entry to the manifest, or replace it."""
        record = json.loads(self.manifest.read_text(encoding="utf-8"))
        atomic_write_json(self.manifest, record | {key: value})

    def stored_config(self) -> dict[str, Any] | None:
        """The config of the run that the directory holds; None if it cannot be read."""
        try:
            stored = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return None
        return stored if isinstance(stored, dict) else None

    def mark_done(self) -> None:
        atomic_write_text(self.done, "")

    def _is_false_start(self) -> bool:
        """Whether nothing here, nor in the runs below, would be lost, and nobody works below."""
        files = [
            path for path in self.path.rglob("*") if path.is_file() and "wandb" not in path.relative_to(self.path).parts
        ]
        return all(
            path.name in OF_A_START
            or any(map(path.match, (*WITHOUT_WORTH, *RIGHT_UNDER_ANY)))
            or (path.suffix == ".jsonl" and path.stat().st_size == 0)  # records of which there are none yet
            for path in files
        ) and not any(_is_locked(path) for path in files if path.name == ".lock" and path.parent != self.path)

    def _begin(self, config: Mapping[str, Any], overrides: Sequence[str]) -> State:
        for pattern in WITHOUT_WORTH:
            for path in self.path.glob(pattern):
                path.unlink()
        record = {"config_signature": signature(config, self.operational), **provenance(), "resumed": []}
        self._write(config, overrides, record)
        return "new"

    def _write(self, config: Mapping[str, Any], overrides: Sequence[str], record: Mapping[str, Any]) -> None:
        try:
            atomic_write_text(self.overrides, "".join(f"{line}\n" for line in redacted_overrides(overrides)))
            atomic_write_text(self.config, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
            atomic_write_json(self.manifest, record)  # last: a folder with a manifest is a run
        except OSError as error:
            raise CheckpointError(f"{self.key} = {self.path} cannot be written to: {error.strerror}") from error


def signature(config: Mapping[str, Any], operational: Collection[str] = OPERATIONAL) -> str:
    """SHA-256, in hex, of the config without its operational keys. Independent of the keys' order."""
    return hashlib.sha256(json.dumps(_flat(config, operational), sort_keys=True).encode()).hexdigest()


def differing(
    then: Mapping[str, Any], now: Mapping[str, Any], operational: Collection[str] = OPERATIONAL
) -> dict[str, tuple[Any, Any]]:
    """Non-operational keys with other values, as dotted paths; a key that is not there shows as None."""
    old, new = _flat(then, operational), _flat(now, operational)
    if old.get("trainer.precision") == "auto":  # a run from before it was stored as what it stands for
        old["trainer.precision"] = new.get("trainer.precision")
    both = old.keys() | new.keys()
    keys = sorted(key for key in both if (key in old, old.get(key)) != (key in new, new.get(key)))
    nulls = (key for key in keys if old.get(key) is new.get(key) is None)
    # A null of one that has entries in the other is told by the entries.
    told = {key for key in nulls if any(other.startswith(f"{key}.") for other in both)}
    return {key: (old.get(key), new.get(key)) for key in keys if key not in told}


def movable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a stage with what lies beside its folder named from there: a whole curriculum can be moved."""
    beside = f"{Path(config['run_dir']).parent}{os.sep}"

    def from_there(node: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: from_there(value)
            if isinstance(value, Mapping)
            else value.removeprefix(beside)
            if isinstance(value, str) and key != "run_dir"
            else value
            for key, value in node.items()
        }

    return from_there(config)


def without_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which values of keys that name a secret are blanked, unless they only name a variable."""
    return {
        key: without_secrets(value)
        if isinstance(value, Mapping)
        else BLANK
        if _is_secret(key) and isinstance(value, str) and not value.startswith("${oc.env:")
        else value
        for key, value in config.items()
    }


def redacted_overrides(overrides: Sequence[str]) -> list[str]:
    """The overrides, with values of keys that name a secret blanked."""
    pairs = (line.partition("=") for line in overrides)
    return [
        f"{key}={BLANK}" if _is_secret(key.rpartition(".")[2]) else key + sign + value for key, sign, value in pairs
    ]


def provenance() -> dict[str, Any]:
    """The code and the machine of a run: the commit of this code, versions, hardware."""
    return {"git": _git(), "versions": _versions(), "hardware": _hardware()}


def _is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _flat(config: Mapping[str, Any], operational: Collection[str], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if path in operational or (not prefix and _is_unused(key, value)):
            continue
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, operational, f"{path}.")
        else:
            flat[path] = value
    return flat


def _is_unused(key: str, value: Any) -> bool:
    """Whether a root key asks for what was done before the key existed: with and without it, it is the same run."""
    group = value if isinstance(value, Mapping) else {}
    no_rows = key == "validation" and bool(group) and not group.get("rows")
    return value is None or value is False or no_rows or (key == "thinking" and group.get("name") == "drop")


def _is_secret(key: str) -> bool:
    return key.lower() == "token" or key.lower().endswith(SECRET_WORDS)


def _git() -> dict[str, Any] | None:
    """Commit and whether files differ from it; None outside a git checkout."""
    root = Path(__file__).resolve().parents[2]
    commit = _output("git", "-C", str(root), "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "dirty": bool(_output("git", "-C", str(root), "status", "--porcelain"))}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in DEPENDENCIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _hardware() -> dict[str, Any]:
    gpus = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")  # without a CUDA context in this process
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "gpus": gpus.splitlines() if gpus else [],
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _output(*command: str) -> str | None:
    """What a program prints, or None where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
