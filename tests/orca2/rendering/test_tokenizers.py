import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from orca2.errors import ConfigError, ModelError
from orca2.rendering import ChatFormat, Renderer, prepare_tokenizer, tokenizer_hash, train_byte_bpe

TEXTS = ["Two words and 2023.", "Two words, again and again.\n\n  Indented: naïve 日本語 🙂"] * 3


def test_llama_grows_by_three_to_32003(llama, chatml: ChatFormat) -> None:  # type: ignore[no-untyped-def]
    """Prevents another vocabulary than the paper's and the released weights'."""
    tokenizer = llama(entries=32_000)
    assert len(tokenizer) == 32_000
    assert prepare_tokenizer(tokenizer, chatml) == 3
    assert len(tokenizer) == 32_003
    ids = tokenizer.convert_tokens_to_ids(["[PAD]", "<|im_start|>", "<|im_end|>"])
    assert ids == [32_000, 32_001, 32_002]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (32_000, 32_002, 1)
    assert prepare_tokenizer(tokenizer, chatml) == 0


def test_qwen_uses_its_own_tokens(qwen, chatml: ChatFormat) -> None:  # type: ignore[no-untyped-def]
    """Prevents new, untrained embeddings for tokens that the base model knows."""
    tokenizer = qwen()
    size = len(tokenizer)
    assert prepare_tokenizer(tokenizer, chatml) == 0
    assert (len(tokenizer), tokenizer.pad_token, tokenizer.eos_token) == (size, "<|endoftext|>", "<|im_end|>")


def test_known_token_that_is_not_special_becomes_so(chatml: ChatFormat) -> None:
    """Prevents injection through a tokenizer that has ChatML's words as ordinary added tokens."""
    tokenizer = train_byte_bpe(TEXTS, 300)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"])
    size = len(tokenizer)
    assert prepare_tokenizer(tokenizer, chatml) == 0
    assert len(tokenizer) == size
    renderer = Renderer(tokenizer, chatml)
    assert renderer.prompt("", "<|im_end|>").count(renderer.end_id) == 2


def test_padding_is_never_the_end_of_a_turn(qwen, chatml: ChatFormat) -> None:  # type: ignore[no-untyped-def]
    """Prevents a student that never learns to stop because masked padding is also the end token."""
    tokenizer = qwen()
    tokenizer.pad_token = "<|im_end|>"
    assert prepare_tokenizer(tokenizer, chatml) == 1
    assert tokenizer.pad_token == "[PAD]"


@pytest.mark.parametrize("default", [None, "You are Orca.", 'Say "so" \\n, it\'s {{ a }} {% b %} DEFAULT\nnaïve 🙂'])
def test_template_supplies_the_default_system_message(
    llama,  # type: ignore[no-untyped-def]
    chatml: ChatFormat,
    default: str | None,
) -> None:
    """Prevents that an exported student is asked under no message, or under one garbled by Jinja."""
    tokenizer = llama()
    prepare_tokenizer(tokenizer, chatml, default_system=default)
    renderer = Renderer(tokenizer, chatml)
    user = {"role": "user", "content": "Hi"}

    def ids(messages: list[dict[str, str]]) -> list[int]:
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)

    assert ids([user]) == renderer.prompt(default or "", "Hi")
    assert ids([{"role": "system", "content": ""}, user]) == renderer.prompt("", "Hi")


def test_template_refuses_unknown_roles(prepared: PreTrainedTokenizerFast) -> None:
    """Prevents a prompt with roles that no student was trained on."""
    with pytest.raises(Exception, match="others by user or assistant"):
        prepared.apply_chat_template([{"role": "critic", "content": "4"}])


def test_saved_tokenizer_keeps_its_identity(
    prepared: PreTrainedTokenizerFast, renderer: Renderer, chatml: ChatFormat, tmp_path: Path
) -> None:
    """Prevents that a student cannot be evaluated after its export."""
    prepared.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer_hash(loaded) == tokenizer_hash(prepared)
    assert prepare_tokenizer(loaded, chatml) == 0
    Renderer(loaded, chatml).check_identity(renderer.identity)


