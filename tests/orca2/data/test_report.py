"""The accounts of a stage."""

import json

from orca2.data.report import DataReport, list_of_rank, merge_lists, summed
from orca2.records import Rejected


def test_counts_and_list(make_loader, random_lengths, tmp_path):
    """Rows must add up over the epochs; the list holds each rejected row once."""
    report, path = DataReport(), tmp_path / "rejected.jsonl"
    source = random_lengths(300, 32)
    for step in make_loader(source):
        report.add(step)
        report.write_rejected(path)
    summary = report.summary()
    broken, too_long = source.lengths.count(0), source.lengths.count(33)
    assert broken > 3 and too_long > 3
    assert (summary["rows"], summary["broken"], summary["too_long"]) == (600, 2 * broken, 2 * too_long)
    assert summary["kept"] == 600 - 2 * broken - 2 * too_long
    listed = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(listed) == broken + too_long
    assert len({row["row"] for row in listed}) == len(listed)
    assert {"kind": "broken", "source": "lengths", "reason": "no tokens"}.items() <= next(
        row for row in listed if row["kind"] == "broken"
    ).items()
    assert [entry.name for entry in tmp_path.iterdir()] == ["rejected.jsonl"]


def test_utilisation_counts_packs_that_hold_an_example(make_loader, lengths_source):
    """Padding of empty packs at the end of a stage is not waste of the packer."""
    report = DataReport()
    for step in make_loader(lengths_source((24,)), epochs=1, packs_per_micro_batch=4):
        report.add(step)
    assert (report.useful_tokens, report.label_tokens, report.padding_tokens) == (24, 8, 8)
    assert report.utilisation == 0.75


def test_a_resumed_report_lists_no_row_twice(make_loader, random_lengths, tmp_path):
    """The list on disk outlives the process; a line cut off by a crash is dropped."""
    path = tmp_path / "rejected.jsonl"
    first, second = DataReport(), DataReport()
    steps = list(make_loader(random_lengths(300, 32)))
    for step in steps[:4]:
        first.add(step)
    first.write_rejected(path)
    before = len(path.read_text().splitlines())
    assert before > 1
    with path.open("a") as file:
        file.write('{"kind": "bro')
    second.load_states([first.state_dict()])
    for step in steps:
        second.add(step)
    second.write_rejected(path)
    rows = [json.loads(line)["row"] for line in path.read_text().splitlines()]
    assert len(rows) == len(set(rows)) > before


def test_left_out_rows_are_counted_not_listed(make_loader, lengths_source, tmp_path):
    """They are a choice, and can be most of a data set."""

    class Choosy(lengths_source):
        def read(self, row, choice):
            if row % 2:
                return Rejected(source=self.name, row=str(row), kind="left_out", reason="another strategy")
            return super().read(row, choice)

    report = DataReport()
    for step in make_loader(Choosy((5,) * 40), epochs=1):
        report.add(step)
    assert report.rejected == {"left_out": 20}
    assert report.write_rejected(tmp_path / "rejected.jsonl") == 0


def test_the_lists_of_all_ranks_become_one(tmp_path):
    """A row that another rank rejected must not stay in a file that nobody reads; one that two met is listed once."""
    rows = [Rejected(source="s", row=f"line {n}", kind="broken", reason="cut") for n in range(3)]
    path = tmp_path / "rejected.jsonl"
    for rank, own in ((0, rows[:2]), (1, rows[1:])):
        report = DataReport()
        report._unwritten = list(own)
        report.write_rejected(list_of_rank(path, rank))
    merge_lists(path)
    assert [json.loads(line)["row"] for line in path.read_text().splitlines()] == ["line 0", "line 1", "line 2"]
    assert list(tmp_path.iterdir()) == [path]


def test_summaries_of_ranks_add_up():
    """The results are about the run, not about its first rank."""
    first, second = DataReport(), DataReport()
    first.rows, first.useful_tokens, first.padding_tokens, first.rejected["broken"] = 3, 30, 10, 1
    second.rows, second.useful_tokens = 4, 60
    total = summed([first.summary(), second.summary()])
    assert (total["rows"], total["broken"], total["useful_tokens"], total["utilisation"]) == (7, 1, 90, 0.9)
