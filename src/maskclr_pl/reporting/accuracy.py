"""Accuracies as text."""


def format_accuracy(top1: float, top5: float, classes: int) -> str:
    """Format top-1 and top-5 accuracy for the log.

    With five classes or fewer, top-5 is always 100 and omitted.

    Example:
        >>> format_accuracy(71.25, 94.5, classes=60), format_accuracy(71.25, 100.0, classes=5)
        ('top1 71.25   top5 94.50', 'top1 71.25')
    """
    return f"top1 {top1:.2f}" + (f"   top5 {top5:.2f}" if classes > 5 else "")
