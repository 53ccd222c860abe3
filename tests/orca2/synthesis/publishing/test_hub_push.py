"""Pushing a data set: only on request, only what is meant for others, and never with the token in sight."""

from pathlib import Path
from typing import Any

import pytest

from orca2.errors import ConfigError, DataError
from orca2.synthesis.publishing.upload import PUBLISHED, push

SECRET = "hf_not-a-real-token-0123456789"


class FakeHub:
    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.error = error

    def create_repo(self, repo_id: str, **options: Any) -> None:
        if self.error:
            raise self.error
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))

    def upload_folder(self, **options: Any) -> None:
        self.calls.append(("upload_folder", options))


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    (tmp_path / "manifest.json").write_text("{}")
    return tmp_path


def test_a_finished_folder_becomes_a_private_data_set(finished: Path) -> None:
    """A public push by default cannot be taken back, and a cache holds prompts that are nobody's business."""
    hub = FakeHub()
    assert push(finished, "me/data", hub=hub) == "https://huggingface.co/datasets/me/data"
    (created, options), (uploaded, sent) = hub.calls
    assert (created, options["private"], options["repo_type"]) == ("create_repo", True, "dataset")
    assert (uploaded, sent["allow_patterns"], sent["folder_path"]) == ("upload_folder", list(PUBLISHED), str(finished))
    assert not any("sqlite" in pattern for pattern in PUBLISHED)


def test_a_synthesis_pushes_when_it_is_done_and_again_on_request(
    tmp_path: Path, data_sets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A switch that no command reaches, or a finished data set that would have to be made again to be pushed."""
    pushed = FakeHub()
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setattr("orca2.synthesis.publishing.upload._client", lambda secret: pushed)
    data_sets.make(tmp_path / "a", "size=14")
    assert pushed.calls == []
    printed = data_sets.make(tmp_path / "a", "size=14", "push_to_hub=me/data")
    assert "https://huggingface.co/datasets/me/data" in printed and len(pushed.calls) == 2
    data_sets.make(tmp_path / "b", "size=14", "push_to_hub=me/data", "hub_private=false")
    assert len(pushed.calls) == 4 and pushed.calls[2][1]["private"] is False
    for path in (tmp_path / "b").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match="HF_TOKEN"):
        data_sets.make(tmp_path / "c", "size=14", "push_to_hub=me/data")


def test_what_cannot_be_pushed_is_said_before_anything_is_sent(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends, after hours, at a missing token or a mistyped name."""
    hub = FakeHub()
    with pytest.raises(ConfigError, match="<owner>/<data set>"):
        push(finished, "data", hub=hub)
    (finished / "manifest.json").unlink()
    with pytest.raises(DataError, match="not finished"):
        push(finished, "me/data", hub=hub)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match="HF_TOKEN"):
        push(finished, "me/data", hub=hub)
    assert hub.calls == []


def test_errors_of_the_hub_are_one_message_without_the_token(finished: Path) -> None:
    """Some servers quote the credentials that they refuse."""
    with pytest.raises(DataError, match="403 for token") as caught:
        push(finished, "me/data", hub=FakeHub(RuntimeError(f"403 for token {SECRET}\nsecond line")))
    assert SECRET not in str(caught.value) and "second line" not in str(caught.value)
    assert caught.value.__cause__ is None
