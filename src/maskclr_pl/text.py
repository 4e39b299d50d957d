"""Text that fits: one-line error messages, short lists of names, labels of limited width."""

from collections.abc import Sequence


def one_line(text: object, limit: int = 200) -> str:
    """Collapse whitespace and cut to `limit` characters.

    An exception without a message becomes the name of its class.

    Example:
        >>> one_line(ValueError("bad     value")), one_line(KeyboardInterrupt())
        ('bad value', 'KeyboardInterrupt')
    """
    line = " ".join(str(text).split())
    return (line or type(text).__name__)[:limit]


def ellipsize(text: str, width: int) -> str:
    """Cut a label to `width` characters, the last one an ellipsis.

    Example:
        >>> ellipsize("left_shoulder", 6)
        'left_…'
    """
    return text if len(text) <= width else f"{text[: width - 1]}…"


def list_names(names: Sequence[str], limit: int = 6) -> str:
    """Join names with commas; beyond `limit` only their number is given.

    Example:
        >>> list_names(["nose", "neck", "hip"], limit=2)
        'nose, neck and 1 more'
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
