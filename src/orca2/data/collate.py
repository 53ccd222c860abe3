"""Packs -> tensors. The drawing of a micro-batch is at `records.MicroBatch`.

Padding is a document of its own, so that no example sees it and every row sums to the pack length.
Without isolation the examples of a pack are one document with positions that run on.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from orca2.data.rendered_rows import Rendered
from orca2.records import ExampleInfo, MicroBatch


def collate(packs: Sequence[Sequence[Rendered]], length: int, pad_id: int, isolate: bool) -> MicroBatch:
    """Flatten packs into one row of `len(packs) * length` tokens. A pack may be empty."""
    ids: list[NDArray[np.int32]] = []
    documents: list[int] = []
    label_positions: list[NDArray[np.int64]] = []
    labels: list[NDArray[np.int32]] = []
    infos: list[ExampleInfo] = []
    offset = 0
    for pack in packs:
        lengths = [len(row.ids) for row in pack]
        padding = length - sum(lengths)
        documents += lengths if isolate else [sum(lengths)] * bool(lengths)
        documents += [padding] * bool(padding)
        for row in pack:
            # The hidden state at t predicts token t + 1, so an example's first token is never a label.
            here = np.flatnonzero(row.loss_mask[1:])
            label_positions.append(here + offset)
            labels.append(row.ids[here + 1])
            ids.append(row.ids)
            infos.append(row.info)
            offset += len(row.ids)
        ids.append(np.full(padding, pad_id, dtype=np.int32))
        offset += padding
    counts = [len(part) for part in labels]
    return MicroBatch(
        ids_BT=_int64(ids)[None],
        positions_BT=_int64([np.arange(tokens) for tokens in documents])[None],
        lengths=tuple(documents),
        label_positions_N=_int64(label_positions),
        labels_N=_int64(labels),
        example_of_label_N=torch.from_numpy(np.repeat(np.arange(len(counts)), counts)),
        examples=tuple(infos),
    )


def _int64(parts: Sequence[NDArray[np.int32] | NDArray[np.int64]]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts, dtype=np.int64)) if parts else torch.empty(0, dtype=torch.int64)
