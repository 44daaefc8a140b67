"""Two real processes on a CPU (gloo) against one: losses, gradients and weights, in float64; launchers of clusters."""

import socket

import pytest
import torch

from leae.autoencoder import Autoencoder, VariationalAutoencoder
from leae.distributed import data_parallel, init_processes, local_rows
from leae.judge import Judge
from leae.masking import add_noise, draw_gaussian
from leae.objective import SelfTeachingObjective
from leae.reconstruction import ReconstructionLoss, gaussian_kl, latent_from
from tests.conftest import ROOT, TINY, assert_one_line, metrics_of, newer_pytorch, run_script
from tests.processes import torchrun

SIZE, BATCH, STEPS = 16, 12, 5
CASES = {  # latent, judge's decay and norm, objective
    "pooled, shared norm": ("pooled", 0.99, "shared", "symmetric"),
    "pooled, own norm": ("pooled", 0.0, "own", "symmetric"),
    "spatial, own norm": ("spatial", 0.99, "own", "symmetric"),
    "spatial crops, shared norm": ("spatial", 0.0, "shared", "crop"),
    "pooled, whitened norm": ("pooled", 0.99, "whitened", "symmetric"),
    "alternating objective": ("pooled", 0.99, "whitened", "alternating"),
    "spatial crops, whitened norm": ("spatial", 0.99, "whitened", "crop"),
    "variational": ("pooled", None, None, None),
}


def variational_terms(model, judge, images, draws):
    """The terms of main_regular.py's, on noisy images."""
    mean, log_variance = model.posterior(add_noise(images, 0.2, draw_gaussian(images, draws)))
    raw, kl = (
        model.decoder(latent_from(mean, log_variance, draw_gaussian(mean, draws))),
        gaussian_kl(mean, log_variance),
    )
    return {"loss": images[0].numel() * ReconstructionLoss()(raw, images) + kl, "kl": kl}


def train(case):
    """Some steps of a case: for every step its terms, and the gradients and weights behind it."""
    torch.manual_seed(0)
    images = torch.rand(BATCH, 3, SIZE, SIZE, dtype=torch.float64)
    latent, decay, norm, objective = CASES[case]
    kind = Autoencoder if objective else VariationalAutoencoder
    model = kind(SIZE, 3, hidden_dim=4, latent=latent, latent_dim=8, map_channels=8).double()
    judge, terms_of = None, variational_terms
    if objective:
        judge = Judge(model.encoder, decay, norm, crop_ratios=(0.5,))
        terms_of = SelfTeachingObjective(objective, 0.35, (0.5, 1.0), sigreg_weight=1.0)
    compute = data_parallel(terms_of, model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)  # Adam would blow a rounding of a tiny gradient up
    steps = []
    for step in range(STEPS):
        terms = compute(judge, local_rows(images), torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        if judge:
            judge.update(model.encoder)
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        weights = [value.clone() for part in (model, judge) if part for value in part.state_dict().values()]
        steps.append(({name: term.detach() for name, term in terms.items()}, gradients, weights))
    return steps


def compiled_pieces():
    """Into how many graphs PyTorch's compiler takes a step."""
    graphs = []
    model = Autoencoder(SIZE, 3, hidden_dim=4, latent_dim=8, map_channels=8)
    judge, objective, images = Judge(model.encoder), SelfTeachingObjective(), torch.rand(4, 3, SIZE, SIZE)
    draws = objective.draw(judge, images, torch.Generator())
    compiled = torch.compile(objective.terms, backend=lambda graph, inputs: graphs.append(graph) or graph)
    data_parallel(compiled, model)(judge, images, draws)["loss"].backward()
    return len(graphs)


def main():
    """What each of the processes does that the test starts."""
    init_processes(torch.device("cpu"))
    torch.save({case: train(case) for case in CASES} | {"compiled": compiled_pieces()}, "computed.pt")


@pytest.fixture(scope="module")
def two_processes(processes, tmp_path_factory):
    """What each of two processes computed, by case."""
    folder = tmp_path_factory.mktemp("two")
    with socket.create_server(("localhost", 0)) as free:
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    children = []
    for number in "01":
        how = {"folder": folder / number, "environment": {**shared, "RANK": number}}
        children.append(processes.start("tests/test_distributed.py", **how))
    for number, child in zip("01", children, strict=True):
        assert processes.wait(child) == 0, (folder / number / "output").read_text()
    return [torch.load(folder / number / "computed.pt") for number in "01"]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one_does(two_processes, case):
    first, second = (results[case] for results in two_processes)
    for (terms, *model), (ours, *one), (theirs, *other) in zip(train(case), first, second, strict=True):
        means = {name: (ours[name] + theirs[name]) / 2 for name in terms}  # each has the terms of its rows
        torch.testing.assert_close(means, terms)
        torch.testing.assert_close([one, other], [model, model], rtol=1e-7, atol=1e-10)


@newer_pytorch
def test_the_step_of_processes_is_compiled_whole(two_processes):
    assert [results["compiled"] for results in two_processes] == [1, 1]


if __name__ == "__main__":
    main()


def test_two_launchers_as_on_two_nodes_train_one_run(workplace, monkeypatch):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{one.getsockname()[1]}"
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--local-addr", "127.0.0.1"]
    options = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-id", "leae", *meeting]
    line = [*TINY, "--log-every", "1", "--max-steps", "4"]
    nodes = [torchrun(workplace, str(ROOT / "main.py"), *line, options=options) for _ in range(2)]
    said = [node.communicate(timeout=120) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert sum("held-out PSNR" in out for out, _ in said) == 1
    run_script(monkeypatch, "main.py", *line)
    shared, alone = (metrics_of(workplace / "runs" / f"self-teaching-00{number}") for number in (1, 2))
    losses = [[float(row["loss"]) for row in rows if row["split"] == "train"] for rows in (shared, alone)]
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_tasks_of_srun_without_a_launcher_are_refused_with_the_command_that_shares_the_run(
    workplace, monkeypatch, capsys
):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    assert_one_line(monkeypatch, capsys, "main.py", *TINY, says=r"torchrun --nproc-per-node 8 \S*main\.py$")
    assert not list(workplace.iterdir())
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    run_script(monkeypatch, "main.py", *TINY, "--max-steps", "1")
    assert (workplace / "runs/self-teaching-001").is_dir()
