"""Greedy generation: batching changes no answer, and training goes on undisturbed."""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from orca2.errors import ModelError
from orca2.generation import Generation
from orca2.generation.hf import HFGenerator
from orca2.modelling.attention import NAME
from orca2.modelling.student_model import StudentForLoss

VOCABULARY, PAD = 40, 0
ENDS = [1, 2, 3]
LENGTHS = (3, 17, 1, 8, 8, 25, 2)


def tiny(family: str) -> PreTrainedModel:
    fields = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": PAD,
        "initializer_range": 0.3,
    }
    if family == "mistral":
        fields["sliding_window"] = 6
    torch.manual_seed(4)
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**fields)).eval()


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(2, VOCABULARY, (length,), generator=generator).tolist() for length in LENGTHS]


def reference(model: PreTrainedModel, prompt: list[int], max_new_tokens: int) -> Generation:
    """transformers' own `generate` for one prompt."""
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=ENDS, pad_token_id=PAD, bos_token_id=None
    )
    ids = torch.tensor([prompt])
    found = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    answer = found[0, len(prompt) :].tolist()
    return Generation(answer[:-1], "stop") if answer[-1] in ENDS else Generation(answer, "length")


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize("batch_tokens", [1, 60, 10_000])
def test_batches_equal_single_prompts(family: str, batch_tokens: int) -> None:
    """Fails if padding, sorting or the departure of finished rows changes an answer or its place."""
    model = tiny(family)
    wanted = [reference(model, prompt, 12) for prompt in prompts()]
    assert {answer.finish_reason for answer in wanted} == {"stop", "length"}
    assert len({len(answer.ids) for answer in wanted}) > 1
    assert HFGenerator(model, PAD, ENDS, 64, batch_tokens).generate(prompts(), 12) == wanted


def test_context_limits_the_answer() -> None:
    """Fails if a model writes beyond its context, or a prompt that fills it stops the whole run."""
    generator = HFGenerator(tiny("llama"), PAD, [VOCABULARY], 10)
    answers = generator.generate([[5] * 7, [5] * 10, [5] * 12, [5]], 4)
    assert [len(answer.ids) for answer in answers] == [3, 0, 0, 4]
    assert {answer.finish_reason for answer in answers} == {"length"}
    assert generator.generate([], 4) == []


def test_training_goes_on_undisturbed() -> None:
    """Fails if evaluation between steps changes mode, attention, gradients or a later loss."""
    model = tiny("llama")
    student = StudentForLoss(model, "sdpa", activation_checkpointing="full").train()
    ids, at = torch.arange(2, 12), torch.arange(8)
    positions = torch.cat([torch.arange(6), torch.arange(4)])

    def loss() -> torch.Tensor:
        return student(ids[None], positions[None], (6, 4), at, ids[at + 1]).sum()

    before = loss()
    before.backward()
    gradient = model.get_input_embeddings().weight.grad.clone()
    first = HFGenerator(model, PAD, ENDS, 64).generate(prompts(), 5)
    assert first == HFGenerator(tiny("llama"), PAD, ENDS, 64).generate(prompts(), 5)
    assert all(module.training for module in model.modules())
    assert model.config._attn_implementation == NAME
    assert torch.equal(gradient, model.get_input_embeddings().weight.grad)
    after = loss()
    after.backward()
    assert torch.equal(before, after)


def test_no_end_token_is_refused() -> None:
    """Fails if every answer of a run could silently go to the limit."""
    with pytest.raises(ModelError, match="end token"):
        HFGenerator(tiny("llama"), PAD, [], 64)
