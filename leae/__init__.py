"""leae: the self-teaching autoencoder, as a library. Its parts are imported when they are asked for."""

import importlib

PARTS = {
    "Autoencoder": "leae.autoencoder",
    "VariationalAutoencoder": "leae.autoencoder",
    "ConvAutoencoder": "leae.conv_autoencoder",
    "VariationalConvAutoencoder": "leae.conv_autoencoder",
    "Judge": "leae.judge",
    "SelfTeachingObjective": "leae.objective",
    "sigreg": "leae.sigreg",
    "embed": "leae.analysis.embed",
}
__all__ = [*PARTS, "load"]


def load(path, device="cpu"):
    """A trained model, in evaluation mode: `leae.load("runs/self-teaching-001")`.

    The path is a run's folder (its checkpoint 100, else last), a checkpoint of it, or a folder that `export` made;
    where there is no such path, "owner/name" is fetched from a model hub. Raises what `find_weights` and
    `load_checkpoint` do.
    """
    from leae.training.checkpoints import load_checkpoint  # not everything here needs checkpoints
    from leae.training.hub import find_weights

    return load_checkpoint(find_weights(path), device)[0]


def __getattr__(name: str):
    if name not in PARTS:
        raise AttributeError(f"module 'leae' has no attribute {name!r}")
    part = getattr(importlib.import_module(PARTS[name]), name)
    return globals().setdefault(name, part)  # importing leae.sigreg has made that module the attribute
