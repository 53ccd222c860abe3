"""Look at training examples at every step.

It shows the teacher's prompt, the student's erased prompt, the tokens with the loss mask in colour, and the row that an
example is packed into.

    python show.py source=procedural strategy=mixed examples=2
    python show.py source=jsonl source.path=mine.jsonl
"""

from orca2.help import answer_help

answer_help(__file__)  # before torch and its like are imported, which takes seconds

from typing import Any

from datamodules.erased_prompts import ErasedPromptDataModule
from orca2.console import open_console
from orca2.data.rendered_rows import Rendered, RowRenderer
from orca2.display import example_panels, pack_table
from orca2.errors import DataError
from orca2.modelling.build import build_tokenizer
from orca2.records import Example, Rejected
from orca2.rendering.renderer import Renderer
from orca2.settings import build_all, run_main


class RememberingRenderer:
    """A row renderer that keeps the examples it has seen, to show the text behind a pack."""

    def __init__(self, render: RowRenderer) -> None:
        self.render = render
        self.renderer = render.renderer
        self.examples: dict[str, Example] = {}

    def __call__(self, example: Example | Rejected, epoch: int) -> Rendered | Rejected:
        if isinstance(example, Example):
            self.examples[example.id] = example
        return self.render(example, epoch)


def show(cfg: Any) -> None:
    """Print the first examples of the first optimizer step."""
    console = open_console()
    parts = build_all(cfg)
    renderer = Renderer(build_tokenizer(parts["model"], parts["format"]), parts["format"])
    data = ErasedPromptDataModule(
        source=parts["source"],
        strategy=parts["strategy"],
        erasing=parts["erasing"],
        renderer=renderer,
        packing=parts["packing"],
        epochs=1,
        packs_per_step=parts["packing"].lanes,
        packs_per_micro_batch=1,
        workers=0,
        seed=parts["seed"],
        thinking=parts["thinking"],
    )
    data.prepare_data()
    data.setup("fit")
    seen = RememberingRenderer(data.render)
    data.render = seen  # type: ignore[assignment]
    shown = 0
    for batch in data.train_dataloader():
        data.report.add(batch)
        for micro in batch.micro_batches:
            for info in micro.examples[: parts["examples"] - shown]:
                console.print(example_panels(seen.examples[info.id], parts["erasing"], renderer, 0, parts["thinking"]))
                console.print(pack_table(micro, highlight=info.id))
                shown += 1
        if shown >= parts["examples"]:
            return
    if not shown:
        raise DataError(f"source {data.source.name}: no row can be shown: {data.report.summary()}")


if __name__ == "__main__":
    run_main("show", show)
