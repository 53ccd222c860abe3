"""One rank of a process group that loads students sharded; `test_loading` starts and judges it.

    python loading_worker.py <folder> <jobs.json>      RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are set

For each job (a name and the fields of a ModelSpec) it writes <folder>/<name>-<ranks>.safetensors with all weights
after loading, and the losses of one row.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from orca2.modelling.build import build_tokenizer
from orca2.modelling.loading import defer_model
from orca2.modelling.selftest import check_student
from orca2.modelling.sharding import build_mesh, full_weights, shard
from orca2.modelling.spec import ModelSpec
from orca2.modelling.student_model import StudentForLoss
from orca2.settings import build, compose_config


def main(folder: Path, jobs: dict[str, dict[str, object]]) -> None:
    dist.init_process_group("gloo")
    chat = build(compose_config("train").format)
    for name, fields in jobs.items():
        spec = ModelSpec(name=name, max_len=256, **fields)  # type: ignore[arg-type]
        deferred = defer_model(spec, build_tokenizer(spec, chat), seed=7)
        student = StudentForLoss(deferred.model, "sdpa")
        shard(student, build_mesh("cpu", dist.get_world_size()), torch.float32)
        deferred.materialise(student, torch.device("cpu"))
        check_student(student)  # a forward pass: gathered, tied and with its buffers
        weights = {key: value.contiguous() for key, value in full_weights(student.model)}
        if dist.get_rank() == 0:
            save_file(weights, folder / f"{name}-{dist.get_world_size()}.safetensors")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
