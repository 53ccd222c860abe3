"""Students built without memory and filled row by row are the students that transformers builds, to the bit."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from orca2.errors import ModelError
from orca2.modelling import loading
from orca2.modelling.build import build_model, build_tokenizer
from orca2.modelling.embedded import embedded_tokenizer
from orca2.modelling.loading import defer_model
from orca2.modelling.spec import ModelSpec
from orca2.rendering.format import ChatFormat
from orca2.settings import build, compose_config
from tests.commands import ENVIRONMENT, ROOT, run_ranks

SMALL = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
LLAMA = {"model_type": "llama", **SMALL}
TIED = LLAMA | {"tie_word_embeddings": True}
RANDOM = {
    "llama": LLAMA,
    "tied": TIED,
    "qwen3": {"model_type": "qwen3", **SMALL},
    "gemma2": {"model_type": "gemma2", **SMALL},
    "gpt2": {"model_type": "gpt2", "n_embd": 24, "n_layer": 2, "n_head": 4},
    "experts": {"model_type": "qwen3_moe", "router_aux_loss_coef": 0.0, **SMALL},
}


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    found: ChatFormat = build(compose_config("train").format)
    return found


def at_random(architecture: dict[str, Any]) -> ModelSpec:
    return ModelSpec(name="t", max_len=256, architecture=architecture, tokenizer_vocabulary=600)


def from_folder(folder: Path) -> ModelSpec:
    return ModelSpec(name="t", max_len=256, weights=str(folder))


def both(spec: ModelSpec, chat: ChatFormat) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights and buffers as `build_model` makes them, and as they are filled."""
    tokenizer = build_tokenizer(spec, chat)
    before = torch.get_rng_state()
    deferred = defer_model(spec, tokenizer, seed=7)
    assert all(parameter.is_meta for parameter in deferred.model.parameters())
    deferred.materialise(deferred.model, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before), "the run's own random numbers changed"
    whole = build_model(spec, tokenizer, seed=7)
    assert deferred.model.config.to_dict() == whole.config.to_dict()
    assert [name for name, _ in deferred.model.named_parameters()] == [name for name, _ in whole.named_parameters()]
    return tuple(dict(model.state_dict()) | dict(model.named_buffers()) for model in (whole, deferred.model))  # type: ignore[return-value]


