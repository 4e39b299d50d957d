"""Settings of the whole suite: shapes are checked while the tests run, and only then."""

import os

import jaxtyping

from tests import typechecker  # noqa: F401  # the hook looks it up in the package

jaxtyping.install_import_hook("maskclr_pl", "tests.typechecker.check")

import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

torch.set_num_threads(1)  # reproducible sums; several cores gain nothing at these sizes
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same in the commands that tests start
settings.register_profile("suite", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("suite")
