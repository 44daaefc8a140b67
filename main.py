"""Train an autoencoder that teaches itself: no pixel loss, a slowly refreshed copy of its encoder is the judge.

    uv run main.py                                          train with the constants below
    uv run main.py --latent-dim 512 --epochs 5              set constants for one run
    uv run main.py --objective crop --latent spatial        best reconstructions
    uv run main.py --dataset path/to/images                 your own images
    uv run main.py --resume runs/self-teaching-001          go on with a run that was stopped

Edit the constants and run again. Where a constant has two values, the first is for a GPU, and published unless the
comment says otherwise; the second is for a CPU, where the run ends within minutes.
"""

import time

import torch
from tqdm import tqdm

from leae.autoencoder import Autoencoder
from leae.device import device_name, find_device
from leae.errors import run_command
from leae.evaluate import grid_rows, held_out_psnr, mean_image_psnr
from leae.judge import Judge
from leae.objective import SelfTeachingObjective
from leae.prep_data import Batches, find_source, open_dataset, to_float
from leae.randomness import generator
from leae.runs import Run, milestones
from leae.schedule import SCHEDULES, learning_rate_factor
from leae.settings import (
    constants_of,
    read_command_line,
    require,
    require_numbers,
    require_tuples,
    require_whole,
)

KIND = "self-teaching"
GPU = torch.cuda.is_available()

# --- data
DATASET = "auto"  # "celeba", "faces" (rendered), a folder of images, or "auto": celeba if it is there, else faces
IMAGE_SIZE = 128 if GPU else 64  # side in pixels, a multiple of 8
FACES = 50_000 if GPU else 8_192  # rendered faces to train on, if it is those; a tenth as many are held out
HELD_OUT = 20_000 if GPU else 1_000  # images of the test split that figures are taken on, at most

# --- model
LATENT = "pooled"  # "pooled": one vector per image; "spatial": a vector for every 8×8 pixels
LATENT_DIM = 128  # numbers per image of a pooled latent; 128 and 512 published
SPATIAL_DIM = 32  # numbers per 8×8 pixels of a spatial latent; divides 8 × HIDDEN_DIM
HIDDEN_DIM = 128 if GPU else 32  # width of the convolutions
MAP_CHANNELS = 128 if GPU else 32  # channels of the map under a pooled latent; divides 8 × HIDDEN_DIM

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
EPOCHS = 50 if GPU else 5  # passes over the training images
MAX_STEPS = 0 if GPU else 640  # the run ends after so many steps if its epochs are longer; 0 is no limit
LEARNING_RATE = 1e-3 if GPU else 2e-3  # AdamW's, at its peak
WARMUP = 0.02  # share of the run in which the learning rate rises from zero, 0 to 1
SCHEDULE = "cosine"  # after the rise: "cosine" falls to zero, "constant" stays
WEIGHT_DECAY = 0.01  # AdamW's

# --- the run
SEED = 0  # of everything random: weights, order, masks, boxes, directions
DEVICE = "cuda" if GPU else "cpu"  # where to train
LOG_EVERY = 10  # steps between rows of metrics.csv
GRID_EVERY = 2000 if GPU else 200  # steps between grids and held-out figures
GRID_IMAGES = 10  # images in a grid
SAVE_MINUTES = 3.0  # minutes between writes of last.pt, from which --resume goes on
RESUME = ""  # a run's folder to go on with; everything else is then as that run began


