"""Safetensors files of a model: where each tensor lies, checked by the headers, and reading some of its rows.

    8 bytes    length of the header
    header     {"model.norm.weight": {"dtype": "F32", "shape": [2048], "data_offsets": [0, 8192]}, ...}
    data       the tensors, one after the other, row by row

The format: https://huggingface.co/docs/safetensors. Reading with `pread` keeps the file out of the process's memory.
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor

from orca2.errors import ModelError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}

_LONGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor in one file."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    """Offset of its first byte in the file."""

    def read_into(self, rows: Tensor, first: int, block_bytes: int) -> None:
        """Fill `rows` with as many rows of this tensor from number `first`, converting to its dtype and device.

        Takes `block_bytes` of memory, or one row if that is more. Raises ModelError where the file ends early.
        """
        if not rows.numel():
            return
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        at_once = max(1, min(block_bytes // row_bytes, len(rows)))
        buffer = torch.empty(at_once * row_bytes, dtype=torch.uint8)
        with self.path.open("rb", buffering=0) as file:
            for done in range(0, len(rows), at_once):
                count = min(at_once, len(rows) - done)
                view: Any = memoryview(buffer.numpy())[: count * row_bytes]  # type: ignore[arg-type]
                _read(file.fileno(), view, self.begin + (first + done) * row_bytes, self.path)
                block = buffer[: count * row_bytes].view(self.dtype)
                rows[done : done + count].copy_(block.view(count, *self.shape[1:]))


def stored_tensors(weights: str) -> dict[str, StoredTensor]:
    """Every tensor of a model, by name, from a folder or a hub id; reads headers only.

    Raises ModelError for files that are missing, truncated or damaged.
    """
    found: dict[str, StoredTensor] = {}
    for path in _files(weights):
        found |= _header(path)
    return found


def _files(weights: str) -> list[Path]:
    index = _file(weights, INDEX)
    if index is None:
        single = _file(weights, SINGLE)
        if single is not None:
            return [single]
        others = sorted(Path(weights).glob("*.safetensors"))
        if len(others) == 1:
            return others
        raise ModelError(f"weights={weights!r}: neither {INDEX} nor {SINGLE} is there")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{index}: not an index of safetensors files ({type(error).__name__}: {error})") from error
    paths = {name: _file(weights, name) for name in names}
    if missing := [name for name, path in paths.items() if path is None]:
        raise ModelError(f"{index} names {missing[0]}, which is not there ({len(missing)} of {len(names)} are missing)")
    return [path for path in paths.values() if path is not None]


def _file(weights: str, name: str) -> Path | None:
    if os.sep in name or name in ("", ".", ".."):
        raise ModelError(f"weights={weights!r}: the index names {name!r}, which is not a file of its folder")
    if Path(weights).is_dir():
        path = Path(weights) / name
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(weights, name))
    except EntryNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"weights={weights!r}: {name} cannot be fetched: {str(error).splitlines()[0]}") from error


def _header(path: Path) -> dict[str, StoredTensor]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(_LONGEST_HEADER, size):
                raise ModelError(
                    f"{path}: its header claims {length:,} bytes of {size:,}; truncated, or no safetensors"
                )
            header = json.loads(file.read(length))
        tensors = {
            name: _stored(path, entry, 8 + length, size) for name, entry in header.items() if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, AttributeError, TypeError, struct.error) as error:
        raise ModelError(f"{path}: not a whole safetensors file ({type(error).__name__}: {error})") from error
    return tensors


def _stored(path: Path, entry: Mapping[str, Any], data: int, size: int) -> StoredTensor:
    if entry["dtype"] not in _DTYPES:
        raise ModelError(f"{path}: {entry['dtype']} tensors cannot be trained; save the model in BF16 or F32")
    dtype, shape = _DTYPES[entry["dtype"]], tuple(map(int, entry["shape"]))
    begin, end = entry["data_offsets"]
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"a tensor of {list(shape)} has {end - begin} bytes")
    if data + end > size:
        raise ModelError(f"{path}: {size:,} bytes of at least {data + end:,}; it is truncated")
    return StoredTensor(path, dtype, shape, data + begin)


def _read(descriptor: int, buffer: memoryview, offset: int, path: Path) -> None:
    done = 0
    while done < len(buffer):
        got = os.preadv(descriptor, [buffer[done:]], offset + done)
        if got == 0:
            raise ModelError(f"{path} ended at byte {offset + done:,} while it was read: it is truncated")
        done += got
