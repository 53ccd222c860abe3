"""The name that a run has where none is given: from its student and its data, so that other ones have other folders.

    model=tiny                                          tiny-mixed-cautious
    model=hub model.weights=owner/name                  hub-owner-name-mixed-cautious
    source=jsonl source.path=a/train.jsonl              tiny-jsonl-a-train-mixed-cautious
    source=jsonl source.path=/data/a/train.jsonl        tiny-jsonl-train-a79c27-mixed-cautious
    source=synthesized source.path=synthesized/mine     tiny-synthesized-mine-mixed-cautious

If two runs share a folder nevertheless, the second is refused there, with the keys that differ.
"""

import hashlib
import re
from pathlib import PurePath

from omegaconf import DictConfig, OmegaConf

LONGEST_PATH = 60
"""Characters of a path in a name, of which the end tells most; ours: W&B cuts names at 128."""
ROW_FILE = re.compile(r"(?<=.)(\.(jsonl|ndjson|json|csv|parquet))?(\.gz)?$")
"""The end of a file of rows, which tells nothing; a dot elsewhere, as in `Llama-3.2-1B`, does."""
ANY_WEIGHTS = "hub"
"""The model whose file leaves the weights to the user. All others are named after theirs."""


def model_name(cfg: DictConfig) -> str:
    """The student's name, and its weights where the name does not tell them."""
    model = _entries(cfg, "model")
    name = str(model.get("name"))
    return "-".join([name, *_words(model.get("weights"))]) if name == ANY_WEIGHTS else name


def data_name(cfg: DictConfig) -> str:
    """`<source>-<path>-`; empty for generated tasks."""
    source = _entries(cfg, "source")
    name = source.get("name")
    if name in (None, "procedural"):
        return ""
    words = _words(source.get("path"))
    return "".join(f"{word}-" for word in [str(name), *words[words[:1] == [name] :]])


def _words(path: object) -> list[str]:
    """The parts of a path without the ends of its file, as a folder name can hold them, cut from the left.

    Names are published, with W&B and in model cards, so an absolute path's folder, which is a machine's or a person's,
    is told apart by a digest behind the last part. Values that are not known yet, or come from the environment, give
    no words.
    """
    if not path or {"?", "$"} & set(str(path)):
        return []
    *folders, last = PurePath(str(path)).parts
    parts = [*folders, ROW_FILE.sub("", last)]
    if PurePath(str(path)).is_absolute() or parts[0] in ("..", "~"):
        parts = [parts[-1], hashlib.blake2b("/".join(folders).encode(), digest_size=3).hexdigest()]
    words = [word for part in parts if (word := re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-."))]
    while len(words) > 1 and len("-".join(words)) > LONGEST_PATH:
        del words[0]
    return [word[-LONGEST_PATH:] for word in words]


def _entries(cfg: DictConfig, key: str) -> dict[str, object]:
    """A group's keys as they stand, interpolations unresolved; none where it is not a mapping."""
    node = cfg.get(key)
    found = OmegaConf.to_container(node) if OmegaConf.is_config(node) else {}
    return {str(name): value for name, value in found.items()} if isinstance(found, dict) else {}
