"""Train an autoencoder that teaches itself: no pixel loss, a slowly refreshed copy of its encoder is the judge.

    uv run main.py                                          train with the constants below
    uv run main.py --dataset path/to/images --epochs 5      set constants for one run: your own images
    uv run main.py --resume runs/self-teaching-001          resume a run that was stopped
    uv run torchrun --nproc-per-node 8 main.py              on eight GPUs

Edit the constants and run again. Where there are two values, the second, without a GPU, runs in minutes.
"""

import leae.training.help  # noqa: F401, I001  answers --help before PyTorch is imported, which takes seconds
import torch

from leae.autoencoder import Autoencoder, build
from leae.conv_autoencoder import ConvAutoencoder
from leae.data.batches import Batches, to_float
from leae.data.prepare import open_dataset
from leae.data.sources import channels_of
from leae.distributed import data_parallel, init_processes
from leae.errors import run_command, say
from leae.judge import Judge
from leae.objective import SelfTeachingObjective
from leae.randomness import generator, seed_weights
from leae.training.device import autocast, compile_if_it_works, find_device
from leae.training.evaluation import MaskedViews, evaluate, grid_rows, summary
from leae.training.monitoring import CodeMonitor
from leae.training.progress import Progress
from leae.training.run import milestones
from leae.training.schedule import Schedule, adamw
from leae.training.settings import configure
from leae.training.signals import StopSignal

gpu = torch.cuda.is_available()

# --- data
DATASET = "auto"  # celeba, faces (rendered), auto (one of these), mnist, fashion-mnist, cifar10, digits, or a folder
IMAGE_SIZE = 128 if gpu else 64  # side in pixels, a multiple of 8; MODEL "conv" makes it 32
FACES = 50_000 if gpu else 8_192  # rendered faces to train on, if DATASET means them; others are held out
HELD_OUT = 20_000 if gpu else 1_000  # at most so many held-out images for evaluation

# --- model
MODEL = "residual"  # "residual", or "conv": the small one for 32×32 pixels
LATENT = "pooled"  # "pooled": one vector per image; "spatial": a vector for every 8×8 pixels
LATENT_DIM = 128  # size of a pooled latent; published: 128, 512
SPATIAL_DIM = 32  # channels of a spatial latent; divides 8 × HIDDEN_DIM
HIDDEN_DIM = 128 if gpu else 32  # width of the convolutions
MAP_CHANNELS = 128 if gpu else 32  # channels of the map under a pooled latent; divides 8 × HIDDEN_DIM
CONV_LATENT_DIM = 32  # size of the latent of MODEL "conv"

# --- objective
OBJECTIVE = "symmetric"  # "symmetric": clean and masked view; "alternating": one per image; "crop": clean view
MASK_RATIO = 0.35  # share of the image's area that the masked view hides, between 0 and 1
CROP_RATIOS = (0.15, 1.0)  # sides of the judged crops, as shares of the image's; 1: all of it; published: 0.15
SIGREG_WEIGHT = 0.1  # λ: weight of SIGReg, which pulls codes to N(0, I); published: 0.03
JUDGE_DECAY = 0.99  # of the judge, an EMA of the encoder; published: 0, a new copy at every step
JUDGE_LIVE = False  # True: the judge is the encoder itself, and is trained; for the ablation
JUDGE_RULER = "whitened"  # whose statistics to use: "shared": real views'; "own": its own (published); "whitened": + W
RULER_EPSILON = 1.0  # ε of W, a share of the codes' mean variance: the smaller, the more weak directions count

# --- optimisation
BATCH_SIZE = 128 if gpu else 64  # images per step, at least 2
EPOCHS = 50  # passes over the training images
MAX_STEPS = 0 if gpu else 640  # upper limit on the number of steps; 0: no limit
LEARNING_RATE = 1e-3 if gpu else 2e-3  # AdamW's, at its peak
WARMUP = 0.02  # share of the run in which the learning rate rises, below 1
SCHEDULE = "cosine"  # after the rise: "cosine" falls to zero, "constant" stays
WEIGHT_DECAY = 0.01  # AdamW's

