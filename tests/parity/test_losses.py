import re

import pytest
import torch

from maskclr_pl.losses.contrastive import class_nt_xent, nt_xent, supervised_contrast
from tests.parity.golden import Golden, assert_close

GOLDEN = Golden("losses")
KEYS = sorted(GOLDEN.under("out/"))
_FORM = re.compile(
    r"(?P<case>case\d+)/(?P<loss>nt_xent|supcon|class_mean_raw|class_mean_normalised)"
    r"_tau(?P<tau>[\d.]+)(_base(?P<base>[\d.]+))?"
)


def compute(key: str, a: torch.Tensor, b: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    form = _FORM.fullmatch(key)
    loss, tau = form["loss"], float(form["tau"])
    if loss == "nt_xent":
        return nt_xent(a, b, tau)
    if loss == "supcon":
        return supervised_contrast(a, b, labels, tau, float(form["base"]))
    return class_nt_xent(a, b, labels, tau, normalize=loss == "class_mean_normalised")


@pytest.mark.parametrize("key", KEYS)
def test_value(key):
    case = key.split("/")[0]
    a, b, labels = (GOLDEN.tensor(f"in/{case}/{name}") for name in ("z_a", "z_b", "labels"))
    # golden/README.md: 5e-6 + 1e-5 rel
    assert_close(compute(key, a, b, labels), GOLDEN[f"out/{key}"], atol=5e-6, rtol=1e-5)
    if "supcon" in key:  # the same from features that are already normalised
        a, b = GOLDEN.tensor(f"in/{case}/supcon_features").unbind(1)
        assert_close(compute(key, a, b, labels), GOLDEN[f"out/{key}"], atol=5e-6, rtol=1e-5)


def test_every_case_is_there():
    assert {key.split("/")[0] for key in KEYS} == {
        f"case{i}" for i in range(GOLDEN.config["num_cases"])
    }
