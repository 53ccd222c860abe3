"""A second real server: a tiny student behind `transformers serve` answers through the same client and command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from orca2.modelling.build import build_model, build_tokenizer
from orca2.modelling.export import export_student
from orca2.modelling.spec import ModelSpec
from orca2.rendering import ChatFormat
from orca2.rendering.renderer import Renderer
from tests.loopback.transformers_serve import needs_serve, served

ROOT = Path(__file__).parents[4]
FORMAT = ChatFormat("chatml", "<|im_start|>", "<|im_end|>", "[PAD]", "\n", "\n", "auto")
ANSWER = "Answer: 7"
pytestmark = needs_serve


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that has learnt one sentence and where it ends, exported as training does."""
    architecture = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "tie_word_embeddings": True,
    }  # fmt: skip
    spec = ModelSpec(name="test", architecture=architecture, tokenizer_vocabulary=600, max_len=1024)
    tokenizer = build_tokenizer(spec, FORMAT, "x")
    renderer = Renderer(tokenizer, FORMAT)
    model = build_model(spec, tokenizer, seed=0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(60):
        ids, mask = renderer.example("Be brief." * (step % 3), f"What is {step} + {step % 7}?", ANSWER)
        labels = [token if counted else -100 for token, counted in zip(ids, mask, strict=True)]
        loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.05
    folder = tmp_path_factory.mktemp("served") / "student"
    export_student(model.eval(), tokenizer, folder, {"format": "chatml"})
    return folder


@pytest.mark.slow
def test_a_served_student_answers_a_synthesis(student: Path, tmp_path: Path) -> None:
    """A client that only works with the server of the tests: other fields, a pinned model, its own chat template."""
    out = tmp_path / "out"
    with served(student) as url:
        command = [
            sys.executable, "synthesize.py", "tasks=procedural", "strategy=direct", "teacher=transformers_server",
            f"teacher.model={student}", f"teacher.base_url={url}", "teacher.max_tokens=16", "size=28", f"out_dir={out}",
        ]  # fmt: skip
        env = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    output = json.loads((out / "manifest.json").read_text())["output"]
    rows = [row for path in sorted((out / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert len(rows) == output["examples"] > 0 and output["failures"] == {}
    assert {row["answer"] for row in rows} == {ANSWER}
    assert all(str(student) in row["teacher"] for row in rows)
    assert output["usage"]["completion_tokens"] > 0
