"""Train an ordinary autoencoder on pixel error, as a baseline for main.py's.

    uv run main_regular.py                                              the masked one, main.py's counterpart
    uv run main_regular.py --objective denoising                        or plain, or variational
    uv run main_regular.py --resume runs/masked-001                     resume a run that was stopped
    uv run torchrun --nproc-per-node 8 main_regular.py                  on eight GPUs

Constants that main.py has too, except OBJECTIVE and SIGREG_WEIGHT, have the same values here.
"""

import torch
from torch import Tensor, nn

from leae.autoencoder import Autoencoder, VariationalAutoencoder, build
from leae.conv_autoencoder import ConvAutoencoder, VariationalConvAutoencoder
from leae.data.batches import Batches, to_float
from leae.data.prepare import open_dataset
from leae.data.sources import channels_of
from leae.distributed import data_parallel, init_processes
from leae.errors import run_command
from leae.masking import add_noise, draw_gaussian, mask_squares
from leae.randomness import generator
from leae.reconstruction import ReconstructionLoss, gaussian_kl, latent_from
from leae.sigreg import draw_directions, sigreg_along
from leae.training.device import autocast, compiled, find_device
from leae.training.evaluation import Evaluation, MaskedViews, NoisyViews, grid_rows, report, sample_rows, summary
from leae.training.loop import Progress, Schedule, StopSignal
from leae.training.settings import configure

gpu = torch.cuda.is_available()

# --- data
DATASET = "auto"  # celeba, faces (rendered), auto (either), mnist, fashion-mnist, cifar10, digits, folder, .npy or .npz
CLASSES = True  # sub-folders are classes, where DATASET is FOLDER/CLASS/… or FOLDER/train/CLASS/… (test, val)
CHANNELS = 0  # of images: 1 grey, 3 in colour; 0: as they are, 1 if all are grey
UPSCALE = False  # True: images of a folder or an array that are smaller than IMAGE_SIZE are taken, scaled up
IMAGE_SIZE = 128 if gpu else 64  # side in pixels, a multiple of 8; MODEL "conv" makes it 32
FACES = 50_000 if gpu else 8_192  # rendered faces to train on, if DATASET means them; others are held out
HELD_OUT = 20_000 if gpu else 1_000  # at most so many held-out images for evaluation

# --- model
MODEL = "residual"  # "residual": main.py's; "conv": the small one for 32×32 pixels
LATENT = "pooled"  # "pooled": one vector per image; "spatial": a vector for every 8×8 pixels
LATENT_DIM = 128  # size of a pooled latent
SPATIAL_DIM = 32  # channels of a spatial latent; divides 8 × HIDDEN_DIM, 4 × HIDDEN_DIM if variational
HIDDEN_DIM = 128 if gpu else 32  # width of the convolutions
MAP_CHANNELS = 128 if gpu else 32  # channels of the map under a pooled latent; divides 8 × HIDDEN_DIM
CONV_LATENT_DIM = 32  # size of the latent of MODEL "conv"

# --- objective
OBJECTIVE = "masked"  # "masked", "plain", "denoising" or "variational": see `corrupt` and `loss_terms`
RECONSTRUCTION_LOSS = "mse"  # "mse", or "bce": binary cross-entropy
OUTPUT = "sigmoid"  # "sigmoid": pixels in [0, 1]; "linear": pixels scaled to [−1, 1], with the loss mse
MASK_RATIO = 0.35  # share of the image's area that a masked view hides, between 0 and 1
NOISE = 0.2  # σ of the noise of "denoising", in the units of pixels from 0 to 1
SIGREG_WEIGHT = 0.0  # λ: weight of SIGReg, but for variational codes; at least 0, which is none
BETA = 1.0  # β, weight of the KL divergence of "variational"; 1: the ELBO; at least 0

# --- optimisation
BATCH_SIZE = 128 if gpu else 64  # images per step, at least 2
EPOCHS = 50  # passes over the training images
MAX_STEPS = 0 if gpu else 640  # upper limit on the number of steps; 0: no limit
LEARNING_RATE = 1e-3 if gpu else 2e-3  # AdamW's, at its peak
WARMUP = 0.02  # share of the run in which the learning rate rises, below 1
SCHEDULE = "cosine"  # after the rise: "cosine" falls to zero, "constant" stays
WEIGHT_DECAY = 0.01  # AdamW's; with 0 it is Adam

# --- the run
SEED = 0  # of everything random: weights, order, masks, noise
DEVICE = "auto"  # where to train: "cuda", "mps" (an Apple GPU) or "cpu"; "auto": the first one available
PRECISION = "auto"  # of the layers: "float32", "bfloat16", or "auto": bfloat16 if the device supports it
COMPILE = gpu  # compile a step: a minute's wait, then faster steps; skipped without a compiler
LOG_EVERY = 10  # steps between rows of metrics.csv
GRID_EVERY = 2000 if gpu else 200  # steps between evaluations, with their grids
GRID_IMAGES = 10  # images in a grid, at most 100
SAVE_MINUTES = 3.0  # minutes between writes of last.safetensors, which --resume reads
TRACKER = ""  # "tensorboard" or "wandb": metrics and grids there as well; an extra of this name installs it
NAME = ""  # the run's folder is runs/NAME; by default, its kind and a number
INIT = ""  # initial weights: a checkpoint, a run's folder or an exported one
RESUME = ""  # a run's folder to resume; it keeps its settings


