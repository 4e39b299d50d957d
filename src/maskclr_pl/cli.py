"""What the commands share: Hydra at the door, errors in one line, run folders, plain output."""

import difflib
import functools
import io
import logging
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TextIO

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from maskclr_pl.config import config_dir
from maskclr_pl.types import InputError

log = logging.getLogger("maskclr_pl")

Main = Callable[[DictConfig], Any]

_EXTRAS = {"optuna": "sweep", "submitit_slurm": "slurm"}
"""Plugins of Hydra that the configuration names -> what to install them by."""


def verb(name: str) -> Callable[[Main], Callable[[], None]]:
    """Decorator for `main(cfg)` of the command `python -m maskclr_pl.<name>`.

    Wrong input ends with one line on stderr and exit code 2; a bug ends with its traceback.
    """

    def decorate(main: Main) -> Callable[[], None]:
        @functools.wraps(main)
        def command() -> None:
            # Hydra then raises instead of printing its own report and leaving
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")
            signal.signal(signal.SIGTERM, _terminated)
            _set_up_output()
            if not {"-h", "--help"}.isdisjoint(sys.argv[1:]):
                log.info("%s", help_text(name))
                return
            run = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=name)
            with _errors_in_one_line(name):
                # inside of Hydra as well, which else adds lines of its own
                run(functools.wraps(main)(lambda cfg: _guarded(main, cfg, name)))()

        return command

    return decorate


def help_text(name: str) -> str:
    """What a command is for, its keys as its YAML file explains them, and the options of groups."""
    text = (config_dir() / f"{name}.yaml").read_text(encoding="utf-8")
    keys = re.sub(r"^(?:defaults|hydra):\n(?:(?: .*)?\n)*", "\n", text, flags=re.MULTILINE)
    lines = [keys.strip(), ""]
    for group, default in _groups(text).items():
        options = sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))
        lines.append(f"{group}=   {', '.join(options)}{default}")
    return "\n".join([*lines, "--cfg job   every key with its value"])


def _groups(text: str) -> dict[str, str]:
    """Groups in the defaults of a YAML file with what is chosen, and those that come along."""
    found: dict[str, str] = {}
    for slash, group, chosen in re.findall(r"^  - (/?)(\w+): (\w+)", text, flags=re.MULTILINE):
        if (config_dir() / group).is_dir():
            own = not slash and chosen != "null"
            found.setdefault(group, f"   (default: {chosen})" if own else "")
            inner = config_dir() / group / f"{chosen}.yaml"
            more = _groups(inner.read_text(encoding="utf-8")) if inner.is_file() else {}
            found |= {key: "" for key in more if key not in found}
    return found


def _guarded(main: Main, cfg: DictConfig, name: str) -> Any:
    if not log.handlers:  # a launcher's job, in a process of its own
        _set_up_output()
    with _errors_in_one_line(name):
        return main(cfg)


