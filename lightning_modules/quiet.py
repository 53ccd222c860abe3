"""Keeps other libraries' chatter out of the few lines that a run prints."""

import logging
import warnings

import transformers


def quiet_libraries() -> None:
    """Errors and warnings stay; hints, tips and progress bars of short steps go."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    # Lightning calls a deprecated alias of torch in every batch; nothing a user can do.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
    # On every machine with SLURM, for runs that are meant to be outside of it.
    warnings.filterwarnings("ignore", message="The `srun` command is available on your system but is not used")
    # On every save and load of a checkpoint in a single process, where it is as it should be.
    warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
