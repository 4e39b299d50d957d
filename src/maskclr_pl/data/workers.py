"""Processes that load data."""

from maskclr_pl.signals import ignore_signals


def leave_signals_to_the_parent(worker: int) -> None:
    """Ignore SIGTERM, SIGINT and SIGUSR1: for `DataLoader(worker_init_fn=...)`.

    Batch systems and shells send them to all processes of a job at once. A worker that ends by
    itself makes its parent fail while it saves what it has; the parent ends its workers, and they
    end when it is gone.

    Args:
        worker: Number of the process.
    """
    ignore_signals()