def corrupt(images: Tensor, draws: torch.Generator) -> Tensor:
    """The model's input for a batch of images."""
    if OBJECTIVE == "masked":
        return mask_squares(images, MASK_RATIO, draws)
    if OBJECTIVE == "denoising":
        return add_noise(images, NOISE, draw_gaussian(images, draws))
    return images


def main() -> None:
    run = configure(globals(), "masked", "plain", "denoising", "variational")  # by the command line, or as RESUME began
    reconstruction_loss = ReconstructionLoss(RECONSTRUCTION_LOSS, OUTPUT)
    schedule = Schedule(EPOCHS, MAX_STEPS, LEARNING_RATE, WARMUP, SCHEDULE)
    device = find_device(DEVICE)
    channels = run.data.get("channels") or channels_of(DATASET, CHANNELS)
    torch.manual_seed(SEED)
    variational = OBJECTIVE == "variational"
    if MODEL == "conv":
        kind = VariationalConvAutoencoder if variational else ConvAutoencoder
        # The masked one matches main.py's, batch norm included; the others are textbook models.
        model = build(kind, channels, CONV_LATENT_DIM, OUTPUT, batch_norm=OBJECTIVE == "masked")
    else:
        kind = VariationalAutoencoder if variational else Autoencoder
        latent_dim = LATENT_DIM if LATENT == "pooled" else SPATIAL_DIM
        model = build(kind, IMAGE_SIZE, channels, HIDDEN_DIM, LATENT, latent_dim, MAP_CHANNELS, OUTPUT)
    model = model.to(device, memory_format=torch.channels_last)
    run.load_initial_weights(model)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)

    def draw(images: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """What is random in a step: the model's input, and the posterior's noise or SIGReg's directions, if in use."""
        if variational:
            return images, draw_gaussian(images.new_empty(len(images), *model.latent_shape), draws)
        return corrupt(images, draws), draw_directions(model.latent_shape[0], draws) if SIGREG_WEIGHT else None

    def loss_terms(model: nn.Module, images: Tensor, corrupted: Tensor, drawn: Tensor | None) -> dict[str, Tensor]:
        """The loss of a batch and its summands, by name."""
        if variational:
            mean, log_variance = model.posterior(images)
            raw = model.decoder(latent_from(mean, log_variance, drawn))
            # Both are summed over an image's dimensions and averaged over the batch; see `gaussian_kl`.
            reconstruction = images[0].numel() * reconstruction_loss(raw, images)
            kl = gaussian_kl(mean, log_variance)
            return {"loss": reconstruction + BETA * kl, "reconstruction": reconstruction, "kl": kl}
        code = model.encode(corrupted)
        reconstruction = reconstruction_loss(model.decoder(code), images)
        if SIGREG_WEIGHT == 0:
            return {"loss": reconstruction}
        regularity = SIGREG_WEIGHT * sigreg_along(drawn, code)
        return {"loss": reconstruction + regularity, "reconstruction": reconstruction, "sigreg": regularity}

    reading = {"classes": CLASSES, "channels": channels, "upscale": UPSCALE}  # it is prepared, if it was not
    dataset = open_dataset(DATASET, IMAGE_SIZE, FACES, run.data.get("identity"), BATCH_SIZE, **reading)
    init_processes(device)
    split = dataset.validation_split  # "valid" where there is one, else "test"
    train, held_out = dataset.images["train"], dataset.images[split][:HELD_OUT]
    batches = Batches(train, BATCH_SIZE, SEED, device)
    views = NoisyViews(NOISE) if OBJECTIVE == "denoising" else MaskedViews(IMAGE_SIZE, MASK_RATIO)  # of held-out images
    evaluate = Evaluation(train, held_out, views, device)
    shown = {"train": to_float(train[:GRID_IMAGES], device), split: to_float(held_out[:GRID_IMAGES], device)}
    total_steps = schedule.total_steps(batches.steps_per_epoch)
    start = run.create_or_restore(dataset, total_steps, model, optimizer)

    compute_terms = data_parallel(compiled(loss_terms, device) if COMPILE else loss_terms, model)
    progress = Progress(start, total_steps, BATCH_SIZE)
    with StopSignal() as stop:  # the first signal asks to stop, a later one ends
        for step in progress:  # runs once more after the last step, to evaluate
            due = step % GRID_EVERY == 0 or step in run.milestones
            if due or stop.requested or progress.minutes > SAVE_MINUTES:
                run.save(step, model, optimizer)
                if due and not stop.requested:
                    measures = evaluate(model)
                    run.log(split, step, step / batches.steps_per_epoch, measures)
                    run.plot_metrics()
                    progress.report(summary(measures))
                    for name, images in shown.items():
                        run.draw(name, step, grid_rows(model, images, views))
                    if variational:
                        run.draw("samples", step, sample_rows(model, GRID_IMAGES, SEED, device))
                progress.restart()
            if stop.requested or step == total_steps:
                break

            images = batches.at(step)
            learning_rate = schedule.learning_rate_at(step, total_steps)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.zero_grad()
            with autocast(device, PRECISION):
                terms = compute_terms(images, *draw(images, generator(SEED, "step", step, device)))
            terms["loss"].backward()
            optimizer.step()

            made = step + 1
            if made % LOG_EVERY == 0 or made == total_steps:  # the only place where the host waits for the device
                terms = stop.agree(terms)
                speed = {"images_per_second": progress.show(terms)}
                run.log("train", made, made / batches.steps_per_epoch, speed | terms | {"learning_rate": learning_rate})
    if stop.requested:
        stop.exit(step, run.folder)
    print(f"{summary(measures)}\n{report(run.rows)}")
    print(f"grids: {run.folder}/grids")


if __name__ == "__main__":
    run_command(main)
