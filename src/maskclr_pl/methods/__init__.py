"""Training methods, each a LightningModule that follows its paper's algorithm."""

from maskclr_pl.methods.base import Method
from maskclr_pl.methods.classifier import Classifier
from maskclr_pl.methods.pretrain.aimclr import AimCLR
from maskclr_pl.methods.pretrain.crossclr import CrosSCLR
from maskclr_pl.methods.pretrain.lifting import Lift
from maskclr_pl.methods.pretrain.masked_autoencoder import MaskedAutoencoder
from maskclr_pl.methods.pretrain.moco import FeatureQueue
from maskclr_pl.methods.protocols.knn import KNN
from maskclr_pl.methods.protocols.linear_probe import LinearProbe
from maskclr_pl.methods.protocols.one_shot import OneShot
from maskclr_pl.methods.recognizer import Recognizer

__all__ = [
    "KNN",
    "AimCLR",
    "Classifier",
    "CrosSCLR",
    "FeatureQueue",
    "Lift",
    "LinearProbe",
    "MaskedAutoencoder",
    "Method",
    "OneShot",
    "Recognizer",
]