@contextmanager
def _errors_in_one_line(name: str) -> Iterator[None]:
    try:
        yield
    except (InputError, HydraException, OmegaConfBaseException) as error:
        if os.environ.get("MASKCLR_TRACEBACK"):
            traceback.print_exc()
        sys.stderr.write(f"error: {one_line(error, name)}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)


def _terminated(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def one_line(error: BaseException, command: str) -> str:
    """The message of an error about the configuration or the input, on one line.

    Args:
        error: What was raised.
        command: The command that ran, whose keys a misspelt one is compared with.
    """
    chain: list[BaseException] = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    for link in chain:
        if isinstance(link, InputError):
            return str(link)
    origin = chain[-1]
    text = "\n".join(str(link) for link in chain)
    if isinstance(error, InstantiationException):
        node = re.search(r"full_key: (\S+)", text)
        return f"{node.group(1) if node else 'configuration'}: {' '.join(str(origin).split())}"
    if isinstance(error, MissingMandatoryValue):
        match = re.search(r"full_key: (\S+)", text)
        match = match or re.search(r"Missing mandatory value: (\S+)", text)
        key = match.group(1) if match else "a value"
        return f"{key} is missing; type {key}=..."
    option = re.search(r"Could not find '([^']+)/([^'/]+)'", text)
    if option:
        group, name = option.groups()
        found = re.search(r"Available options in '[^']*':\n((?:\s+\S+\n?)+)", text)
        names = found.group(1).split() if found else []
        listed = f"; {group}= can be {', '.join(names)}" if names else ""
        if name in _EXTRAS:
            return f"{name} is not installed; type pip install 'maskclr_pl[{_EXTRAS[name]}]'"
        return f"no {group} named {name!r}{_closest(name, names)}{listed}"
    key_error = re.search(r"Could not override '([^']+)'", text)
    if key_error:
        key = key_error.group(1)
        known = re.search(r"Key '([^']+)' is not in struct", text)
        missing = f": there is no {known.group(1)!r}" if known else ""
        return (
            f"{key}=... cannot be set{missing}{_closest_key(key, command)}; "
            "--cfg job shows every key"
        )
    return " ".join(text.split("\n\n")[0].split())


def _closest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _closest_key(key: str, command: str) -> str:
    """A suggestion from the keys of the command, with the options of groups that were typed."""
    GlobalHydra.instance().clear()
    words = [word.partition("=") for word in sys.argv[1:]]
    options = ["".join(word) for word in words if word[0] and (config_dir() / word[0]).is_dir()]
    try:
        with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
            cfg = _composed(command, options)
    except (HydraException, OmegaConfBaseException):
        return ""
    keys = _keys(OmegaConf.to_container(cfg), "")
    last = key.rsplit(".", 1)[-1]
    names = {known: known.rsplit(".", 1)[-1] for known in keys if known != key}
    same = [known for known, name in names.items() if name == last]
    part = sorted(
        (n for n in names if len(last) > 3 and last in names[n]), key=lambda n: len(names[n])
    )
    close = same or difflib.get_close_matches(key, keys, n=1) or part
    return f" (did you mean {close[0]}?)" if close else ""


def _composed(command: str, options: list[str]) -> DictConfig:
    try:
        return hydra.compose(command, options)
    except (HydraException, OmegaConfBaseException):  # a user's own option, or several of a sweep
        return hydra.compose(command)


def _keys(node: Any, prefix: str) -> list[str]:
    keys = []
    for key, value in node.items() if isinstance(node, dict) else ():
        keys += [f"{prefix}{key}", *_keys(value, f"{prefix}{key}.")]
    return keys


class _Lines(logging.StreamHandler[TextIO]):
    """Lines on stdout; when its reader has gone (`| head`), the command goes on in silence."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            super().handleError(record)


def _set_up_output() -> None:
    """Plain lines on stdout for the package; silence for the adverts of the libraries."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = _Lines(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.INFO)
    log.handlers = [handler]
    log.setLevel(logging.DEBUG)
    log.propagate = False
    for name in ("lightning.pytorch", "lightning.fabric", "lightning_fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning(_fabric|\.).*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


def log_to(path: Path) -> None:
    """Also write the command's lines to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.handlers = [log.handlers[0], handler]


def plain(cfg: Any) -> Any:
    """Plain dicts, lists and values of a configuration, interpolations resolved."""
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def run_folder(output_dir: str | None, kind: str) -> Path:
    """The folder of this run: `output_dir`, or a new one under runs/. Nothing is made yet."""
    hydra_config = HydraConfig.get()
    if output_dir is not None:
        return Path(output_dir)
    if hydra_config.mode == RunMode.MULTIRUN:
        return Path(hydra_config.runtime.output_dir)
    return Path("runs") / kind / datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")


def claim(folder: Path) -> None:
    """Make a run folder, and its config.yaml as the sign that it is taken.

    Raises:
        InputError: If the folder holds a run already.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be made ({error.strerror}); type another output_dir=..."
        ) from None
    try:
        os.close(os.open(folder / "config.yaml", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        raise InputError(
            f"{folder} holds a run already; type resume={folder} to continue it, or leave out "
            "output_dir to start another"
        ) from None
