"""Checkpoint files: written whole and with a checksum, read without executing or trusting anything in them.

A file is what `torch.save` writes, followed by a line with the CRC-32 of all that. The checksum tells of damage, of
which every altered or missing byte is noticed. It is no defence against a forger, who can compute it, too: what a
file may contain is checked before PyTorch sees it, and no more memory is taken than the file has bytes.
"""

import io
import pickle
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from leae.autoencoder import Autoencoder, VariationalAutoencoder
from leae.conv_autoencoder import ConvAutoencoder, VariationalConvAutoencoder
from leae.errors import UsageError
from leae.files import whole_file
from leae.training.monitoring import first_non_finite

FORMAT = 2
WITHOUT_CHECKSUM = 1  # the format before, which is read still
LAST_LINE = "\nleae crc32 {:08x}\n"
LAST_LINE_BYTES = len(LAST_LINE.format(0))
BLOCK = 2**24  # bytes read at a time
# What a checkpoint's model may be.
MODELS = {
    model.__name__: model
    for model in (Autoencoder, VariationalAutoencoder, ConvAutoencoder, VariationalConvAutoencoder)
}
# What the pickle inside a checkpoint may name: dictionaries and tensors.
NAMES = re.compile(r"collections OrderedDict|torch\._utils _rebuild_tensor_v2|torch (Float|Double|Long|Int)Storage")
# What PyTorch, or building a model from what it read, raises for a file that is no checkpoint or a damaged one.
UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
)


def write_checkpoint(path: Path, checkpoint: dict) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: where.
        checkpoint: "model" (its class, settings and weights), "step", and "others", state dicts by name.
    """
    content = io.BytesIO()
    torch.save({"format": FORMAT, **checkpoint}, content)
    with whole_file(path, "wb") as file:
        file.write(content.getbuffer())
        file.write(LAST_LINE.format(zlib.crc32(content.getbuffer())).encode())


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict:
    """What `write_checkpoint` wrote.

    Args:
        path: of the file.
        device: where its tensors are to be.

    Raises:
        UsageError: the file is missing, is damaged, or is not a checkpoint of this project.
    """
    if not path.exists():
        raise UsageError(f"there is no checkpoint {path}; see the run's checkpoints folder for those there are")
    if not path.is_file():
        raise UsageError(f"{path} is no file; a checkpoint is one of the .pt files in a run's checkpoints folder")
    try:
        sealed = _is_sealed(path)
        _inspect(path, sealed)
        checkpoint = torch.load(path, map_location=device, weights_only=True)
        found = checkpoint["format"]
        if found == (WITHOUT_CHECKSUM if sealed else FORMAT):
            raise ValueError("its checksum is missing, or one too many")
        if found in (FORMAT, WITHOUT_CHECKSUM):
            _require_parts(checkpoint)
    except UNREADABLE as error:
        raise UsageError(f"{path} is not a checkpoint of leae, or is damaged ({reason_of(error)})") from error
    if found not in (FORMAT, WITHOUT_CHECKSUM):
        raise UsageError(f"{path} has the format {found!r:.20}; this version of leae reads format {FORMAT}")
    bad = first_non_finite(dict(tensors_of(checkpoint)))
    if bad:
        raise UsageError(f"{path} holds {bad[1]} in {bad[0]}; the run that wrote it had diverged")
    return checkpoint


def reason_of(error: Exception) -> str:
    """The first line of what an exception says, or its kind if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _is_sealed(path: Path) -> bool:
    """Whether a file ends in the line with its checksum.

    Raises:
        ValueError: it does, and the file is another than the one the line was written for.
    """
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END) - LAST_LINE_BYTES
        file.seek(max(size, 0))
        last = file.read()
        if not re.fullmatch(rb"\nleae crc32 [0-9a-f]{8}\n", last):
            return False
        file.seek(0)
        checksum = 0
        while size > 0:
            block = file.read(min(BLOCK, size))
            checksum, size = zlib.crc32(block, checksum), size - len(block)
    if last.decode() != LAST_LINE.format(checksum):
        raise ValueError("its checksum is another")
    return True