def main() -> None:
    # --- settings: the constants above, then the command line, or those of the run that is resumed
    chosen = read_command_line(globals())
    globals().update(chosen)
    run = None
    if RESUME:
        run = Run.resume(RESUME, KIND)
        globals().update(run.settings_with(chosen))

    # --- set-up; whatever can be refused is refused here, before any work
    require_whole(0, SEED=SEED, MAX_STEPS=MAX_STEPS)
    require_whole(1, IMAGE_SIZE=IMAGE_SIZE, FACES=FACES, HELD_OUT=HELD_OUT, EPOCHS=EPOCHS)
    require_whole(1, LATENT_DIM=LATENT_DIM, SPATIAL_DIM=SPATIAL_DIM, HIDDEN_DIM=HIDDEN_DIM, MAP_CHANNELS=MAP_CHANNELS)
    require_whole(1, LOG_EVERY=LOG_EVERY, GRID_EVERY=GRID_EVERY, GRID_IMAGES=GRID_IMAGES)
    require_whole(2, BATCH_SIZE=BATCH_SIZE)  # a batch norm needs a batch
    require_numbers(MASK_RATIO=MASK_RATIO, SIGREG_WEIGHT=SIGREG_WEIGHT, JUDGE_DECAY=JUDGE_DECAY)
    require_numbers(LEARNING_RATE=LEARNING_RATE, WARMUP=WARMUP, WEIGHT_DECAY=WEIGHT_DECAY, SAVE_MINUTES=SAVE_MINUTES)
    require_tuples(CROP_RATIOS=CROP_RATIOS)
    require(SEED < 2**63, "SEED", SEED, "below 2**63")
    require(0 < LEARNING_RATE < 1, "LEARNING_RATE", LEARNING_RATE, "above 0 and below 1, say 0.001")
    require(0 <= WEIGHT_DECAY < 1, "WEIGHT_DECAY", WEIGHT_DECAY, "at least 0 and below 1, say 0.01")
    require(SAVE_MINUTES >= 0, "SAVE_MINUTES", SAVE_MINUTES, "at least 0")
    require(0 <= WARMUP < 1, "WARMUP", WARMUP, "at least 0 and below 1, say 0.02")
    require(SCHEDULE in SCHEDULES, "SCHEDULE", SCHEDULE, " or ".join(SCHEDULES))
    device = find_device(DEVICE)
    torch.manual_seed(SEED)
    latent_dim = LATENT_DIM if LATENT == "pooled" else SPATIAL_DIM
    model = Autoencoder(IMAGE_SIZE, 3, HIDDEN_DIM, LATENT, latent_dim, MAP_CHANNELS)
    model = model.to(device, memory_format=torch.channels_last)
    judge = Judge(model.encoder, JUDGE_DECAY, JUDGE_RULER)
    objective = SelfTeachingObjective(IMAGE_SIZE, OBJECTIVE, MASK_RATIO, CROP_RATIOS, SIGREG_WEIGHT)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)

    source = find_source(DATASET, IMAGE_SIZE, FACES)
    count = len(source.splits.get("train", ()))
    require(count >= BATCH_SIZE, "BATCH_SIZE", BATCH_SIZE, f"at most the number of training images, {count}")
    data = {"title": source.title, "fingerprint": source.fingerprint}
    if run is not None:
        run.check_data(data)

    small = "; the model is small, on a GPU it has the published size" if device.type == "cpu" else ""
    print(f"device: {device_name(device)}{small}")
    dataset = open_dataset(source)
    train, test = dataset.images["train"], dataset.images["test"][:HELD_OUT]
    batches = Batches(train, BATCH_SIZE, SEED, device)
    total_steps = EPOCHS * batches.steps_per_epoch
    if MAX_STEPS and total_steps > MAX_STEPS:
        print(f"steps: {MAX_STEPS:,}, by MAX_STEPS; {EPOCHS} epochs would be {total_steps:,}")
        total_steps = MAX_STEPS
    samples = {"train": to_float(train[:GRID_IMAGES], device), "test": to_float(test[:GRID_IMAGES], device)}

    resumable = {"judge": judge, "optimizer": optimizer}
    if run is None:
        start = 0
        settings = {name: value for name, value in constants_of(globals()).items() if name != "RESUME"}
        settings["DATASET"] = source.name  # what "auto" meant
        run = Run.create(KIND, settings, objective.term_names, data, device_name(device))
    else:
        start = run.restore(model, resumable, device)

    print(f"data: {dataset.title}, {len(train):,} images to train on, {len(test):,} held out, {IMAGE_SIZE} pixels wide")
    print(f"model: {LATENT} latent, {model.numbers_per_image:,} numbers an image, {model.compression:.0f}× compression")
    print(f"run: steps {start:,} to {total_steps:,} of {BATCH_SIZE} images; if it is stopped, --resume {run.folder}")

    # --- what is done besides training
    keep = milestones(total_steps)

    def save(step: int) -> None:
        run.save("last", model, step, resumable)

    def look(step: int) -> dict[str, float]:
        """Measure on the held-out images, draw grids and curves, keep the checkpoints that are due."""
        quality = held_out_psnr(model, test, MASK_RATIO, device)
        run.log("test", step, step / batches.steps_per_epoch, quality)
        run.plot_metrics()
        for split, images in samples.items():
            run.save_grid(split, step, grid_rows(model, images, MASK_RATIO))
        for name in keep.get(step, []):
            run.save(name, model, step)
        save(step)
        return quality

    # --- training
    quality = look(0) if start == 0 else None
    bar = tqdm(range(start, total_steps), initial=start, total=total_steps, mininterval=1, dynamic_ncols=True)
    saved = clock = time.perf_counter()  # when last.pt was written; since when `timed` steps have been made
    timed = 0
    for step in bar:
        images = batches.at(step)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * learning_rate_factor(step, total_steps, WARMUP, SCHEDULE)

        terms = objective(model, judge, images, generator(SEED, "step", step, device))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        judge.follow(model.encoder)

        done = step + 1
        timed += 1
        if done % LOG_EVERY == 0 or done == total_steps:
            values = {name: term.item() for name, term in terms.items()}
            speed = timed * BATCH_SIZE / (time.perf_counter() - clock)
            run.log("train", done, done / batches.steps_per_epoch, {"images_per_second": speed, **values})
            bar.set_postfix_str(f"{speed:.0f} img/s, " + ", ".join(f"{name} {v:.3f}" for name, v in values.items()))
            timed, clock = 0, time.perf_counter()
        if done % GRID_EVERY == 0 or done in keep:
            quality = look(done)
            saved = clock = time.perf_counter()
            timed = 0
        elif time.perf_counter() - saved > 60 * SAVE_MINUTES:
            save(done)
            saved = time.perf_counter()

    # --- what came out
    quality = quality or held_out_psnr(model, test, MASK_RATIO, device)  # a finished run, resumed, made no step
    print(
        f"held-out PSNR: {quality['psnr_clean']:.2f} dB for clean, {quality['psnr_masked']:.2f} dB for masked images; "
        f"the training set's mean image scores {mean_image_psnr(train, test):.2f} dB"
    )
    print(f"grids: {run.folder / 'grids'}, the last: {run.folder / 'grids' / f'test-{total_steps:06d}.png'}")


if __name__ == "__main__":
    run_command(main)
