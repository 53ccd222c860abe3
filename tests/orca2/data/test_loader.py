"""The promises of the training loader, with exact ids."""

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from orca2.data.loader import StepShape, merge_states, rows_settled
from orca2.errors import CheckpointError, ConfigError, DataError

WORLDS = (1, 2, 4)


def steps_of_ranks(make_loader, source, world, **changes):
    return [list(make_loader(source, world=world, rank=rank, **changes)) for rank in range(world)]


def contents(packs_of, ranks):
    """Step -> the packs of all ranks, in the order of their numbers; empty steps at the end left out."""
    steps = []
    for step in range(max(len(steps) for steps in ranks)):
        packs = [packs_of(steps[step]) if step < len(steps) else [] for steps in ranks]
        steps.append(sorted(pack for own in packs for pack in own))
    while steps and not steps[-1]:
        steps.pop()
    return steps


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_every_example_once_per_epoch(make_loader, random_lengths, lanes):
    """An example that is lost or repeated changes the data set in silence."""
    source = random_lengths(300, 32)
    steps = list(make_loader(source, lanes=lanes))
    seen = Counter(info.id for step in steps for micro in step.micro_batches for info in micro.examples)
    rejected = Counter(row.row for step in steps for row in step.rejected)
    good = {f"lengths/{row}" for row, length in enumerate(source.lengths) if 0 < length <= 32}
    assert len(good) > 250 and len(rejected) > 5
    assert seen == dict.fromkeys(good, 2)
    assert seen.total() + rejected.total() == 600 == sum(step.rows for step in steps)


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_steps_are_the_same_for_any_ranks_and_workers(make_loader, random_lengths, packs_of, lanes, workers):
    """A run on more devices or workers would otherwise be another experiment."""
    source = random_lengths(150, 32)
    reference = contents(packs_of, steps_of_ranks(make_loader, source, 1, lanes=lanes, epochs=1))
    assert len(reference) > 8
    for world in WORLDS:
        ranks = steps_of_ranks(make_loader, source, world, lanes=lanes, epochs=1, workers=workers)
        assert contents(packs_of, ranks) == reference
        assert sum(step.rows for steps in ranks for step in steps) == 150


@pytest.mark.parametrize("lanes", [1, 2])
def test_ranks_that_see_every_lane_end_together(make_loader, random_lengths, lanes):
    """A rank with one step more waits for the others forever."""
    ranks = steps_of_ranks(make_loader, random_lengths(90, 32), 3, packs_per_step=6, lanes=lanes)
    shapes = [[len(step.micro_batches) for step in steps] for steps in ranks]
    assert shapes[0] == shapes[1] == shapes[2]


def test_ranks_that_share_lanes_end_together(make_loader, lengths_source):
    """Lanes run dry at different times; a rank that stops alone leaves the others waiting forever."""
    source = lengths_source(tuple([30, 3] * 32))
    assert len({len(steps) for steps in steps_of_ranks(make_loader, source, 2, lanes=2, packs_per_step=2)}) == 2
    barrier = threading.Barrier(2, timeout=20)
    flags = [False, False]

    def run(rank):
        def everyone_done(mine):
            flags[rank] = mine
            barrier.wait()
            answer = all(flags)
            barrier.wait()
            return answer

        return list(make_loader(source, world=2, rank=rank, lanes=2, packs_per_step=2, everyone_done=everyone_done))

    with ThreadPoolExecutor(2) as pool:
        ranks = list(pool.map(run, range(2)))
    assert len(ranks[0]) == len(ranks[1]) > 30
    assert sum(step.rows for steps in ranks for step in steps) == 128


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_stop_anywhere_and_resume_with_other_ranks_and_workers(make_loader, random_lengths, packs_of, lanes):
    """An interrupted run must see the same tokens as one that was not, also across the border of epochs."""
    source = random_lengths(120, 32)
    whole = contents(packs_of, steps_of_ranks(make_loader, source, 1, lanes=lanes))
    assert len(whole) > 12
    for stop in range(0, len(whole) - 1):
        before, after = WORLDS[stop % 3], WORLDS[(stop + 1) % 3]
        go_on = {"world": before, "lanes": lanes, "everyone_done": lambda mine: False}
        ranks = [make_loader(source, rank=rank, **go_on) for rank in range(before)]
        states = []
        for loader in ranks:
            for batch in loader:
                if batch.step == stop:
                    states.append(json.loads(json.dumps(loader.state_after(batch))))
                    break
        state = merge_states(states)
        rest = steps_of_ranks(make_loader, source, after, lanes=lanes, state=state, workers=2 * (stop % 5 == 0))
        assert {steps[0].step for steps in rest if steps} == {stop + 1}
        assert contents(packs_of, rest) == whole[stop + 1 :]
        assert rows_settled(state) + sum(step.rows for steps in rest for step in steps) == 240


def test_state_after_the_last_step_leaves_nothing(make_loader, random_lengths):
    """Resuming a finished stage must not train on anything twice."""
    loader = make_loader(random_lengths(60, 32))
    *_, last = loader
    state = loader.state_after(last)
    assert rows_settled(state) == 120
    assert list(make_loader(random_lengths(60, 32), state=state)) == []


def test_state_is_a_few_kilobytes(make_loader, random_lengths):
    """A checkpoint that grows with the data would not fit a long run."""
    loader = make_loader(random_lengths(4000, 256), length=2048, waiting=64, epochs=1)
    sizes = [len(json.dumps(loader.state_after(batch))) for batch in loader]
    assert len(sizes) > 20
    assert max(sizes) < 16_000


