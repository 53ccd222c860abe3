"""The report as Markdown."""

from collections.abc import Sequence

from orca2.evaluation.report.tables import Table


def markdown(title: str, notes: Sequence[str], tables: Sequence[Table], chart: str | None) -> str:
    """The whole text. `chart`: file name of a picture beside it."""
    parts = [f"# {_escaped(title)}", *(f"> {_escaped(note)}" for note in notes)]
    if chart:
        parts.append(f"![Scores with 95 % intervals]({chart})")
    for table in tables:
        parts += [f"## {table.title}", *([table.note] if table.note else []), _table(table)]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    return "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines)


def _escaped(text: str) -> str:
    """Names come from files: neither a bar nor a tag may break the table."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())
