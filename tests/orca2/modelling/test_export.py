"""Exports: complete, readable by others, atomic, and verified."""

import json
import resource
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from orca2.errors import ModelError
from orca2.modelling import export
from orca2.modelling.attention import NAME
from orca2.modelling.build import build_model, build_tokenizer
from orca2.modelling.export import export_student, require_lasting, verify_export, verify_names
from orca2.modelling.sharding import full_weights
from orca2.modelling.spec import ModelSpec
from orca2.modelling.student_model import StudentForLoss, cast_parameters
from orca2.rendering import ChatFormat, prepare_tokenizer, tokenizer_hash

FORMAT = ChatFormat("chatml", "<|im_start|>", "<|im_end|>", "[PAD]", "\n", "\n", "auto")
PROMPT = {"format": "chatml", "system": "Sei präzise."}


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def student(request: pytest.FixtureRequest) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    architecture = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "tie_word_embeddings": request.param,
    }
    spec = ModelSpec(name="test", architecture=architecture, tokenizer_vocabulary=600, max_len=64)
    tokenizer = build_tokenizer(spec, FORMAT, "Sei präzise.")
    return StudentForLoss(build_model(spec, tokenizer, seed=0), "sdpa").model, tokenizer


def test_a_tokenizer_that_is_another_when_read_back_is_refused() -> None:
    """Fails if hours of training end in a student whose every prompt has other ids, or which chat.py refuses.

    transformers builds this class's splitting from its settings, whatever the tokenizer.json says.
    """
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    vocab = {token: id for id, token in enumerate(tokens)}
    tokenizer = LlamaTokenizer(vocab=vocab, merges=[], add_bos_token=True)
    prepare_tokenizer(tokenizer, FORMAT)
    require_lasting(tokenizer, FORMAT)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    with pytest.raises(ModelError, match=r"another one when it is saved and read back \(tokenizer: '"):
        require_lasting(tokenizer, FORMAT)


def test_others_can_load_it(student: tuple[PreTrainedModel, PreTrainedTokenizerBase], tmp_path: Path) -> None:
    """Fails if a file is missing, our attention is named, or tokenizer, template or settings change."""
    model, tokenizer = student
    folder = tmp_path / "runs" / "student"
    export_student(model.train(), tokenizer, folder, PROMPT)
    verify_export(folder, model)
    assert model.training
    assert model.config._attn_implementation == NAME
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.json", "model.safetensors", "generation_config.json", "prompt.json"}
    assert not any("orca2" in path.read_text() for path in folder.glob("*.json"))
    assert json.loads((folder / "prompt.json").read_text(encoding="utf-8")) == PROMPT
    loaded, again = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert loaded.config._attn_implementation == "sdpa"
    assert loaded.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert loaded.generation_config.pad_token_id == tokenizer.pad_token_id
    assert not loaded.generation_config.do_sample
    assert tokenizer_hash(again) == tokenizer_hash(tokenizer)
    assert again.chat_template == tokenizer.chat_template


