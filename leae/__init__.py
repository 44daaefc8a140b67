"""leae: the self-teaching autoencoder.

`leae.load("runs/self-teaching-001/checkpoints/100.safetensors")` gives back a trained model.
"""


def __getattr__(name: str):
    if name == "load":  # imported when it is first asked for: not everything here needs checkpoints
        from leae.training.checkpoints import load

        return load
    raise AttributeError(f"module 'leae' has no attribute {name!r}")
