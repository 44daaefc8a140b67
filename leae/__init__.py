"""leae: the self-teaching autoencoder."""
