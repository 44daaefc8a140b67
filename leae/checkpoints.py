"""Save, find and load models. Checkpoints are safetensors files: atomic, with a checksum, nothing can be executed.

A file's metadata have one entry, "leae", JSON that tells how to make its model again: format, class, settings, step,
and a CRC-32 of these and of the tensors. Every altered byte is noticed (a forger, who can compute a CRC, is not). The
tensors are "model.<name>" and, in last.safetensors, from which a run resumes, "judge.<name>" and
"optimizer.<parameter>.<moment>".
"""

import json
import re
import zlib
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from leae.autoencoder import Autoencoder, BaseAutoencoder, VariationalAutoencoder
from leae.conv_autoencoder import ConvAutoencoder, VariationalConvAutoencoder
from leae.errors import UsageError, first_line, is_installed
from leae.files import as_utf8, atomic_write, fetch_snapshot

FORMAT = 3
WEIGHTS, CONFIG, SETTINGS = "model.safetensors", "config.json", "settings.json"  # an exported folder's files
MOST_STEPS = 10**12
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's state of a parameter
# What a checkpoint's model may be.
MODELS = {m.__name__: m for m in (Autoencoder, VariationalAutoencoder, ConvAutoencoder, VariationalConvAutoencoder)}
# What reading a damaged file, or building what a forged one asks for, raises.
MALFORMED = (SafetensorError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, OverflowError)


def state_of(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None, judge: nn.Module | None = None
) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their names."""
    state = model.state_dict(prefix="model.")
    if judge:  # whose weights are copied, as a live one's are the encoder's
        state |= {name: tensor.clone() for name, tensor in judge.state_dict(prefix="judge.").items()}
    for name, parameter in model.named_parameters() if optimizer else ():
        moments = optimizer.state.get(parameter, {})
        state |= {f"optimizer.{name}.{moment}": tensor for moment, tensor in moments.items()}
    return state


def write_checkpoint(path: Path, model: BaseAutoencoder, step: int, state: dict[str, Tensor], **about) -> None:
    """Write a checkpoint of a model that has had so many optimizer steps; the state is from `state_of`.

    What a run resumes from is also told about the run: `run` are its settings.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
    header = {"format": FORMAT, "class": type(model).__name__, "settings": model.settings, "step": step, **about}
    content = save(tensors, {"leae": json.dumps({**header, "crc32": _checksum(header, tensors)})})
    with atomic_write(path, "wb") as file:
        file.write(content)


