"""Rows: a file or a data set of the hub, read as training examples, as tasks for a teacher, or as benchmark samples.

bytes ──decoding──▶ JSON texts ──importing──▶ memory-mapped rows ──layouts, parsing──▶ Example    a Source
files of a task collection ──collections──▶ TaskItem
files of a benchmark ──forms──▶ plain rows (benchmark_rows)
"""