def assert_same(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert wanted and got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(got[name], tensor), name


@pytest.mark.parametrize("family", RANDOM)
def test_random_weights_are_those_of_the_whole_model(family: str, chat: ChatFormat) -> None:
    """Otherwise one process and eight would train different students from one seed."""
    whole, filled = both(at_random(RANDOM[family]), chat)
    assert_same(filled, whole)


@pytest.fixture
def folder(tmp_path: Path, chat: ChatFormat) -> Callable[..., Path]:
    """`folder(architecture, …)`: a model folder as a user has it; `padding=False`: of a model that no format has
    been given to, as LLaMA-2, whose tokenizer has no padding token."""

    def make(
        architecture: dict[str, Any] = LLAMA,
        shard: str = "10GB",
        dtype: torch.dtype = torch.float32,
        padding: bool = True,
    ) -> Path:
        spec = at_random(architecture)
        tokenizer = build_tokenizer(spec, chat) if padding else embedded_tokenizer(600)
        if not padding:
            tokenizer.pad_token = None
        path = tmp_path / "model"
        build_model(spec, tokenizer, seed=3).to(dtype).save_pretrained(path, max_shard_size=shard)
        tokenizer.save_pretrained(path)
        return path

    return make


@pytest.mark.parametrize(
    "settings",
    [{}, {"architecture": TIED}, {"shard": "20KB"}, {"dtype": torch.bfloat16}, {"architecture": RANDOM["gpt2"]}],
    ids=["one file", "tied", "several files", "bfloat16", "gpt2"],
)
def test_stored_weights_are_those_of_transformers(
    settings: dict[str, Any], folder: Callable[..., Path], chat: ChatFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong offset, conversion or tie gives a model that trains, and is not the one that was asked for."""
    monkeypatch.setattr(loading, "BLOCK_BYTES", 1000)  # many blocks for each tensor, and a shorter last one
    path = folder(**settings)
    assert (len(list(path.glob("*.safetensors"))) > 3) == ("shard" in settings)
    whole, filled = both(from_folder(path), chat)
    assert_same(filled, whole)


@pytest.mark.parametrize("architecture", [LLAMA, TIED], ids=["untied", "tied"])
def test_padding_without_a_row_of_its_own(
    architecture: dict[str, Any], folder: Callable[..., Path], chat: ChatFormat
) -> None:
    """LLaMA-2 has no padding token and no spare row: its new tokens are filled row by row as they are grown."""
    path = folder(architecture=architecture, padding=False)
    whole, filled = both(from_folder(path), chat)
    assert_same(filled, whole)
    assert whole["model.embed_tokens.weight"].shape[0] == 603


def test_weights_saved_without_their_head(folder: Callable[..., Path], chat: ChatFormat) -> None:
    """The tensors of a base model have shorter names."""
    path = folder(architecture=TIED)
    weights = load_file(path / "model.safetensors")
    save_file({name.removeprefix("model."): value for name, value in weights.items()}, path / "model.safetensors")
    whole, filled = both(from_folder(path), chat)
    assert_same(filled, whole)


@pytest.mark.parametrize("architecture", [LLAMA, TIED], ids=["two tables", "tied"])
def test_a_grown_vocabulary(architecture: dict[str, Any], folder: Callable[..., Path], chat: ChatFormat) -> None:
    """The rows of new tokens are the mean of the old ones, as in the whole model."""
    path = folder(architecture=architecture)
    spec = from_folder(path)
    tokenizer = build_tokenizer(spec, chat)
    tokenizer.add_tokens([f"<new {i}>" for i in range(37)])
    whole = build_model(spec, tokenizer, seed=7)
    deferred = defer_model(spec, tokenizer, seed=7)
    deferred.materialise(deferred.model, torch.device("cpu"))
    assert whole.get_input_embeddings().weight.shape[0] == len(tokenizer)
    assert_same(dict(deferred.model.state_dict()), dict(whole.state_dict()))


def drop_tensor(path: Path) -> None:
    weights = load_file(path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path / "model.safetensors")


def wrong_shape(path: Path) -> None:
    weights = load_file(path / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(23)
    save_file(weights, path / "model.safetensors")


def truncate(path: Path) -> None:
    with (path / "model.safetensors").open("r+b") as file:
        file.truncate((path / "model.safetensors").stat().st_size - 1)


def index_of(**weight_map: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_tensor, "1 tensors are missing, such as model.layers.1.mlp.up_proj.weight"),
        (wrong_shape, r"model.norm.weight is \[23\] in the files and \[24\] in the model"),
        (truncate, r"model.safetensors: .* bytes of at least .*; it is truncated"),
        (lambda path: (path / "model.safetensors").write_bytes(b"PK\3\4"), "not a whole safetensors file"),
        (lambda path: (path / "model.safetensors").write_bytes(b"x" * 999), "truncated, or no safetensors"),
        (index_of(a="gone.safetensors"), "names gone.safetensors, which is not there"),
        (index_of(a="../secret.safetensors"), "not a file of its folder"),
        (lambda path: (path / "model.safetensors.index.json").write_text("{"), "not an index"),
    ],
    ids=["missing", "shape", "truncated", "stub", "foreign", "shard gone", "outside", "torn index"],
)
def test_files_that_cannot_be_used_are_refused_by_their_headers(
    damage: Callable[[Path], None], message: str, folder: Callable[..., Path], chat: ChatFormat
) -> None:
    """Before anything big is read, in one line that names file and tensor."""
    path = folder()
    damage(path)
    spec = from_folder(path)
    with pytest.raises(ModelError, match=message) as caught:
        defer_model(spec, build_tokenizer(spec, chat), seed=7)
    assert "\n" not in str(caught.value)


def load_in_ranks(ranks: int, folder: Path, jobs: dict[str, dict[str, Any]]) -> None:
    """Each rank of a process group loads each job's student and saves what it has of it."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    run_ranks(ranks, Path(__file__).with_name("loading_worker.py"), str(folder), str(folder / "jobs.json"))


@pytest.mark.slow
def test_sharded_students_are_the_whole_ones(tmp_path: Path, folder: Callable[..., Path], chat: ChatFormat) -> None:
    """41 rows over 4 ranks, 6 over 4 so that one has none: every row must be in its place."""
    path = folder(architecture=TIED | {"num_key_value_heads": 1}, shard="20KB")
    tokenizer = build_tokenizer(from_folder(path), chat)
    tokenizer.add_tokens([f"<new {i}>" for i in range(37)])
    tokenizer.save_pretrained(tmp_path / "grown")
    shared = {"architecture": RANDOM["qwen3"] | {"head_dim": 6, "intermediate_size": 41}, "tokenizer_vocabulary": 601}
    jobs: dict[str, dict[str, Any]] = {
        "random": shared,
        "tied": shared | {"architecture": TIED},
        "stored": {"weights": str(path)},
        "grown": {"weights": str(path), "tokenizer": str(tmp_path / "grown")},
    }
    load_in_ranks(2, tmp_path, {"stored": jobs["stored"]})
    load_in_ranks(4, tmp_path, jobs)
    for name, fields in jobs.items():
        spec = ModelSpec(name=name, max_len=256, **fields)
        whole = build_model(spec, build_tokenizer(spec, chat), seed=7)
        for ranks in (2, 4) if name == "stored" else (4,):
            assert_same(load_file(tmp_path / f"{name}-{ranks}.safetensors"), dict(whole.named_parameters()))


@pytest.mark.slow
def test_two_ranks_need_little_more_than_half_each(tmp_path: Path) -> None:
    """A 13B student must never exist whole on one host. 250M parameters here, 1B in perf/load_memory.py."""
    out = tmp_path / "out.json"
    command = [sys.executable, str(ROOT / "perf/load_memory.py"), "--json", str(out), "--layers", "12"]
    command += ["--width", "1024", "--file-bytes", "100000000"]
    subprocess.run(command, env=ENVIRONMENT, check=True, timeout=500)
    measured = json.loads(out.read_text())
    assert len(measured["runs"]) == 2
    assert measured["ratio"]["peak"] < 0.6
    # A tenth of the model for a file, and an eighth for its largest tensor, three times while it is gathered.
    assert measured["ratio"]["export"] < 0.6
