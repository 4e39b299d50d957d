"""Commands start without the imports that take seconds."""

import subprocess
import sys


def test_train_module_is_imported_without_torch():
    """`--help` and errors of the configuration are shown before torch is imported."""
    heavy = ["torch", "lightning", "pandas", "matplotlib", "sklearn", "wandb"]
    code = f"import sys, maskclr_pl.train; print(set({heavy}) & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
