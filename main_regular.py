"""Train an ordinary autoencoder on pixel error, to compare the self-teaching one (main.py) with.

    uv run main_regular.py                                              the masked one, main.py's fair pair
    uv run main_regular.py --objective denoising                        or plain, or variational
    uv run main_regular.py --model conv --dataset mnist                 the small model of the textbooks
    uv run main_regular.py --resume runs/masked-001                     go on with a run that was stopped
    uv run torchrun --nproc-per-node 8 main_regular.py                  on eight GPUs

A batch, a corruption, a model, a reconstruction loss. Edit the constants and run again. Where a constant has two
values, the first is for a GPU, the second for a CPU, where the run ends within minutes. Those that main.py has too,
but OBJECTIVE, have the same values there, so that a run of each is a fair pair.
"""

import torch
from torch import Tensor, nn

from leae import conv_autoencoder
from leae.autoencoder import Autoencoder, VariationalAutoencoder, build
from leae.conv_autoencoder import ConvAutoencoder, VariationalConvAutoencoder
from leae.data.prepare import Batches, channels_of, find_source, open_dataset, to_float
from leae.distributed import data_parallel, join
from leae.errors import run_command
from leae.masking import add_noise, draw_gaussian, mask_side, mask_squares
from leae.randomness import generator
from leae.reconstruction import ReconstructionLoss, draw_latent, gaussian_kl
from leae.training.device import autocast, compile_if_it_works, describe, device_name, find_device
from leae.training.evaluation import MaskedViews, NoisyViews, grid_rows, held_out_psnr, samples, summary
from leae.training.monitoring import CollapseWatch
from leae.training.progress import Pace
from leae.training.run import Run, begin, milestones
from leae.training.schedule import count_steps, learning_rate_factor
from leae.training.settings import (
    constants_of,
    decide,
    require,
    require_common,
    require_effect,
    require_numbers,
    require_text,
)

OBJECTIVES = ("masked", "plain", "denoising", "variational")
SAMPLE_ROWS = 5
GPU = torch.cuda.is_available()

# --- data
DATASET = "auto"  # celeba, faces (rendered), auto (one of these), mnist, fashion-mnist, cifar10, digits, or a folder
IMAGE_SIZE = 128 if GPU else 64  # side in pixels, a multiple of 8; MODEL "conv" makes it 32
FACES = 50_000 if GPU else 8_192  # rendered faces to train on, if it is those; a tenth as many are held out
HELD_OUT = 20_000 if GPU else 1_000  # images of the test split that figures are taken on, at most

# --- model
MODEL = "residual"  # "residual": main.py's; "conv": the small one for 32×32 pixels
LATENT = "pooled"  # "pooled": one vector per image; "spatial": a vector for every 8×8 pixels
LATENT_DIM = 128  # numbers per image of a pooled latent
SPATIAL_DIM = 32  # numbers per 8×8 pixels of a spatial latent; divides 8 × HIDDEN_DIM
HIDDEN_DIM = 128 if GPU else 32  # width of the convolutions
MAP_CHANNELS = 128 if GPU else 32  # channels of the map under a pooled latent; divides 8 × HIDDEN_DIM
CONV_LATENT_DIM = 32  # numbers per image of MODEL "conv"
OUTPUT = "sigmoid"  # "sigmoid": pixels in [0, 1]; "linear": pixels scaled to [−1, 1], with the loss "mse"

# --- objective
OBJECTIVE = "masked"  # "masked", "plain", "denoising" or "variational": see `corrupt`, and the loop
RECONSTRUCTION_LOSS = "mse"  # "mse", or "bce": binary cross-entropy
MASK_RATIO = 0.35  # share of the image's area that a masked view hides, between 0 and 1
NOISE = 0.2  # σ of the noise of "denoising", in the units of pixels from 0 to 1
BETA = 1.0  # β, the weight of the KL divergence of "variational"; 1 is the evidence bound; at least 0

