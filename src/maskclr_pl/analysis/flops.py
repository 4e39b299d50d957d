"""What a prediction costs."""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from maskclr_pl.data.dataset import ClipDataset, collate
from maskclr_pl.methods import Classifier, Method
from maskclr_pl.types import Batch


@torch.inference_mode()
def flops_per_clip(method: Method, clips: ClipDataset) -> int:
    """Floating-point operations of the forward pass of one clip with one person at test time.

    Matrix products, convolutions and attention; an addition and a multiplication are two. What is
    done element by element is not counted, as is the custom. Attention is computed step by step
    here, since the counter does not see inside of every fused one; the number is the same on every
    device.

    Args:
        method: A classifier is asked for a class, another method for features. Its mode and its
            random state stay as they are.
        clips: Any; the first decides the sizes.
    """
    first = collate([clips.as_tested()[0]])
    alone = Batch(
        clip=first["clip"][:, :1],
        present=torch.ones(1, 1, dtype=torch.bool),
        sequence=torch.zeros(1, dtype=torch.int64),
        frame=first["frame"],
        label=first["label"],
        index=first["index"],
    )
    batch = method.transfer_batch_to_device(alone, method.device, 0)
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