# --- the run
SEED = 0  # of everything random: weights, order, masks, boxes, directions
DEVICE = "auto"  # where to train: "cuda", "mps" (an Apple GPU) or "cpu"; "auto": the first one available
PRECISION = "auto"  # of the layers: "float32", "bfloat16", or "auto": bfloat16 if the device supports it
COMPILE = gpu  # compile the convolutions: a minute's wait, then faster steps; skipped without a compiler
LOG_EVERY = 10  # steps between rows of metrics.csv
GRID_EVERY = 2000 if gpu else 200  # steps between evaluations, with their grids
GRID_IMAGES = 10  # images in a grid, at most 100
SAVE_MINUTES = 3.0  # minutes between writes of last.safetensors, which --resume reads
NAME = ""  # the run's folder is runs/NAME; by default, its kind and a number
INIT = ""  # initial weights: a checkpoint, a run's folder or an exported one
RESUME = ""  # a run's folder to resume; it keeps its settings


def main() -> None:
    run = configure(globals(), "self-teaching")  # by the command line or, with RESUME, as that run began
    schedule = Schedule(EPOCHS, MAX_STEPS, LEARNING_RATE, WARMUP, SCHEDULE)
    device = find_device(DEVICE, PRECISION)
    seed_weights(SEED)
    if MODEL == "conv":
        model = build(ConvAutoencoder, channels_of(DATASET), CONV_LATENT_DIM, batch_norm=True)
    else:
        latent_dim = LATENT_DIM if LATENT == "pooled" else SPATIAL_DIM
        model = build(Autoencoder, IMAGE_SIZE, channels_of(DATASET), HIDDEN_DIM, LATENT, latent_dim, MAP_CHANNELS)
    model = model.to(device, memory_format=torch.channels_last)
    objective = SelfTeachingObjective(IMAGE_SIZE, OBJECTIVE, MASK_RATIO, CROP_RATIOS, SIGREG_WEIGHT)
    judge = Judge(model.encoder, JUDGE_DECAY, JUDGE_RULER, RULER_EPSILON, objective.crop_ratios, JUDGE_LIVE)
    run.begin(model, judge)
    views = MaskedViews(IMAGE_SIZE, MASK_RATIO)  # that the run is evaluated on
    optimizer = adamw(model, LEARNING_RATE, WEIGHT_DECAY)

    dataset = open_dataset(DATASET, IMAGE_SIZE, FACES, run.identity)  # prepared now, if it was not before
    init_processes(device)
    split = dataset.validation_split  # "valid" where there is one, else "test"
    train, held_out = dataset.images["train"], dataset.images[split][:HELD_OUT]
    batches = Batches(train, BATCH_SIZE, SEED, device)
    total_steps = schedule.total_steps(batches.steps_per_epoch)
    keep, monitor = milestones(total_steps), CodeMonitor(train, held_out, views, device)
    shown = {"train": to_float(train[:GRID_IMAGES], device), split: to_float(held_out[:GRID_IMAGES], device)}
    start = run.start("self-teaching", dataset, total_steps, model, optimizer, judge)

    if COMPILE:
        compile_if_it_works(model.encoder, model.decoder, judge.encoder)
    compute_terms = data_parallel(objective, model)
    progress = Progress(start, total_steps, BATCH_SIZE)
    with StopSignal() as stop:  # the first signal asks to stop, a second one ends
        for step in progress:  # one turn more than steps, for the last evaluation, which is always due
            due = step % GRID_EVERY == 0 or step in keep
            if due or stop.requested or progress.minutes > SAVE_MINUTES:
                run.save(step, model, optimizer, judge, keep.get(step))
                if due and not stop.requested:
                    measures = evaluate(model, held_out, views, device) | monitor(step, encoder=model, judge=judge)
                    run.log(split, step, step / batches.steps_per_epoch, measures)
                    run.plot_metrics()
                    for name, images in shown.items():
                        run.draw(name, step, grid_rows(model, images, views))
                progress.restart(run.psnr)
            if stop.requested or step == total_steps:
                break

            images = batches.at(step)
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate_at(step, total_steps)
            with autocast(device, PRECISION):
                terms = compute_terms(judge, images, generator(SEED, "step", step, device), step)
            optimizer.zero_grad()
            terms["loss"].backward()
            optimizer.step()
            judge.update(model.encoder)

            made = step + 1
            if made % LOG_EVERY == 0 or made == total_steps:
                run.log("train", made, made / batches.steps_per_epoch, progress.measure(terms, stop, optimizer))
    if stop.requested:
        stop.exit(step, run.folder)
    say(summary(measures, views))
    say(f"grids: {run.folder}/grids, the last: {run.folder}/grids/{split}-{total_steps:06d}.png")


if __name__ == "__main__":
    run_command(main)
