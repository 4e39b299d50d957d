"""Text of `--help`, from the comments of the configuration files."""

import re

from maskclr_pl.config.paths import config_dir


def help_text(name: str) -> str:
    """Return the purpose of a command, its keys with their comments, and the options of groups."""
    text = _text(name)
    keys = re.sub(r"^(?:defaults|hydra):\n(?:(?: .*)?\n)*", "\n", text, flags=re.MULTILINE)
    lines = [keys.strip(), ""]
    for group, chosen in groups(name).items():
        default = f"   (default: {chosen})" if chosen else ""
        lines.append(f"{group}=   {', '.join(options(group))}{default}")
    return "\n".join([*lines, "--cfg job   every key with its value"])


def groups(name: str) -> dict[str, str]:
    """Map groups of a command to their default option, empty if there is none."""
    return _groups(_text(name))


def options(group: str) -> list[str]:
    """List the options of a group."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def _text(name: str) -> str:
    return (config_dir() / f"{name}.yaml").read_text(encoding="utf-8")


def _groups(text: str) -> dict[str, str]:
    """Map groups in the defaults list of a YAML file, and of its defaults, to their options."""
    chosen_options: dict[str, str] = {}
    for slash, group, chosen in re.findall(r"^  - (/?)(\w+): \[?(\w+)", text, flags=re.MULTILINE):
        if (config_dir() / group).is_dir():
            own = not slash and chosen != "null"
            chosen_options.setdefault(group, chosen if own else "")
            inner = config_dir() / group / f"{chosen}.yaml"
            more = _groups(inner.read_text(encoding="utf-8")) if inner.is_file() else {}
            chosen_options |= {key: "" for key in more if key not in chosen_options}
    return chosen_options
