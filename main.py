"""Train an autoencoder that teaches itself: no pixel loss, a slowly refreshed copy of its encoder is the judge.

    uv run main.py                                          train with the constants below
    uv run main.py --dataset path/to/images --epochs 5      set constants for one run: your own images
    uv run main.py --resume runs/self-teaching-001          resume a run that was stopped
    uv run torchrun --nproc-per-node 8 main.py              on eight GPUs

Edit the constants and run again. Some have two values: the first is used on a GPU, the second, which trains in minutes,
without one.
"""

import torch

from leae.autoencoder import Autoencoder, build
from leae.conv_autoencoder import ConvAutoencoder
from leae.data.batches import Batches, to_float
from leae.data.prepare import open_dataset
from leae.data.sources import channels_of
from leae.distributed import data_parallel, init_processes
from leae.errors import run_command
from leae.judge import Judge
from leae.objective import SelfTeachingObjective
from leae.randomness import generator
from leae.training.device import autocast, compiled, find_device
from leae.training.evaluation import Evaluation, MaskedViews, grid_rows, report, summary
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
CROP_RATIOS = (0.15, 1.0)  # sides of the judged crops, as shares of the image's; published: 0.15; digits: 0.5, 1.0
SIGREG_WEIGHT = 0.1  # λ: weight of SIGReg, which pulls codes to N(0, I); published: 0.03
JUDGE_DECAY = 0.99  # of the judge, an EMA of the encoder; published: 0, a new copy at every step
JUDGE_LIVE = False  # True: the judge is the encoder itself, and is trained; for the ablation
JUDGE_NORM = "whitened"  # statistics that normalise codes: "shared": real views'; "own": published; "whitened": + W
WHITENING_EPSILON = 1.0  # ε of W, a share of the codes' mean variance: the smaller, the more weak directions count

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
COMPILE = gpu  # compile a step: a minute's wait, then faster steps; skipped without a compiler
LOG_EVERY = 10  # steps between rows of metrics.csv
GRID_EVERY = 2000 if gpu else 200  # steps between evaluations, with their grids
GRID_IMAGES = 10  # images in a grid, at most 100
SAVE_MINUTES = 3.0  # minutes between writes of last.safetensors, which --resume reads
TRACKER = ""  # "tensorboard" or "wandb": metrics and grids there as well; an extra of this name installs it
NAME = ""  # the run's folder is runs/NAME; by default, its kind and a number
INIT = ""  # initial weights: a checkpoint, a run's folder or an exported one
RESUME = ""  # a run's folder to resume; it keeps its settings


def main() -> None:
    run = configure(globals(), "self-teaching")  # by the command line or, with RESUME, as that run began
    schedule = Schedule(EPOCHS, MAX_STEPS, LEARNING_RATE, WARMUP, SCHEDULE)
    device = find_device(DEVICE)
    channels = run.data.get("channels") or channels_of(DATASET, CHANNELS)
    torch.manual_seed(SEED)
    if MODEL == "conv":
        model = build(ConvAutoencoder, channels, CONV_LATENT_DIM, batch_norm=True)
    else:
        latent_dim = LATENT_DIM if LATENT == "pooled" else SPATIAL_DIM
        model = build(Autoencoder, IMAGE_SIZE, channels, HIDDEN_DIM, LATENT, latent_dim, MAP_CHANNELS)
    model = model.to(device, memory_format=torch.channels_last)
    objective = SelfTeachingObjective(OBJECTIVE, MASK_RATIO, CROP_RATIOS, SIGREG_WEIGHT)
    judge = Judge(model.encoder, JUDGE_DECAY, JUDGE_NORM, WHITENING_EPSILON, objective.crop_ratios, JUDGE_LIVE)
    run.load_initial_weights(model, judge)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)

    reading = {"classes": CLASSES, "channels": channels, "upscale": UPSCALE}  # it is prepared, if it was not
    dataset = open_dataset(DATASET, IMAGE_SIZE, FACES, run.data.get("identity"), BATCH_SIZE, **reading)
    init_processes(device)
    split = dataset.validation_split  # "valid" where there is one, else "test"
    train, held_out = dataset.images["train"], dataset.images[split][:HELD_OUT]
    batches = Batches(train, BATCH_SIZE, SEED, device)
    views = MaskedViews(IMAGE_SIZE, MASK_RATIO)  # of held-out images
    evaluate = Evaluation(train, held_out, views, device)
    shown = {"train": to_float(train[:GRID_IMAGES], device), split: to_float(held_out[:GRID_IMAGES], device)}
    total_steps = schedule.total_steps(batches.steps_per_epoch)
    start = run.create_or_restore(dataset, total_steps, model, optimizer, judge)

    compute_terms = data_parallel(compiled(objective.terms, device) if COMPILE else objective.terms, model)
    progress = Progress(start, total_steps, BATCH_SIZE)
    with StopSignal() as stop:  # the first signal asks to stop, a later one ends
        for step in progress:  # runs once more after the last step, to evaluate
            due = step % GRID_EVERY == 0 or step in run.milestones
            if due or stop.requested or progress.minutes > SAVE_MINUTES:
                run.save(step, model, optimizer, judge)
                if due and not stop.requested:
                    measures = evaluate(model, judge)
                    run.log(split, step, step / batches.steps_per_epoch, measures)
                    run.plot_metrics()
                    progress.report(summary(measures))
                    for name, images in shown.items():
                        run.draw(name, step, grid_rows(model, images, views))
                progress.restart()
            if stop.requested or step == total_steps:
                break

            images = batches.at(step)
            learning_rate = schedule.learning_rate_at(step, total_steps)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.zero_grad()
            draws = objective.draw(judge, images, generator(SEED, "step", step, device), step)
            with autocast(device, PRECISION):
                terms = compute_terms(judge, images, draws)
            terms["loss"].backward()
            optimizer.step()
            judge.update(model.encoder)

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
