"""Tensors of a micro-batch, exactly."""

import numpy as np
import torch

from orca2.data.collate import collate
from orca2.data.rendered_rows import Rendered
from orca2.records import ExampleInfo


def rendered(name, ids, mask):
    info = ExampleInfo(
        id=name, source="s", task="t", strategy="direct", useful_tokens=len(ids), label_tokens=sum(mask[1:])
    )
    return Rendered(info, np.array(ids, dtype=np.int32), np.array(mask, dtype=np.bool_))


A = rendered("a", [10, 11, 12, 13], [False, False, True, True])
B = rendered("b", [20, 21, 22], [False, False, True])
C = rendered("c", [30, 31], [True, True])


def test_isolated_packs_with_padding():
    """Each example is a document; padding is one more; labels stay within their example."""
    batch = collate([[A, B], [C]], length=8, pad_id=0, isolate=True)
    assert batch.ids_BT.tolist() == [[10, 11, 12, 13, 20, 21, 22, 0, 30, 31, 0, 0, 0, 0, 0, 0]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 3, 0, 1, 2, 0, 0, 1, 0, 1, 2, 3, 4, 5]]
    assert batch.lengths == (4, 3, 1, 2, 6)
    assert batch.label_positions_N.tolist() == [1, 2, 5, 8]
    assert batch.labels_N.tolist() == [
        12,
        13,
        22,
        31,
    ]  # not 30: the first token of an example has no predecessor
    assert batch.example_of_label_N.tolist() == [0, 0, 1, 2]
    assert [info.id for info in batch.examples] == ["a", "b", "c"]


def test_joined_packs_run_on_but_padding_stays_apart():
    """Without isolation an example sees those before it, never the padding, never another pack."""
    batch = collate([[A, B], [C]], length=8, pad_id=0, isolate=False)
    assert batch.positions_BT.tolist() == [[0, 1, 2, 3, 4, 5, 6, 0, 0, 1, 0, 1, 2, 3, 4, 5]]
    assert batch.lengths == (7, 1, 2, 6)
    assert batch.label_positions_N.tolist() == [1, 2, 5, 8]


def test_full_pack_has_no_padding_document():
    """A document of zero tokens breaks the attention kernels."""
    assert collate([[A]], length=4, pad_id=0, isolate=True).lengths == (4,)
    assert collate([[A]], length=4, pad_id=0, isolate=False).lengths == (4,)


def test_empty_pack_is_padding_without_labels():
    """Every rank does the same number of forward passes, even with nothing left to do."""
    batch = collate([[]], length=4, pad_id=9, isolate=True)
    assert batch.ids_BT.tolist() == [[9, 9, 9, 9]]
    assert batch.lengths == (4,)
    assert batch.label_positions_N.shape == batch.labels_N.shape == batch.example_of_label_N.shape == (0,)


def test_all_tensors_are_int64():
    """Embedding and cross-entropy want int64; a rank without labels must agree in type."""
    for packs in ([[A]], [[]]):
        batch = collate(packs, length=8, pad_id=0, isolate=True)
        tensors = [value for value in batch if isinstance(value, torch.Tensor)]
        assert len(tensors) == 5
        assert {tensor.dtype for tensor in tensors} == {torch.int64}
        assert sum(batch.lengths) == batch.ids_BT.shape[1] == batch.positions_BT.shape[1]