def read_checkpoint(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """What `write_checkpoint` wrote: "class", "settings", "step" and "run" by name, and all tensors, on the CPU.

    A `UsageError` if the file is damaged, is no checkpoint of this project, or holds non-finite numbers; an OSError
    that names it if it is missing or cannot be read.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a file; expected one of those in a run's checkpoints folder")
    if as_utf8(str(path)) != str(path):
        raise UsageError(f"{path} cannot be opened by safetensors, as its name is not UTF-8; rename it")
    path.open("rb").close()  # safetensors' own errors do not name the file
    try:
        with safe_open(path, "pt") as file:  # refuses a header that does not fit the file's size
            header = json.loads(file.metadata()["leae"])
            if header["format"] != FORMAT:
                raise ValueError(f"its format is {header['format']!r:.20}; this version reads format {FORMAT}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dictionary
        if header.pop("crc32") != _checksum(header, tensors):
            raise ValueError("its checksum differs")
        if header["class"] not in MODELS or type(header["step"]) is not int or not 0 <= header["step"] <= MOST_STEPS:
            raise ValueError(f"its model is a {header['class']!r:.40} of step {header['step']!r:.20}")
        header.setdefault("run", {}).items()
        bad = first_non_finite(tensors)
    except (*MALFORMED, RecursionError) as error:
        raise UsageError(f"{path} is not a checkpoint of leae, or is damaged ({first_line(error)})") from error
    if bad:
        raise UsageError(f"{path} holds {bad[1]} in {bad[0]}; the run that wrote it had diverged")
    return header, tensors


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> tuple[BaseAutoencoder, int]:
    """The model of a checkpoint on a device, in evaluation mode, and how many optimizer steps it has had.

    Raises what `read_checkpoint` does, a `UsageError` if the weights are not those of a model with the checkpoint's
    settings, and PyTorch's error for a device that is not there.
    """
    header, tensors = read_checkpoint(Path(path))
    kind, weights = MODELS[header["class"]], part_of(tensors, "model")
    try:
        with torch.device("meta"):  # shapes alone: what the settings ask for may be more than there is memory
            kind(**header["settings"]).load_state_dict(weights, assign=True)
        model = kind(**header["settings"])
        model.load_state_dict(weights)
    except MALFORMED as error:
        raise UsageError(f"{path}: the weights do not fit the stored settings ({first_line(error)})") from error
    return model.to(device).eval(), header["step"]


def restore_checkpoint(
    path: Path, model: BaseAutoencoder, optimizer: torch.optim.Optimizer, judge: nn.Module | None = None
) -> tuple[int, dict]:
    """Bring model, optimizer and judge to where a checkpoint left them; their optimizer steps, the run's settings.

    Raises what `read_checkpoint` does, and a `UsageError` if the checkpoint is of another model than this.
    """
    header, tensors = read_checkpoint(path)
    try:
        if (header["class"], header["settings"]) != (type(model).__name__, model.settings):
            raise ValueError("its model has other settings")
        model.load_state_dict(part_of(tensors, "model"))
        if judge:
            judge.load_state_dict(part_of(tensors, "judge"))
        moments = part_of(tensors, "optimizer")
        for name, parameter in model.named_parameters() if header["step"] else ():
            for moment in MOMENTS:  # in the parameter's memory layout, which the fused kernel takes for granted
                like = parameter.new_zeros(()) if moment == "step" else parameter.detach()
                stored = moments[f"{name}.{moment}"].view(like.shape)
                optimizer.state[parameter][moment] = torch.empty_like(like).copy_(stored)
    except MALFORMED as error:
        raise UsageError(f"{path} does not fit this run ({first_line(error)}); start a new run") from error
    return header["step"], header["run"]


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors "<prefix>.<name>" by <name>."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _checksum(header: dict, tensors: dict[str, Tensor]) -> str:
    checksum = zlib.crc32(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), checksum)
        checksum = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), checksum)
    return f"{checksum:08x}"


def first_non_finite(tensors: dict[str, Tensor]) -> tuple[str, float] | None:
    """The name of the first tensor with a number that is not finite, and that number; None if all are finite."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            return name, tensor[~tensor.isfinite()][0].item()
    return None


def find_weights(name: str | Path, checkpoints: tuple[str, ...] = ("100", "last")) -> Path:
    """The checkpoint that is meant by a path, or by a hub's "owner/name", which is fetched if there is no such path.

    An exported folder's is model.safetensors, a run's the first of some checkpoints that is there; a folder without
    any is returned as it is. A hub is never asked for what is in a folder here. `UsageError` if fetching is not
    possible.
    """
    path = Path(name)
    if path.is_dir():
        kept = path / "checkpoints"
        found = [kept / f"{name}.safetensors" for name in checkpoints] if kept.is_dir() else [path / WEIGHTS]
        return next((file for file in found if file.is_file()), path)
    if path.exists() or path.parent.is_dir() or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(name)):
        return path
    missing = f"there is no {name} here"
    if not is_installed("huggingface_hub") or version("huggingface_hub").startswith("0."):
        advice = "correct the path or, for a model on a hub, install huggingface-hub>=1.0"
        raise UsageError(f"{missing}, and huggingface_hub, which would fetch it, is not installed, or old; {advice}")
    try:
        return fetch_snapshot(str(name), allow_patterns=[WEIGHTS, CONFIG, SETTINGS]) / WEIGHTS
    except Exception as error:  # whatever a network, a proxy or their libraries may raise
        said = f"{missing}, and it cannot be fetched from the hub ({first_line(error)})"
        raise UsageError(f"{said}; correct the name, or try online") from error


def load(path: str | Path, device: torch.device | str = "cpu") -> BaseAutoencoder:
    """A trained model, in evaluation mode and without gradients: `leae.load("runs/self-teaching-001")`.

    The path is a checkpoint, a run's folder (its checkpoint 100, else last), a folder that `export` made, or an
    "owner/name" on a model hub. Raises what `find_weights` and `load_checkpoint` do.
    """
    return load_checkpoint(find_weights(path), device)[0].requires_grad_(False)