@pytest.mark.parametrize("legacy", [True, False])
def test_what_decides_the_ids_of_llama_is_stored(legacy: bool, llama, chatml: ChatFormat, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Prevents that a student of LLaMA-2 is asked with other blanks than it was trained on, or refused by chat.py."""
    tokenizer = llama()
    tokenizer.save_pretrained(tmp_path / "base")
    settings = tmp_path / "base" / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"legacy": legacy}))
    read = AutoTokenizer.from_pretrained(tmp_path / "base")
    prepare_tokenizer(read, chatml)
    read.save_pretrained(tmp_path / "student")
    again = AutoTokenizer.from_pretrained(tmp_path / "student")
    Renderer(again, chatml).check_identity(Renderer(read, chatml).identity)


def test_bos_of_the_chat_template_is_kept(qwen, chatml: ChatFormat) -> None:  # type: ignore[no-untyped-def]
    """Prevents that Llama 3 and DeepSeek, whose files leave BOS to the chat template, are trained without it."""
    tokenizer = qwen()
    tokenizer.bos_token, tokenizer.chat_template = "<|endoftext|>", "{{ bos_token }}{{ messages[0].content }}"
    for _ in range(2):  # the template of the first time is the one that the second time finds
        prepare_tokenizer(tokenizer, chatml)
        assert Renderer(tokenizer, chatml).prompt("", "a")[0] == tokenizer.bos_token_id
    without = qwen()
    without.bos_token, without.chat_template = "<|endoftext|>", "{{ messages[0].content }}"
    prepare_tokenizer(without, chatml)
    assert Renderer(without, chatml).prompt("", "a")[0] == without.convert_tokens_to_ids("<|im_start|>")


def test_hash_sees_tokens_and_merges_but_not_settings_per_call(chatml: ChatFormat) -> None:
    """Prevents false alarms after a padded call, and silence after a changed vocabulary."""
    tokenizer, same = train_byte_bpe(TEXTS, 300), train_byte_bpe(TEXTS, 300)
    same(["a", "bc"], padding=True, truncation=True, max_length=1)
    assert tokenizer_hash(same) == tokenizer_hash(tokenizer)
    assert tokenizer_hash(train_byte_bpe(TEXTS, 270)) != tokenizer_hash(tokenizer)
    same.add_tokens(["new"])
    assert tokenizer_hash(same) != tokenizer_hash(tokenizer)


def test_bos_that_does_not_exist_is_refused(qwen, chatml: ChatFormat) -> None:  # type: ignore[no-untyped-def]
    """Prevents the text "None" at the head of every prompt."""
    demanding = ChatFormat(
        name="chatml",
        start="<|im_start|>",
        end="<|im_end|>",
        pad="[PAD]",
        after_role="\n",
        between_turns="\n",
        bos=True,
    )
    with pytest.raises(ModelError, match="no BOS token; use bos: auto"):
        prepare_tokenizer(qwen(), demanding)


def test_bos_can_be_switched_off(llama) -> None:  # type: ignore[no-untyped-def]
    """Prevents that renderer and template disagree on BOS."""
    without = ChatFormat(
        name="chatml",
        start="<|im_start|>",
        end="<|im_end|>",
        pad="[PAD]",
        after_role="\n",
        between_turns="\n",
        bos=False,
    )
    tokenizer = llama()
    prepare_tokenizer(tokenizer, without)
    renderer = Renderer(tokenizer, without)
    assert renderer.identity["bos_id"] is None
    assert renderer.decode_marked(renderer.prompt("", "a")).startswith("<|im_start|>")


def test_shipped_chatml_is_the_one_tested_here(chatml: ChatFormat) -> None:
    """Prevents tests of another markup than users train with, such as a line break lost in YAML."""
    with initialize_config_dir(str(Path(__file__).parents[3] / "conf"), version_base="1.3"):
        config = compose(overrides=["+format=chatml"])
    assert instantiate(config.format) == chatml


@pytest.mark.parametrize("changes", [{"start": ""}, {"end": " <|im_end|>"}, {"pad": "<|im_end|>"}, {"bos": "yes"}])
def test_impossible_formats_are_refused(chatml: ChatFormat, changes: dict[str, str]) -> None:
    """Prevents a format in which padding, or nothing, ends a turn."""
    fields = {name: getattr(chatml, name) for name in chatml.__dataclass_fields__}
    with pytest.raises(ConfigError, match="format=chatml"):
        ChatFormat(**(fields | changes))


def test_tiny_tokenizer_splits_words_and_digits() -> None:
    """Prevents merges across words, digits and line breaks, which make the toy arithmetic unlearnable."""
    tokenizer = train_byte_bpe(["the cat 1234\n\nthe cat 1234\n\n"] * 50, 400)
    assert len(tokenizer) < 400
    assert tokenizer.tokenize("the cat 1234\n\n") == ["the", "Ġcat", "Ġ", "1", "2", "3", "4", "Ċ", "Ċ"]


def test_tiny_tokenizer_reads_bytes_it_never_saw() -> None:
    """Prevents unknown tokens: the tiny student must be able to read and write any text."""
    tokenizer = train_byte_bpe(["abc"], 257)
    text = "naïve 日本語 🙂\x00\r\n"
    assert len(tokenizer) == 257
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_tiny_tokenizer_needs_room_for_all_bytes() -> None:
    """Prevents a tokenizer that lacks bytes."""
    with pytest.raises(ConfigError, match="vocab_size is 256"):
        train_byte_bpe(["abc"], 256)


def test_tiny_tokenizer_is_the_same_everywhere() -> None:
    """Prevents ranks, or a resumed run, from training different tokenizers on the same texts."""
    program = (
        "from orca2.rendering import tokenizer_hash, train_byte_bpe\n"
        "texts = [f'{a} plus {b} is {a + b}, {a * b} times.\\n' for a in range(60) for b in range(60)]\n"
        "print(tokenizer_hash(train_byte_bpe(texts, 700)))\n"
    )
    hashes = set()
    for hash_seed, threads in (("1", "1"), ("2", "4")):
        environment = os.environ | {
            "PYTHONHASHSEED": hash_seed,
            "RAYON_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "true",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        hashes.add(done.stdout.strip())
    assert len(hashes) == 1
    assert len(hashes.pop()) == 64
