"""The datamodule under Lightning, with the real renderer: from source rows to steps, stopped and resumed."""

import json
import os
from collections import Counter
from pathlib import Path

import lightning as L
import pytest
import torch

from datamodules.erased_prompts import ErasedPromptDataModule
from orca2.data.loader import rows_settled
from orca2.data.packing import PackingSpec
from orca2.data.procedural import ProceduralSource
from orca2.erasing import FixedErasing
from orca2.errors import ConfigError, DataError
from orca2.rendering.format import ChatFormat
from orca2.rendering.renderer import Renderer
from orca2.rendering.tokenizers import prepare_tokenizer, train_byte_bpe
from orca2.rows.row_files import FileSource
from orca2.strategies import Strategy

SHARED = Path(os.environ.get("ORCA2_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
GSM8K = SHARED / "benchmarks" / "gsm8k" / "train.jsonl"
GENERIC = "Answer with care."
SOURCE = ProceduralSource(name="p", size=150, seed=17, split="train", level=1)


@pytest.fixture(scope="module")
def renderer():
    """A small byte-level tokenizer with the ChatML markup."""
    choice = Strategy(name="step_by_step", instruction="Work in steps.")
    texts = [text for row in range(40) for text in (SOURCE.read(row, choice).user, SOURCE.read(row, choice).answer)]
    tokenizer = train_byte_bpe(texts, vocab_size=600)
    chatml = ChatFormat(
        name="chatml",
        start="<|im_start|>",
        end="<|im_end|>",
        pad="<|pad|>",
        after_role="\n",
        between_turns="\n",
        bos=False,
    )
    prepare_tokenizer(tokenizer, chatml)
    return Renderer(tokenizer, chatml)


@pytest.fixture
def make(renderer):
    def make(**changes):
        packing = {"name": "t", "length": 512, "isolate": True, "waiting": 16, "lanes": 1}
        packing |= {key: changes.pop(key) for key in list(changes) if key in packing}
        named = {
            "source": SOURCE,
            "strategy": Strategy(name="step_by_step", instruction="Work in steps."),
            "erasing": FixedErasing(name="generic", message=GENERIC),
            "renderer": renderer,
            "packing": PackingSpec(**packing),
            "epochs": 2,
            "packs_per_step": 4,
            "packs_per_micro_batch": 2,
            "workers": 0,
            "seed": 3,
        }
        return ErasedPromptDataModule(**named | changes)

    return make


class Recorder(L.LightningModule):
    """Trains nothing; writes down what it gets. Notes the `position` after `stop` steps and stops there."""

    def __init__(self, stop=None):
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.stop = stop
        self.position = None
        self.seen = []

    def configure_optimizers(self):
        return None

    def training_step(self, batch, _index):
        self.seen.append((batch.step, [micro.ids_BT.tolist() for micro in batch.micro_batches]))
        self.trainer.datamodule.settle(batch)

    def on_train_batch_end(self, *_):
        if len(self.seen) == self.stop:
            self.position = json.loads(json.dumps(self.trainer.datamodule.state_dict()))
            self.trainer.should_stop = True


def fit(module, data, folder):
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    trainer.fit(module, datamodule=data)


def test_what_the_student_sees(make, renderer):
    """The teacher's instruction must be gone, the generic message there, and the loss on the answer alone."""
    batch = next(iter(make().train_dataloader()))
    micro = batch.micro_batches[0]
    text = renderer.decode_marked(micro.ids_BT[0].tolist())
    assert "Work in steps." not in text
    assert text.count(GENERIC) == len(micro.examples) > 1
    for number, info in enumerate(micro.examples):
        row = SOURCE.read(int(info.id.removeprefix("p/")), Strategy(name="step_by_step", instruction="x"))
        labels = micro.labels_N[micro.example_of_label_N == number].tolist()
        assert renderer.decode_marked(labels) == f"{row.answer}<|im_end|>"
        assert info.label_tokens == len(labels)
    assert torch.equal(micro.ids_BT[0, micro.label_positions_N + 1], micro.labels_N)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("stop", [1, 5])
def test_lightning_stops_and_resumes_exactly(make, tmp_path, stop):
    """Lightning fetches a step ahead; the checkpoint must point behind the last step that was trained on."""
    whole = Recorder()
    fit(whole, make(), tmp_path)
    assert [step for step, _ in whole.seen] == list(range(len(whole.seen)))
    assert len(whole.seen) > 8
    first, second = Recorder(stop), Recorder()
    fit(first, make(), tmp_path)
    data = make(workers=1)
    data.load_states([first.position], rank=0, world=1)
    fit(second, data, tmp_path)
    assert first.seen + second.seen == whole.seen
    assert rows_settled(data.state_dict()["position"]) == data.total_rows == 300
    assert data.report.rows == 300


def test_every_row_once_per_epoch(make):
    """Through the whole pipeline, with the real renderer."""
    data = make(lanes=2)
    steps = list(data.train_dataloader())
    seen = Counter(info.id for step in steps for micro in step.micro_batches for info in micro.examples)
    assert seen == {f"p/{row}": 2 for row in range(150)}
    assert sum(step.rows for step in steps) == data.total_rows


def test_rejected_rows_are_written_as_they_come(make, tmp_path):
    """A run of days must show what it drops before it ends."""
    path = tmp_path / "rejected.jsonl"
    file = tmp_path / "rows.jsonl"
    rows = [json.dumps({"q": f"{row}+1?", "a": str(row + 1)}) for row in range(40)]
    file.write_text("\n".join([*rows[:20], "not JSON", '{"q": "x"}', *rows[20:]]))
    source = FileSource(
        name="f",
        path=str(file),
        layout="columns",
        columns={"user": "q", "answer": "a"},
        cache_dir=str(tmp_path),
    )
    data = make(source=source, rejected_path=path, epochs=1)
    data.prepare_data()
    data.setup("fit")
    assert data.survey.kept == 42  # broken rows are found when they are read
    for batch in data.train_dataloader():
        data.settle(batch)
    assert {json.loads(line)["row"] for line in path.read_text().splitlines()} == {"line 21", "line 22"}
    assert data.report.summary()["kept"] == 40


def test_a_choice_that_leaves_nothing_stops_at_setup(make):
    """Before any weight is loaded."""
    with pytest.raises(DataError, match="leaves no example"):
        make(strategy=Strategy(name="unheard_of", instruction="x")).setup("fit")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"packs_per_step": 0}, "packs_per_step=0 and"),
        ({"packs_per_micro_batch": 0}, "packs_per_micro_batch=0 must be 1 or more"),
        ({"lanes": 3}, "not a multiple of packing.lanes=3"),
        ({"epochs": 0}, "epochs=0 must be 1 or more"),
        ({"workers": -1}, "workers=-1"),
    ],
)
def test_wrong_numbers_are_refused_at_once(make, changes, message):
    """Not in the middle of a run."""
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_moving_a_batch_keeps_everything_but_the_device(make):
    """Lightning's own way fails on frozen records."""
    data = make()
    batch = next(iter(data.train_dataloader()))
    moved = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert {value.device.type for value in moved.micro_batches[0] if isinstance(value, torch.Tensor)} == {"meta"}
    assert moved.micro_batches[0].examples == batch.micro_batches[0].examples
    assert moved._replace(micro_batches=()) == batch._replace(micro_batches=())


@pytest.mark.skipif(not GSM8K.exists(), reason="needs $ORCA2_SHARED_DATA/benchmarks/gsm8k/train.jsonl")
def test_gsm8k_fills_its_packs(make, tmp_path):
    """At least 98 % of the tokens of an epoch must be real ones, tail included."""
    source = FileSource(name="gsm8k", path=str(GSM8K), layout="gsm8k", cache_dir=str(tmp_path))
    data = make(source=source, length=2048, waiting=64, epochs=1, packs_per_step=8)
    data.prepare_data()
    for batch in data.train_dataloader():
        data.settle(batch)
    assert data.report.kept == data.report.rows == 7473
    assert data.report.utilisation >= 0.98
    assert len(json.dumps(data.state_dict())) < 8000
