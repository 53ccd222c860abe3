"""The errors that a user can cause and mend. Each message names the thing, its value and the remedy."""

from typing_extensions import override

from orca2.terminal import visible


class Orca2Error(Exception):
    """Base of all errors below; entry points print it without a traceback.

    Its text may quote data and models, so control characters in it are shown.
    """

    @override
    def __str__(self) -> str:
        return visible(super().__str__())


class ConfigError(Orca2Error):
    """The configuration cannot be run as it is."""


class DataError(Orca2Error):
    """A source, a file or a row cannot be used."""


class ModelError(Orca2Error):
    """A model or tokenizer cannot be built, trusted or exported."""


class CheckpointError(Orca2Error):
    """A run directory or checkpoint does not fit the run that wants to use it."""


class TrainingError(Orca2Error):
    """Training cannot go on, such as after a loss that is not finite."""


class RankError(Orca2Error):
    """One of the processes of a run failed; its own message is inside."""
