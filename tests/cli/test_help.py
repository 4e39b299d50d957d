"""--help says what the YAML file of a command says, and which options its groups have."""

from pathlib import Path

import pytest
import yaml

from maskclr_pl.cli import help_text
from tests.helpers.commands import in_process

CONF = Path(__file__).parents[2] / "conf"
COMMANDS = sorted(path.stem for path in CONF.glob("*.yaml"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_key_and_group(name):
    text = help_text(name)
    content = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    lines = text.splitlines()
    assert lines[0].startswith(f"# python -m maskclr_pl.{name}")
    for key in content.keys() - {"defaults", "hydra"}:
        assert any(line.startswith(f"{key}:") for line in lines), key
    assert not any(line.startswith(("defaults", "hydra", "  - override")) for line in lines)
    for entry in content["defaults"]:
        if isinstance(entry, dict) and "override" not in str(entry):
            [(group, chosen)] = entry.items()
            if "${" in str(chosen):  # follows from another
                continue
            [line] = [line for line in lines if line.startswith(f"{group}=")]
            chosen = ",".join(chosen) if isinstance(chosen, list) else chosen
            assert chosen is None or f"(default: {chosen})" in line


def test_groups_that_a_method_brings():
    text = help_text("train")
    assert "\nloss=   ce, maskclr" in text
    assert "\nmasking=   attention, " in text


def test_command(tmp_path, capsys):
    printed = in_process("evaluate", "--help", cwd=tmp_path, capsys=capsys)
    assert printed == help_text("evaluate") + "\n"
