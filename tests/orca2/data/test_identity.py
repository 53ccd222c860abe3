"""A run that resumes must read the rows that it began with."""

import json

import pytest

from orca2.data import identity
from orca2.data.identity import changed, digests_of, require_everywhere
from orca2.data.mixture import Mixture
from orca2.data.procedural import ProceduralSource
from orca2.errors import CheckpointError, DataError
from orca2.rows.row_files import FileSource
from orca2.runs import RunDirectory


@pytest.fixture
def mine(tmp_path):
    """A source whose file holds the given answers."""

    def make(*answers, name="mine.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps({"user": "u", "answer": answer}) + "\n" for answer in answers))
        return FileSource(name="mine", path=str(path), layout="auto", cache_dir=str(tmp_path / "cache"))

    return make


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.open_or_resume({"seed": 1}, [])
    return run


def require_same(run, digests):
    identity.require_same(run, digests, begun=run.checkpoints.exists())


def test_an_edited_file_is_refused_by_a_run_that_has_begun(mine, run):
    """The order of rows is computed from their numbers: after an edit, other rows would stand at the same places."""
    require_same(run, digests_of(mine("a", "b")))
    (run.checkpoints / "step-1").mkdir(parents=True)
    require_same(run, digests_of(mine("a", "b", name="copy.jsonl")))
    edited = digests_of(mine("a", "c"))
    assert changed(run, edited) == ["mine"]
    with pytest.raises(CheckpointError) as caught:
        require_same(run, edited)
    assert "began with other rows" in str(caught.value) and "source 'mine': digest" in str(caught.value)
    assert "name=<name>" in str(caught.value)
    require_same(run, digests_of(mine("a", "b")))


def test_a_run_without_a_checkpoint_takes_the_mended_file(mine, run):
    """Mending the rows after a failed start is what everybody does."""
    require_same(run, digests_of(mine("a")))
    mended = digests_of(mine("b"))
    require_same(run, mended)
    assert json.loads(run.manifest.read_text())["data"] == mended and not changed(run, mended)


def test_a_run_from_before_digests_goes_on(mine, run):
    """An update of this project must not strand the runs of last week."""
    (run.checkpoints / "step-1").mkdir(parents=True)
    digests = digests_of(mine("a"))
    require_same(run, digests)
    assert json.loads(run.manifest.read_text())["data"] == digests


def test_members_have_digests_of_their_own(mine):
    """Generated rows follow from the config, and have none."""
    toy = ProceduralSource(name="toy", size=3, seed=1, split="train", level=1, families=None)
    mixture = Mixture(name="m", members={"mine": mine("a"), "toy": toy}, when_exhausted="continue")
    assert list(digests_of(mixture)) == ["mine"]


def test_machines_with_different_copies_are_found():
    """Each rank reads its own disk; two copies of a file would be two data sets in one run."""
    require_everywhere([{"mine": "a"}, {"mine": "a"}])
    with pytest.raises(DataError, match="rank 1 reads other rows of source 'mine' than rank 0"):
        require_everywhere([{"mine": "a"}, {"mine": "b"}])