def _inspect(path: Path, sealed: bool) -> None:
    """Look at a checkpoint's zip, and at the pickle in it, without unpacking either.

    Raises:
        one of UNREADABLE: there is more in it than dictionaries, numbers and tensors, or it takes more memory than the
            file has bytes.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("it claims to be larger than it is")
        if not sealed and (damaged := archive.testzip()):
            raise ValueError(f"the checksum of {damaged} is another")
        pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
        if [Path(entry.filename).name for entry in pickles] != ["data.pkl"]:
            raise ValueError("it has no data.pkl")
        for operation, argument, _ in pickletools.genops(archive.read(pickles[0])):
            named = operation.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4")
            if named or (operation.name == "GLOBAL" and not NAMES.fullmatch(argument)):
                raise ValueError(f"it asks for {argument or operation.name}, which a checkpoint has no use for")


def _require_parts(checkpoint: dict) -> None:
    """Refuse what has other keys than a checkpoint, or other things under them.

    Raises:
        ValueError, LookupError, AttributeError: it has.
    """
    model, step, others = (checkpoint[key] for key in ("model", "step", "others"))
    if set(checkpoint) != {"format", "model", "step", "others"} or set(model) != {"class", "settings", "weights"}:
        raise ValueError("it has other parts")
    if type(step) is not int or step < 0:
        raise ValueError(f"its step is {step!r:.40}")
    if model["class"] not in MODELS:
        raise ValueError(f"its model is a {model['class']!r:.40}, which leae does not have")
    if not all(isinstance(value, int | str) for value in model["settings"].values()):
        raise ValueError("its model's settings are neither numbers nor names")
    if not all(isinstance(state, dict) for state in others.values()):
        raise ValueError("its state of the optimizer or of the judge is none")
    for name, tensor in tensors_of(checkpoint):
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name} claims to be larger than it is")


def tensors_of(state, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested dictionaries and lists, after its path: "judge.encoder.stem.weight".

    What is in there twice comes once, so that nesting does not multiply.
    """
    waiting, seen = [(name, state)], set()
    while waiting:
        name, state = waiting.pop()
        if isinstance(state, Tensor):
            yield name, state
        elif isinstance(state, dict | list | tuple) and id(state) not in seen:
            seen.add(id(state))
            items = state.items() if isinstance(state, dict) else enumerate(state)
            waiting += reversed([(f"{name}.{key}".lstrip("."), value) for key, value in items])


def model_of(checkpoint: dict) -> nn.Module:
    """The model of a checkpoint, built once it is known that the stored weights are its own.

    Raises:
        one of UNREADABLE: the stored weights are not those of a model with the stored settings.
    """
    kind, settings, weights = (checkpoint["model"][key] for key in ("class", "settings", "weights"))
    with torch.device("meta"):  # shapes alone: what the settings ask for may be more than there is memory
        expected = MODELS[kind](**settings).state_dict()
    require_same_shapes(weights, expected)
    model = MODELS[kind](**settings)
    model.load_state_dict(weights)
    return model


def require_same_shapes(state: dict, expected: dict) -> None:
    """Refuse a state dict that does not have the tensors of another one.

    Raises:
        ValueError: a name, a shape or a type of numbers differs.
    """
    names = sorted(map(str, state.keys() ^ expected.keys()))
    if names:
        raise ValueError(f"{names[0]} is in one of them only")
    for name, tensor in expected.items():
        found = state[name]
        if not isinstance(found, Tensor) or (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            shown = f"{list(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"{name} is {shown}, not {list(tensor.shape)} of {tensor.dtype}")


def require_state_of(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Refuse a state dict that is not one of this optimizer's.

    Raises:
        one of UNREADABLE: it has state for other parameters, of other shapes, or other hyperparameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if state["state"] and state["state"].keys() != set(range(len(parameters))):
        raise ValueError("the optimizer's state is of other parameters")
    for number, moments in state["state"].items():
        shapes = {"step": (), "exp_avg": parameters[number].shape, "exp_avg_sq": parameters[number].shape}
        if {name: moment.shape for name, moment in moments.items()} != shapes:
            raise ValueError(f"the optimizer's state of parameter {number} has another shape")
    ours, theirs = optimizer.state_dict()["param_groups"], state["param_groups"]
    for mine, stored in zip(ours, theirs, strict=True):
        for name in (mine.keys() & stored.keys()) - {"lr"}:  # which is set at every step
            if mine[name] != stored[name] or type(mine[name]) is not type(stored[name]):
                raise ValueError(f"the optimizer's {name} is {stored[name]!r:.40}, not {mine[name]}")