# --- optimisation
BATCH_SIZE = 128 if GPU else 64  # images per step, at least 2
EPOCHS = 50  # passes over the training images
MAX_STEPS = 0 if GPU else 640  # the run ends after so many steps if its epochs are longer; 0 is no limit
LEARNING_RATE = 1e-3 if GPU else 2e-3  # AdamW's, at its peak
WARMUP = 0.02  # share of the run in which the learning rate rises from zero, 0 to 1
SCHEDULE = "cosine"  # after the rise: "cosine" falls to zero, "constant" stays
WEIGHT_DECAY = 0.01  # AdamW's; with 0 it is Adam

# --- the run
SEED = 0  # of everything random: weights, order, masks, noise
DEVICE = "cuda" if GPU else "cpu"  # where to train
COMPILE = GPU  # compile the convolutions: faster steps after a minute; without a compiler they stay as they are
LOG_EVERY = 10  # steps between rows of metrics.csv
GRID_EVERY = 2000 if GPU else 200  # steps between grids and held-out figures
GRID_IMAGES = 10  # images in a grid
SAVE_MINUTES = 3.0  # minutes between writes of last.pt, from which --resume goes on
RESUME = ""  # a run's folder to go on with; everything else is then as that run began


def corrupt(images: Tensor, draws: torch.Generator) -> Tensor:
    """What the model is given to reconstruct a batch of images from."""
    if OBJECTIVE == "masked":
        return mask_squares(images, MASK_RATIO, draws)
    if OBJECTIVE == "denoising":
        return add_noise(images, NOISE, draw_gaussian(images, draws))
    return images


