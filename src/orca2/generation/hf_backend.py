"""`backend=hf`: the student in this process, by transformers, in continuous batches."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from orca2.errors import ConfigError, ModelError
from orca2.generation.hf import HFGenerator, end_ids_of
from orca2.generation.protocol import Backend, Format, StudentFiles
from orca2.generation.students import find_student
from orca2.generation.tokens import TokenBackend, context_of, load_renderer
from orca2.modelling.build import READ_ERRORS

Device = Literal["auto", "cpu", "cuda"]
StudentDtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class HFSpec:
    """Greedy decoding of a student in memory. Only safetensors are read, and no code that a model brings.

    Raises:
        ConfigError: a value that cannot be used.
    """

    name: str
    device: Device
    """`auto`: CUDA where there is one; several processes take one device each."""
    dtype: StudentDtype
    """Type of the weights. `auto`: float32 on a CPU, bfloat16 on CUDA. In 16 bits, what a prompt is batched with can
    change the rounding, and so a greedy answer."""
    batch_tokens: int
    """Room of the cache in tokens, prompts and answers of all rows together. Changes no answer in float32."""
    max_len: int | None
    """Context in tokens; None: the student's own."""

    def __post_init__(self) -> None:
        if self.device not in get_args(Device) or self.dtype not in get_args(StudentDtype):
            raise ConfigError(
                f"backend.device = {self.device!r}, backend.dtype = {self.dtype!r}: choose from {get_args(Device)} "
                f"and {get_args(StudentDtype)}"
            )
        if self.batch_tokens < 1 or (self.max_len is not None and self.max_len < 2):
            raise ConfigError(
                f"backend.batch_tokens = {self.batch_tokens}, backend.max_len = {self.max_len}: too small"
            )
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("backend.device = 'cuda': no CUDA device is visible; choose auto or cpu")

    def find(self, student: str | None) -> StudentFiles:
        return find_student(student)

    @contextmanager
    def open(self, student: StudentFiles, format: Format, local_rank: int) -> Iterator[Backend]:
        renderer = load_renderer(student, format)
        context = context_of(student, self.max_len)
        device, dtype = self._placement(local_rank)
        model = load_model(student, dtype, device)
        end_ids = {renderer.end_id} | end_ids_of(model)
        generator = HFGenerator(model, renderer.pad_id, end_ids, context, self.batch_tokens)
        ends = " ".join(map(str, sorted(end_ids)))
        identity = {"backend": "hf", "student": student.fingerprint, "dtype": str(dtype), "end_ids": ends}
        yield TokenBackend(renderer, generator.stream, context, identity)

    def _placement(self, local_rank: int) -> tuple[torch.device, torch.dtype]:
        cuda = self.device == "cuda" or (self.device == "auto" and torch.cuda.is_available())
        device = torch.device("cuda", local_rank % torch.cuda.device_count()) if cuda else torch.device("cpu")
        if self.dtype != "auto":
            return device, getattr(torch, self.dtype)
        return device, torch.bfloat16 if cuda else torch.float32


def load_model(student: StudentFiles, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The student's weights. Raises ModelError where they are missing or damaged, or do not fit on the device."""
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            student.location, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
        model = model.eval().to(device)
    except READ_ERRORS as error:
        raise ModelError(f"student {student.location} cannot be loaded: {error}") from error
    assert isinstance(model, PreTrainedModel)
    return model
