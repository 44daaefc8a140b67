"""Train an autoencoder that teaches itself: no pixel loss, a slowly refreshed copy of its encoder is the judge.

    uv run main.py                                          train with the constants below
    uv run main.py --latent-dim 512 --epochs 5              set constants for one run
    uv run main.py --objective crop --latent spatial        best reconstructions
    uv run main.py --dataset path/to/images                 your own images
    uv run main.py --model conv --dataset digits            the small model, on scikit-learn's digits
    uv run main.py --resume runs/self-teaching-001          go on with a run that was stopped
    uv run torchrun --nproc-per-node 8 main.py              on eight GPUs

Edit the constants and run again. Where a constant has two values, the first is for a GPU, and published unless the
comment says otherwise; the second is for a CPU, where the run ends within minutes.
"""

import torch

from leae import conv_autoencoder
from leae.autoencoder import Autoencoder, build
from leae.conv_autoencoder import ConvAutoencoder
from leae.data.prepare import Batches, channels_of, find_source, open_dataset, to_float
from leae.distributed import data_parallel, join
from leae.errors import run_command
from leae.judge import Judge
from leae.objective import SelfTeachingObjective
from leae.randomness import generator
from leae.training.device import autocast, compile_if_it_works, describe, device_name, find_device
from leae.training.evaluation import MaskedViews, grid_rows, held_out_psnr, summary
from leae.training.monitoring import CollapseWatch
from leae.training.progress import Pace
from leae.training.run import Run, begin, milestones
from leae.training.schedule import count_steps, learning_rate_factor
from leae.training.settings import constants_of, decide, require_common, require_numbers, require_text, require_tuples

KIND = "self-teaching"
GPU = torch.cuda.is_available()

# --- data
DATASET = "auto"  # celeba, faces (rendered), auto (one of these), mnist, fashion-mnist, cifar10, digits, or a folder
IMAGE_SIZE = 128 if GPU else 64  # side in pixels, a multiple of 8; MODEL "conv" makes it 32
FACES = 50_000 if GPU else 8_192  # rendered faces to train on, if it is those; a tenth as many are held out
HELD_OUT = 20_000 if GPU else 1_000  # images of the test split that figures are taken on, at most

# --- model
MODEL = "residual"  # "residual", or "conv": the small one for 32×32 pixels
LATENT = "pooled"  # "pooled": one vector per image; "spatial": a vector for every 8×8 pixels
LATENT_DIM = 128  # numbers per image of a pooled latent; 128 and 512 published
SPATIAL_DIM = 32  # numbers per 8×8 pixels of a spatial latent; divides 8 × HIDDEN_DIM
HIDDEN_DIM = 128 if GPU else 32  # width of the convolutions
MAP_CHANNELS = 128 if GPU else 32  # channels of the map under a pooled latent; divides 8 × HIDDEN_DIM
CONV_LATENT_DIM = 32  # numbers per image of MODEL "conv"

# --- objective
OBJECTIVE = "symmetric"  # "symmetric": clean and masked views, three kinds of terms; "crop": clean crops only
MASK_RATIO = 0.35  # share of the image's area that the masked view hides, between 0 and 1
CROP_RATIOS = (0.15,) if GPU else (0.15, 1.0)  # sides of the judged crops as shares of the image's, 1 is all of it
SIGREG_WEIGHT = 0.03  # λ: how strongly the codes are kept Gaussian, 0.01 to 0.1
JUDGE_DECAY = 0.99  # how slowly the judge follows the encoder; published 0, frozen within a step only
JUDGE_RULER = (
    "shared"  # what reconstructions are normalised by: "shared", the real views; "own" (published), themselves
)

# --- optimisation
BATCH_SIZE = 128 if GPU else 64  # images per step, at least 2
EPOCHS = 50  # passes over the training images
MAX_STEPS = 0 if GPU else 640  # the run ends after so many steps if its epochs are longer; 0 is no limit
LEARNING_RATE = 1e-3 if GPU else 2e-3  # AdamW's, at its peak
WARMUP = 0.02  # share of the run in which the learning rate rises from zero, 0 to 1
SCHEDULE = "cosine"  # after the rise: "cosine" falls to zero, "constant" stays
WEIGHT_DECAY = 0.01  # AdamW's

# --- the run
SEED = 0  # of everything random: weights, order, masks, boxes, directions
DEVICE = "cuda" if GPU else "cpu"  # where to train
COMPILE = GPU  # compile the convolutions: faster steps after a minute; without a compiler they stay as they are
LOG_EVERY = 10  # steps between rows of metrics.csv
GRID_EVERY = 2000 if GPU else 200  # steps between grids and held-out figures
GRID_IMAGES = 10  # images in a grid
SAVE_MINUTES = 3.0  # minutes between writes of last.pt, from which --resume goes on
RESUME = ""  # a run's folder to go on with; everything else is then as that run began


def main() -> None:
    # --- settings: the constants above, then the command line, or those of the run that is resumed
    run, chosen = begin(globals(), KIND)

    # --- set-up; whatever can be refused is refused here, before any work
    require_common(globals(), chosen)
    require_numbers(MASK_RATIO=MASK_RATIO, SIGREG_WEIGHT=SIGREG_WEIGHT, JUDGE_DECAY=JUDGE_DECAY)
    require_tuples(CROP_RATIOS=CROP_RATIOS)
    require_text(JUDGE_RULER=JUDGE_RULER)
    device = join(find_device(DEVICE))
    torch.manual_seed(SEED)
    channels = channels_of(DATASET)
    if MODEL == "conv":
        decide(globals(), chosen, "MODEL conv", IMAGE_SIZE=conv_autoencoder.IMAGE_SIZE)
        model = build(ConvAutoencoder, channels, CONV_LATENT_DIM, batch_norm=True)
    else:
        latent_dim = LATENT_DIM if LATENT == "pooled" else SPATIAL_DIM
        model = build(Autoencoder, IMAGE_SIZE, channels, HIDDEN_DIM, LATENT, latent_dim, MAP_CHANNELS)
    model = model.to(device, memory_format=torch.channels_last)
    judge = Judge(model.encoder, JUDGE_DECAY, JUDGE_RULER)
    objective = SelfTeachingObjective(IMAGE_SIZE, OBJECTIVE, MASK_RATIO, CROP_RATIOS, SIGREG_WEIGHT)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    resumable = {"judge": judge, "optimizer": optimizer}

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
    views = MaskedViews(MASK_RATIO)

    # --- the run's folder
    start = 0
    if run is None:
        measures = ["psnr_clean", "psnr_masked"]
        constants = constants_of(globals())
        run = Run.create(KIND, constants, objective.term_names, measures, source.identity, device_name(device))
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
        watch.look(step, model=model, judge=judge)
        run.look(step, step / batches.steps_per_epoch, quality, grids, model, resumable, keep.get(step, []))
        return quality

    # --- training
    if COMPILE:
        compile_if_it_works(model.encoder, model.decoder, judge.encoder)
    compute_terms = data_parallel(objective, model)
    quality = look(0) if start == 0 else None
    pace = Pace(start, total_steps, BATCH_SIZE)
    for step in pace:
        images = batches.at(step)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * learning_rate_factor(step, total_steps, WARMUP, SCHEDULE)

        with autocast(device):
            terms = compute_terms(judge, images, generator(SEED, "step", step, device))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        judge.update(model.encoder)

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
