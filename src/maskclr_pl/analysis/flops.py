"""Computational cost of inference."""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from maskclr_pl.data.dataset import ClipDataset, collate
from maskclr_pl.methods import Classifier, Method
from maskclr_pl.types import Batch


@torch.inference_mode()
def flops_per_clip(method: Method, clips: ClipDataset) -> int:
    """Count floating-point operations of the forward pass of a test clip with one person.

    Matrix products, convolutions and attention; a multiply-add counts as two. Element-wise
    operations are not counted, as is customary. Attention runs unfused, because the counter does
    not support every fused kernel, so the number is the same on every device.

    Args:
        method: A classifier predicts, other methods embed. Mode and random state do not change.
        clips: Any clips; the first one determines the sizes.
    """
    first = collate([clips.eval_view()[0]])
    one_person = Batch(
        clip=first["clip"][:, :1],
        present=torch.ones(1, 1, dtype=torch.bool),
        sequence=torch.zeros(1, dtype=torch.int64),
        frame=first["frame"],
        label=first["label"],
        index=first["index"],
    )
    batch = method.transfer_batch_to_device(one_person, method.device, 0)
    training = method.training
    counter = FlopCounterMode(display=False)
    with torch.compiler.set_stance("force_eager"), sdpa_kernel(SDPBackend.MATH), counter:
        method.eval()
        if isinstance(method, Classifier):
            method.predict_clips(batch["clip"], batch)
        else:
            method.embed(batch)
    method.train(training)
    return int(counter.get_total_flops())
