"""leae: the self-teaching autoencoder, as a library; `leae.sigreg.sigreg` is SIGReg, `leae.codes` measures codes."""

import os
import sys

if "IPython" not in sys.modules:  # what a notebook starts is told its backend; none is needed, it may not be there
    os.environ.pop("MPLBACKEND", None)

from leae import codes, sigreg  # noqa: F401, these modules are parts of it
from leae.analysis.embed import embed
from leae.autoencoder import Autoencoder, VariationalAutoencoder
from leae.checkpoints import load
from leae.conv_autoencoder import ConvAutoencoder, VariationalConvAutoencoder
from leae.judge import Judge
from leae.objective import SelfTeachingObjective

__version__ = "0.1.0"

__all__ = [
    "Autoencoder",
    "ConvAutoencoder",
    "Judge",
    "SelfTeachingObjective",
    "VariationalAutoencoder",
    "VariationalConvAutoencoder",
    "embed",
    "load",
]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__", "codes", "sigreg"])