def main() -> None:
    # --- settings: the constants above, then the command line, or those of the run that is resumed
    run, chosen = begin(globals(), *OBJECTIVES)

    # --- set-up; whatever can be refused is refused here, before any work
    require_common(globals(), chosen)
    require_numbers(MASK_RATIO=MASK_RATIO, NOISE=NOISE, BETA=BETA)
    require_text(RECONSTRUCTION_LOSS=RECONSTRUCTION_LOSS, OUTPUT=OUTPUT)
    require(OBJECTIVE in OBJECTIVES, "OBJECTIVE", OBJECTIVE, "masked, plain, denoising or variational")
    require(0 < NOISE <= 1, "NOISE", NOISE, "above 0 and at most 1, say 0.2")
    require(BETA >= 0, "BETA", BETA, "at least 0")
    idle = {"masked": ("NOISE", "BETA"), "plain": ("NOISE", "BETA"), "denoising": ("MASK_RATIO", "BETA")}
    require_effect(globals(), chosen, OBJECTIVE={**idle, "variational": ("NOISE",)})
    device = join(find_device(DEVICE))
    torch.manual_seed(SEED)
    channels = channels_of(DATASET)
    variational = OBJECTIVE == "variational"
    if MODEL == "conv":
        decide(globals(), chosen, "MODEL conv", IMAGE_SIZE=conv_autoencoder.IMAGE_SIZE)
        kind = VariationalConvAutoencoder if variational else ConvAutoencoder
        # The masked one is main.py's pair down to the batch norm; the others are the textbooks'.
        model = build(kind, channels, CONV_LATENT_DIM, OUTPUT, batch_norm=OBJECTIVE == "masked")
    else:
        kind = VariationalAutoencoder if variational else Autoencoder
        latent_dim = LATENT_DIM if LATENT == "pooled" else SPATIAL_DIM
        model = build(kind, IMAGE_SIZE, channels, HIDDEN_DIM, LATENT, latent_dim, MAP_CHANNELS, OUTPUT)
    model = model.to(device, memory_format=torch.channels_last)
    reconstruction_loss = ReconstructionLoss(RECONSTRUCTION_LOSS, OUTPUT)
    mask_side(IMAGE_SIZE, MASK_RATIO)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    resumable = {"optimizer": optimizer}

    # --- data
    source = find_source(DATASET, IMAGE_SIZE, FACES)
    source.require_batch(BATCH_SIZE)
    if run is not None:
        run.check_data(source.identity)
    print(describe(device))
    dataset = open_dataset(source)
    train, test = dataset.images["train"], dataset.images["test"][:HELD_OUT]
    batches = Batches(train, BATCH_SIZE, SEED, device)
    total_steps = count_steps(EPOCHS, batches.steps_per_epoch, MAX_STEPS)
    shown = {"train": to_float(train[:GRID_IMAGES], device), "test": to_float(test[:GRID_IMAGES], device)}
    # Masked views are looked at where nothing is corrupted in training, too: these runs are compared with main.py's.
    views = NoisyViews(NOISE) if OBJECTIVE == "denoising" else MaskedViews(MASK_RATIO)

    # --- the run's folder
    start = 0
    if run is None:
        terms = ["loss", "reconstruction", "kl"] if variational else ["loss"]
        measures = ["psnr_clean", f"psnr_{views.name}"]
        constants = constants_of(globals())
        run = Run.create(OBJECTIVE, constants, terms, measures, source.identity, device_name(device))
    else:
        start = run.restore(model, resumable, device)
    print(f"data: {dataset.title}, {len(train):,} images to train on, {len(test):,} held out, {IMAGE_SIZE} pixels wide")
    print(f"model: {model.latent_size:,} numbers an image, {model.compression:.0f}× compression")
    print(f"run: steps {start:,} to {total_steps:,} of {BATCH_SIZE} images; if it is stopped, --resume {run.folder}")
    keep, watch = milestones(total_steps), CollapseWatch(test, device)

    def look(step: int) -> dict[str, float]:
        """Measure on the held-out images; write figures, curves, grids and the checkpoints that are due."""
        quality = held_out_psnr(model, test, views, device)
        grids = {split: grid_rows(model, images, views) for split, images in shown.items()}
        if variational:
            rows = samples(model, SAMPLE_ROWS * GRID_IMAGES, SEED, device).split(GRID_IMAGES)
            grids["samples"] = {f"samples {number}": row for number, row in enumerate(rows, start=1)}
            grids["test"]["samples"] = rows[0][: len(shown["test"])]
        watch.look(step, model=model)
        run.look(step, step / batches.steps_per_epoch, quality, grids, model, resumable, keep.get(step, []))
        return quality

    def loss_terms(model: nn.Module, images: Tensor, draws: torch.Generator) -> dict[str, Tensor]:
        """The loss of a batch, and what it is the sum of."""
        given = corrupt(images, draws)
        if not variational:
            raw = model.decoder(model.encode(given))
            return {"loss": reconstruction_loss(raw, images)}
        mean, log_variance = model.posterior(given)
        raw = model.decoder(draw_latent(mean, log_variance, draws))
        # Both are summed over an image's dimensions and averaged over the batch; see `gaussian_kl`.
        reconstruction = images[0].numel() * reconstruction_loss(raw, images)
        kl = gaussian_kl(mean, log_variance)
        return {"loss": reconstruction + BETA * kl, "reconstruction": reconstruction, "kl": kl}

    # --- training
    if COMPILE:
        compile_if_it_works(model.encoder, model.decoder)
    compute_terms = data_parallel(loss_terms, model)
    quality = look(0) if start == 0 else None
    pace = Pace(start, total_steps, BATCH_SIZE)
    for step in pace:
        images = batches.at(step)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * learning_rate_factor(step, total_steps, WARMUP, SCHEDULE)

        with autocast(device):
            terms = compute_terms(images, generator(SEED, "step", step, device))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()

        done = step + 1
        if done % LOG_EVERY == 0 or done == total_steps:
            run.log("train", done, done / batches.steps_per_epoch, pace.measure(terms))
        stopping = pace.stopping  # Ctrl-C or SIGTERM came
        if done % GRID_EVERY == 0 or done in keep:
            quality = look(done)
            pace.rest()
        elif stopping or pace.minutes_since_rest > SAVE_MINUTES:
            run.save("last", model, done, resumable)
            pace.rest()
        if stopping:
            pace.leave(run.folder)

    # --- what came out
    quality = quality or held_out_psnr(model, test, views, device)  # a finished run, resumed, made no step
    print(summary(quality, train, test, views))
    print(f"grids: {run.folder / 'grids'}, the last: {run.folder / 'grids' / f'test-{total_steps:06d}.png'}")


if __name__ == "__main__":
    run_command(main)
