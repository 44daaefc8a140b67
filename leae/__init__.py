"""leae: the self-teaching autoencoder.

`leae.load("runs/self-teaching-001/checkpoints/100.pt")` gives back a trained model.
"""


def __getattr__(name: str):
    # Imported when first asked for: commands that draw no curves need not load what draws them.
    if name == "load":
        from leae.training.run import load

        return load
    raise AttributeError(f"module 'leae' has no attribute {name!r}")
