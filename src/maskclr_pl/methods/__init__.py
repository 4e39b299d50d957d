"""Ways of learning; each is a LightningModule that reads like its paper's algorithm."""

from maskclr_pl.methods.aimclr import AimCLR
from maskclr_pl.methods.base import Method
from maskclr_pl.methods.classifier import Classifier
from maskclr_pl.methods.crossclr import CrosSCLR
from maskclr_pl.methods.knn import KNN
from maskclr_pl.methods.lift import Lift
from maskclr_pl.methods.linear_probe import LinearProbe
from maskclr_pl.methods.masked_autoencoder import MaskedAutoencoder
from maskclr_pl.methods.momentum import FeatureQueue
from maskclr_pl.methods.oneshot import OneShot
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
