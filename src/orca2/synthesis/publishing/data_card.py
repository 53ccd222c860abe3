"""The data set's card: `README.md` with the header that the Hugging Face hub reads.

Everything in it is counted by the synthesis (`record`, the manifest's entry `output`) or set by its config; nothing
is filled in by hand, so a card cannot be out of date.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

TASKS_LISTED = 30
"""Tasks in the card's table; the manifest lists all."""
HUB_LICENCES: Mapping[str, str] = {
    "apache-2.0": "apache-2.0", "apache 2.0": "apache-2.0", "mit": "mit", "cc by 4.0": "cc-by-4.0",
    "cc-by-4.0": "cc-by-4.0", "cc-by-sa-4.0": "cc-by-sa-4.0", "odc-by": "odc-by", "cc0-1.0": "cc0-1.0",
}  # fmt: skip
"""A collection's licence in lower case to the hub's own identifier."""
BAR = 30
"""Characters of the longest bar."""


def card(name: str, record: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The card's text, from the manifest's entry `output` and the plain config."""
    sections = (_summary, _use, _sources, _strategies, _verification, _cleaning, _cost, _settings)
    body = [line for section in sections for line in (*section(record, config), "")]
    return f"{_header(name, record)}\n# {name}\n\n" + "\n".join(body).rstrip() + "\n"


def _header(name: str, record: Mapping[str, Any]) -> str:
    configs = [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}]
    if record["answers_not_kept"]:
        path = "rejected_answers/answers-*.parquet"
        configs.append({"config_name": "rejected_answers", "data_files": [{"split": "train", "path": path}]})
    header = {
        "pretty_name": name,
        "license": _licence(record),
        "task_categories": ["text-generation"],
        "size_categories": [_size(record["examples"])],
        "tags": ["synthetic", "reasoning", "prompt-erasing", "orca2"],
        "configs": configs,
    }
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n"


def _summary(record: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    sources = record["sources"]
    tasks = sum(len(source["tasks"]) for source in sources.values())
    yield (
        f"{record['examples']:,} examples of {tasks:,} tasks, answered by {_names(record['teachers'])} under a "
        "strategy instruction that only the teacher saw. Each row keeps that instruction (`system`), so that it can be "
        "erased or kept when a student is trained; `strategy` names it."
    )
    if record["few_shot"]:
        yield f"{record['few_shot']:,} of them show three to five solved examples of their task before the question."
    if traces := record.get("with_reasoning"):
        yield f"{traces:,} of them have the teacher's reasoning trace (`reasoning`): train on it with `thinking=keep`."
    yield "`browser.html` shows a sample with the teacher's and the student's prompt side by side."


def _use(record: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    yield "## Use"
    yield ""
    yield "    python train.py source=synthesized source.path=<this folder> strategy=any"
    yield '    datasets.load_dataset("parquet", data_files="data/train-*.parquet")'


def _sources(record: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    yield "## Sources and licences"
    yield ""
    rows = [
        [name, f"{source['examples']:,}", f"{len(source['tasks']):,}", _names(source["licences"])]
        for name, source in record["sources"].items()
    ]
    yield from _table(["source", "examples", "tasks", "licence"], rows)
    by_task = [
        (count, task, name) for name, source in record["sources"].items() for task, count in source["tasks"].items()
    ]
    listed = sorted(by_task, key=lambda entry: (-entry[0], entry[1:]))[:TASKS_LISTED]
    yield ""
    yield f"The {len(listed)} largest of {len(by_task):,} tasks; `manifest.json` lists all.\n"
    yield from _table(["task", "source", "examples"], [[task, name, f"{count:,}"] for count, task, name in listed])


def _strategies(record: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    yield "## Strategies"
    yield ""
    yield from _histogram("strategy", record["strategies"])


def _verification(record: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    yield "## Verification"
    yield ""
    preset = config["verification"]
    kept = ", ".join(outcome for outcome, keep in preset["keep"].items() if keep)
    most = "one answer" if preset["samples"] == 1 else f"at most {preset['samples']} answers"
    yield f"`verification={preset['name']}`: {most} a question; kept are those that are {kept}.\n"
    yield from _histogram("verdict", record["verdicts"])
    yield ""
    yield (
        f"Beside them, {record['answers_not_kept']:,} answers were not kept (`rejected_answers/`, with reasons: "
        f"pairs of preference), {_counts(record['failures'], 'requests had no answer')} (`failures.jsonl`), and "
        f"{_counts(record['not_asked'], 'rows were not asked')} (`rejected.jsonl`)."
    )


def _cleaning(record: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    found = record["cleaning"]
    contamination, duplicates, leaks = found["contamination"], found["duplicates"], found["leaks"]
    yield "## Duplicates, contamination, leaks"
    yield ""
    yield f"`cleaning={found['cleaning']}`. Removed rows are in `rejected.jsonl`, each with its reason.\n"
    yield f"- Duplicates: {duplicates['exact']:,} exact and {duplicates['near']:,} near repetitions removed."
    yield (
        f"- Leaks: {leaks['leaked']:,} of {leaks['checked']:,} answers quoted their instruction and were not kept."
        if leaks["checked"]
        else "- Leaks: not looked for."
    )
    layers = "by the names of their tasks" if contamination["lineage"] else "not by the names of their tasks"
    ngrams = (
        f"by n-grams from a share of {contamination['threshold']:g}"
        if contamination["ngrams"]
        else "**not by n-grams, as no benchmark texts were given**"
    )
    yield f"- Contamination: {contamination['checked']:,} rows looked at, {layers} and {ngrams}."
    if contamination["in_domain"]:
        yield f"- Training tasks allowed as in-domain: {', '.join(contamination['in_domain'])}."
    if contamination["unread"]:
        yield f"- Benchmark files that could not be read: {'; '.join(contamination['unread'])}."
    if contamination["benchmarks"]:
        yield ""
        rows = [
            [name, f"{one['lineage']:,}", f"{one['ngrams']:,}", f"{one['answers']:,}"]
            for name, one in contamination["benchmarks"].items()
        ]
        yield from _table(["benchmark", "rows by task name", "questions by n-grams", "answers by n-grams"], rows)


def _cost(record: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    spending, usage = record["spending"], record["usage"]
    yield "## Cost"
    yield ""
    usd = f"{spending['usd']:.2f} USD" if spending["price_known"] else "at a price that was not given"
    yield f"{spending['requests']:,} paid requests, {spending['tokens']:,} tokens, {usd}."
    if usage:
        answer, prompt = usage.get("completion_tokens", 0), usage.get("prompt_tokens", 0)
        thought = usage.get("reasoning_tokens", 0)
        traces = f", of which {thought:,} of reasoning" if thought else ""
        yield f"The kept answers alone: {prompt:,} prompt and {answer:,} answer tokens{traces}, by the teacher's count."


def _settings(record: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    yield "## Settings"
    yield ""
    decoding = {
        key: config["teacher"][key] for key in ("max_tokens", "temperature", "top_p") if key in config["teacher"]
    }
    rows = [
        [group, str(config[group]["name"])] for group in ("tasks", "strategy", "instructions", "teacher", "cleaning")
    ]
    rows += [[f"teacher.{key}", str(value)] for key, value in decoding.items()]
    rows += [["seed", str(config["seed"])], ["rows read", f"{record['items_read']:,}"]]
    yield from _table(["setting", "value"], rows)


def _histogram(title: str, counts: Mapping[str, int]) -> Iterator[str]:
    total, most = sum(counts.values()), max(counts.values())
    rows = [
        [name, f"{count:,}", f"{count / total:.1%}", "█" * max(1, round(BAR * count / most))]
        for name, count in counts.items()
    ]
    yield from _table([title, "examples", "share", ""], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        # A name from the data must not end its cell, or begin markup.
        yield "| " + " | ".join(_plain(cell) for cell in row) + " |"


def _plain(text: str) -> str:
    line = " ".join(text.split())
    return "".join(f"\\{sign}" if sign in "|<>[]`*#" else sign for sign in line)


def _names(counts: Mapping[str, int]) -> str:
    return ", ".join(_plain(name) for name in counts)


def _counts(counts: Mapping[str, int], what: str) -> str:
    details = ", ".join(f"{kind} {count:,}" for kind, count in counts.items())
    return f"{sum(counts.values()):,} {what}" + (f" ({details})" if details else "")


def _licence(record: Mapping[str, Any]) -> str:
    found = {licence.lower() for source in record["sources"].values() for licence in source["licences"]}
    known = {HUB_LICENCES.get(licence, "other") for licence in found}
    return known.pop() if len(known) == 1 else "other"


def _size(examples: int) -> str:
    names = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for most, name in names if examples < most), "1M<n<10M" if examples < 10_000_000 else "n>10M")
