"""Worker processes of data loaders, for the training and for `prepare`."""

from maskclr_pl.signals import ignore_signals


def ignore_signals_in_worker(worker: int) -> None:
    """Ignore SIGTERM, SIGINT, and SIGUSR1, as `worker_init_fn` of a `DataLoader`.

    Batch systems and shells send signals to all processes of a job. A worker that exits would make
    its parent fail while it writes a checkpoint; the parent stops its workers itself.

    Args:
        worker: Index of the worker process.
    """
    ignore_signals()
