"""leae: the self-teaching autoencoder."""


def load(path, device="cpu"):
    """A trained model, in evaluation mode: `leae.load("runs/self-teaching-001/checkpoints/100.safetensors")`.

    Raises what `leae.training.checkpoints.load_checkpoint` does.
    """
    from leae.training.checkpoints import load_checkpoint  # not everything here needs checkpoints

    return load_checkpoint(path, device)[0]
