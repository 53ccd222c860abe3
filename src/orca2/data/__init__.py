"""From stored or generated rows to optimizer steps, as a stream, in constant memory.

`orca2.rows`        what a source is, and how files and hub data sets become one
procedural.py       generated rows as a source
mixture.py          several sources as one
looking.py          what of stored rows is left out, unused or replaced
identity.py         whether a run still reads the rows that it began with
validation_rows.py  rows that are held out
rendered_rows.py    positions -> rendered rows, in worker processes
packing.py          lengths -> packs
lanes.py            rendered rows -> packs, with a small state after each
loader.py           packs -> StepBatch, the item of training
collate.py          packs -> tensors
report.py           the accounts of a stage
"""
