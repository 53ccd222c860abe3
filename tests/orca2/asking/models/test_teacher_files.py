"""The teachers of `conf/teacher/`: each file builds what it names, and no key stands in any."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from orca2.asking.cache import Cache
from orca2.settings import build

FOLDER = Path(__file__).parents[4] / "conf" / "teacher"
FILES = sorted(FOLDER.glob("*.yaml"))


def test_there_are_files() -> None:
    """Fails if the test below passes because it found nothing."""
    assert {"openai", "openai_batch", "vllm_server", "local", "rule", "replay"} <= {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_file_builds_its_teacher(file: Path, tmp_path: Path) -> None:
    """Fails if a file misspells an argument, or its teacher lacks a part of the protocol."""
    (tmp_path / "config.json").write_text("{}")
    given = {"model": "m", "path": str(tmp_path)}
    written = OmegaConf.load(file)
    missing = [key for key in written if OmegaConf.is_missing(written, key)]
    assert set(missing) <= set(given)
    written.update({key: given[key] for key in missing})
    teacher = build(OmegaConf.create({"teacher": written}).teacher)
    assert teacher.name == file.stem
    assert teacher.model and teacher.decoding.max_tokens >= 1 and teacher.limits.concurrency >= 1
    assert isinstance(teacher.cached, bool) and (teacher.price is None or teacher.price.prompt == 0)
    with Cache(tmp_path / "c.sqlite") as cache:
        teacher.open(cache, ("run",))  # made, not entered
    assert "sk-" not in file.read_text()