def test_half_precision_is_exported_as_it_is(
    student: tuple[PreTrainedModel, PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    """Fails if a student trained in bf16 is held to fp32 logits, which it can never have: no such run would end."""
    model, tokenizer = student
    cast_parameters(model, torch.bfloat16)
    export_student(model, tokenizer, tmp_path / "student", PROMPT)
    verify_export(tmp_path / "student", model)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "student").dtype == torch.bfloat16
    with pytest.raises(ModelError, match=r"inv_freq is torch\.bfloat16 in memory and torch\.float32 when loaded"):
        verify_export(tmp_path / "student", model.to(torch.bfloat16))  # other positions than those of the export


def test_earlier_export_is_replaced(student: tuple[PreTrainedModel, PreTrainedTokenizerBase], tmp_path: Path) -> None:
    """Fails if old files survive in a new export or temporary folders stay behind."""
    model, tokenizer = student
    folder = tmp_path / "student"
    export_student(model, tokenizer, folder, PROMPT)
    (folder / "leftover").touch()
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1)
    with pytest.raises(ModelError, match="differ"):
        verify_export(folder, model)
    export_student(model, tokenizer, folder, PROMPT)
    verify_export(folder, model)
    assert not (folder / "leftover").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_a_failed_export_leaves_the_earlier_one(
    student: tuple[PreTrainedModel, PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    """Fails if an interrupted export destroys or mixes with a good one."""
    model, tokenizer = student
    folder = tmp_path / "student"
    export_student(model, tokenizer, folder, PROMPT)
    with pytest.raises(TypeError):
        export_student(model, tokenizer, folder, {"system": object()})
    verify_export(folder, model)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_what_a_killed_export_left_is_cleared(
    student: tuple[PreTrainedModel, PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    """Fails if each killed export leaves 52 GB of a 13B student, or one killed between its renames the only copy."""
    folder = tmp_path / "student"
    export_student(*student, folder, PROMPT)
    folder.rename(tmp_path / ".student.replaced")
    (tmp_path / ".student.unfinished").mkdir()
    with pytest.raises(TypeError):
        export_student(*student, folder, {"system": object()})
    verify_export(folder, student[0])
    export_student(*student, folder, PROMPT)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


@pytest.mark.parametrize("passing", [False, True])
@pytest.mark.parametrize("limit", [3_000, 20_000], ids=["tokenizer", "weights"])
def test_a_full_disk_is_one_error(
    limit: int, passing: bool, student: tuple[PreTrainedModel, PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    """Fails if it is a traceback out of a library. A limit of the size of files stands in for the disk."""
    model, tokenizer = student
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(ModelError, match="cannot write"):
            export_student(model, tokenizer, tmp_path / "student", PROMPT, full_weights(model) if passing else None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


def test_foreign_folders_are_kept(student: tuple[PreTrainedModel, PreTrainedTokenizerBase], tmp_path: Path) -> None:
    """Fails if an export deletes a folder that holds something else."""
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ModelError, match="is not an exported student"):
        export_student(*student, tmp_path, PROMPT)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("file_bytes", [10**9, 20_000])
def test_weights_that_pass_by_are_exported_as_whole_ones(
    file_bytes: int,
    student: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fails if a sharded student's folder differs from the one that transformers writes, but for the cut into files."""
    monkeypatch.setattr(export, "FILE_BYTES", file_bytes)
    model, tokenizer = student
    export_student(model, tokenizer, tmp_path / "whole", PROMPT)
    export_student(model, tokenizer, tmp_path / "passing", PROMPT, full_weights(model))
    verify_names(tmp_path / "passing")
    verify_export(tmp_path / "passing", model)
    files = {folder: {path.name for path in (tmp_path / folder).iterdir()} for folder in ("whole", "passing")}
    if file_bytes == 10**9:
        assert files["passing"] == files["whole"]
    else:
        assert len(files["passing"]) > len(files["whole"]) + 3
    for name in files["whole"] - {"model.safetensors"}:
        assert (tmp_path / "passing" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_file_that_is_not_what_was_written_is_found(
    student: tuple[PreTrainedModel, PreTrainedTokenizerBase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if weights that pass by are written and never compared."""

    def damaged(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        save_file({name: tensor + 1 for name, tensor in tensors.items()}, path, metadata)

    monkeypatch.setattr(export, "save_file", damaged)
    model, tokenizer = student
    with pytest.raises(ModelError, match="differs from the model in memory"):
        export_student(model, tokenizer, tmp_path / "student", PROMPT, full_weights(model))
    assert not list(tmp_path.iterdir())


def test_files_of_another_shape_than_the_config(
    student: tuple[PreTrainedModel, PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    """Fails if a folder passes whose files nobody could load."""
    model, tokenizer = student
    export_student(model, tokenizer, tmp_path, PROMPT, full_weights(model))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ModelError, match=r"model.layers.2.* is None in the files"):
        verify_names(tmp_path)


def test_broken_export_is_refused(student: tuple[PreTrainedModel, PreTrainedTokenizerBase], tmp_path: Path) -> None:
    """Fails if a damaged export ends in a traceback."""
    model, tokenizer = student
    export_student(model, tokenizer, tmp_path / "student", PROMPT)
    (tmp_path / "student" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="cannot be loaded again"):
        verify_export(tmp_path / "student", model)
