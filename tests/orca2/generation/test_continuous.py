"""Rows that come and go: which answers are ready when, what fits in, and which models are asked one by one."""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from orca2.generation import continuous
from orca2.generation.continuous import Waiting
from orca2.generation.hf import HFGenerator, answer_one_by_one, slots_obstacle

FIELDS = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
ENDS = [1, 2]


def tiny(family: str) -> PreTrainedModel:
    torch.manual_seed(4)
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**FIELDS)).eval()


def waiting(count: int, room: int) -> list[Waiting]:
    generator = torch.Generator().manual_seed(3)
    return [
        Waiting(i, torch.randint(3, 40, (1 + i * 7 % 20,), generator=generator).tolist(), 1 + i * 5 % room)
        for i in range(count)
    ]


@pytest.mark.parametrize("prompt_tokens", [1, 30, 4_096])
def test_rows_that_come_and_go_change_no_answer(prompt_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty prompts with limits of their own through few slots: every slot is reused, moved and left."""
    monkeypatch.setattr(continuous, "PROMPT_TOKENS", prompt_tokens)
    model, prompts = tiny("llama"), waiting(40, 12)
    wanted = {done.index: done.generation for done in answer_one_by_one(model, prompts, ENDS, 0)}
    assert {answer.finish_reason for answer in wanted.values()} == {"stop", "length"}
    for batch_tokens in (40, 150):
        found = list(HFGenerator(model, 0, ENDS, 64, batch_tokens).stream(prompts))
        assert len(found) == 40
        assert {done.index: done.generation for done in found} == wanted


def test_an_answer_is_there_when_it_ends() -> None:
    """Records are written as answers end: a killed run must not lose those that waited for longer ones."""
    model = tiny("llama")
    prompts = [Waiting(0, [5, 6, 7, 8], 40), Waiting(1, [9, 10, 11], 20), Waiting(2, [12, 13], 22)]
    order = [done.index for done in HFGenerator(model, 0, [39], 64, 10_000).stream(prompts)]
    assert order == [1, 2, 0]


@pytest.mark.parametrize(("family", "reason"), [("gemma2", "softcap"), ("mamba", "differ")])
def test_models_that_do_more_than_attend_are_asked_one_by_one(family: str, reason: str) -> None:
    """Answers of a model whose attention is only half done would look like answers."""
    fields = FIELDS if family == "gemma2" else {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2}
    torch.manual_seed(4)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**fields)).eval()
    assert reason in str(slots_obstacle(model))
    generator = HFGenerator(model, 0, ENDS, 64)
    prompts = waiting(3, 8)
    assert not generator.batches
    wanted = {done.index: done.generation for done in answer_one_by_one(model, prompts, ENDS, 0)}
    assert {done.index: done.generation for done in generator.stream(prompts)} == wanted


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 16},
        {
            "rope_type": "longrope",
            "short_factor": [1.0] * 4,
            "long_factor": [3.0] * 4,
            "original_max_position_embeddings": 16,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_positions_that_depend_on_the_batch_are_asked_one_by_one(rope: dict[str, object]) -> None:
    """Beside a longer prompt a short one would get another answer; the trial's texts are too short to show it."""
    torch.manual_seed(4)
    config = CONFIG_MAPPING["llama"](**FIELDS, rope_parameters=rope | {"rope_theta": 10_000.0})
    model = AutoModelForCausalLM.from_config(config).eval()
    assert str(rope["rope_type"]) in str(slots_obstacle(model))


def test_a_wrong_slot_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial must see an attention that is wrong, or it guards nothing."""
    model = tiny("llama")
    assert slots_obstacle(model) is None
    monkeypatch.setattr("orca2.generation.slots._causal", lambda query, key, value, options: value.repeat(1, 2, 1, 1))
    assert "differ" in str(slots_obstacle(model))