def test_rejected_rows_are_settled_though_no_pack_follows(make_loader, lengths_source):
    """The schedule would never reach its end if the last rows of a stage were not counted."""
    steps = list(make_loader(lengths_source((5, 0, 0, 40)), epochs=1))
    assert sum(step.rows for step in steps) == 4
    assert sorted(row.kind for step in steps for row in step.rejected) == ["broken", "broken", "too_long"]
    only_broken = list(make_loader(lengths_source((0, 0)), epochs=1))
    assert [(step.rows, step.label_tokens, len(step.micro_batches)) for step in only_broken] == [(2, 0, 1)]


def test_too_long_is_rejected_with_its_length(make_loader, lengths_source):
    """Cutting would teach answers without an end."""
    (step,) = make_loader(lengths_source((33, 32)), epochs=1)
    assert [(row.kind, row.row, row.reason) for row in step.rejected] == [
        ("too_long", "lengths/0", "33 tokens do not fit into a pack of 32")
    ]
    assert [info.id for micro in step.micro_batches for info in micro.examples] == ["lengths/1"]


def test_a_source_without_a_usable_row_ends(make_loader, lengths_source):
    """A stage that ends by its tokens has no last epoch: it would read such a source forever."""
    loader = make_loader(lengths_source([65, 65]), epochs=2**31)
    with pytest.raises(DataError, match=r"no row of a whole epoch can be used; .* 65 tokens do not fit"):
        list(loader)


def test_token_counts_of_a_step(make_loader, lengths_source):
    """Utilisation and throughput are computed from these."""
    (step,) = make_loader(lengths_source((30, 30)), epochs=1, packs_per_micro_batch=2)
    assert (step.useful_tokens, step.label_tokens, step.padding_tokens) == (60, 20, 4)
    assert [micro.ids_BT.shape for micro in step.micro_batches] == [(1, 64)]


def test_empty_micro_batches_at_the_end_are_left_out(make_loader, lengths_source):
    """A forward pass over nothing but padding is wasted."""
    (step,) = make_loader(lengths_source((30, 30)), epochs=1)
    assert len(step.micro_batches) == 2


def test_another_stage_is_refused(make_loader, random_lengths):
    """Continuing with other packs would silently skip and repeat rows."""
    loader = make_loader(random_lengths(60, 32))
    state = loader.state_after(next(iter(loader)))
    with pytest.raises(CheckpointError, match=r"length: 32 -> 40.*restore the settings"):
        next(iter(make_loader(random_lengths(60, 32), length=40, state=state)))


@pytest.mark.parametrize(("length", "now"), [(0, 0), (6, 6)])
def test_changed_data_is_refused(make_loader, lengths_source, length, now):
    """A waiting example that is no longer what it was breaks the promise of an exact resume."""
    loader = make_loader(lengths_source((7,) * 40), epochs=1)
    state = loader.state_after(next(iter(loader)))
    with pytest.raises(CheckpointError, match=f"has {now} usable tokens, and 7 in the checkpoint"):
        list(make_loader(lengths_source((length,) * 40), epochs=1, state=state))


def test_states_of_different_steps_do_not_merge(make_loader, random_lengths):
    """Two ranks at different steps do not make a position."""
    loader = make_loader(random_lengths(60, 32))
    first, second, *_ = (loader.state_after(batch) for batch in loader)
    with pytest.raises(CheckpointError, match=r"different steps \[1, 2\]"):
        merge_states([first, second])


def test_missing_lane_is_named(make_loader, random_lengths):
    """A state of one rank only cannot continue the lanes of the others."""
    loader = make_loader(random_lengths(60, 32), world=2, lanes=2)
    state = loader.state_after(next(iter(loader)))
    with pytest.raises(CheckpointError, match=r"holds lanes \[0\] but not lane 1"):
        next(iter(make_loader(random_lengths(60, 32), lanes=2, state=state)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"packs_per_step": 6, "world": 4}, r"multiple of 4, such as 8"),
        ({"packs_per_step": 6, "lanes": 4}, r"set lanes to a divisor, such as 2"),
        ({"packs_per_step": 0}, "must be 1 or more"),
    ],
)
def test_uneven_steps_are_refused_with_a_remedy(make_loader, lengths_source, changes, message):
    """Ranks with different numbers of packs would wait for each other forever."""
    with pytest.raises(ConfigError, match=message):
        next(iter(make_loader(lengths_source((5,)), **changes)))


@pytest.mark.parametrize(("asked", "world", "taken"), [(3, 1, 2), (4, 1, 4), (2, 4, 1), (2, 2, 2)])
def test_a_micro_batch_is_an_even_share(asked, world, taken):
    """The same command must run on more ranks, where a step's share of each is smaller than a micro-batch."""
    assert StepShape(packs_per_step=4, packs_per_micro_batch=asked, world=world).micro_batch == taken


def test_an_error_in_a_worker_arrives_as_itself(make_loader, lengths_source):
    """A user must read one line, not the traceback of a worker process."""

    class Failing(lengths_source):
        def read(self, row, choice):
            raise ConfigError("family 'x' has levels [1, 2, 3], not 9")

    with pytest.raises(ConfigError) as caught:
        list(make_loader(Failing((5,)), workers=1))
    assert str(caught.value) == "family 'x' has levels [1, 2, 3], not 9"


def test_unrenderable_answer_is_broken(make_loader, lengths_source):
    """One bad row must not end a run of days."""
    (step,) = make_loader(lengths_source((5, 6)), epochs=1)
    assert step.rejected == ()

    class Unspeakable(lengths_source):
        def read(self, row, choice):
            from dataclasses import replace

            example = super().read(row, choice)
            return replace(example, answer="unspeakable") if row == 1 else example

    (step,) = make_loader(Unspeakable((5, 6)), epochs=1)
    assert [(row.kind, row.row, row.reason) for row in step.rejected] == [
        ("broken", "lengths/1", "the answer cannot be rendered")
    ]
