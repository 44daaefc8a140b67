"""Two real processes on a CPU (gloo) against one: losses, gradients and weights, in float64."""

import pytest
import torch

from leae.autoencoder import Autoencoder, VariationalAutoencoder
from leae.distributed import data_parallel, init_processes, local_rows, rank
from leae.judge import Judge
from leae.masking import add_noise, draw_gaussian
from leae.objective import SelfTeachingObjective
from leae.reconstruction import ReconstructionLoss, draw_latent, gaussian_kl
from tests.processes import torchrun

SIZE, BATCH, STEPS = 16, 12, 5
CASES = {  # latent, judge's decay and ruler, objective
    "pooled, shared ruler": ("pooled", 0.99, "shared", "symmetric"),
    "pooled, own ruler": ("pooled", 0.0, "own", "symmetric"),
    "spatial, own ruler": ("spatial", 0.99, "own", "symmetric"),
    "spatial crops, shared ruler": ("spatial", 0.0, "shared", "crop"),
    "variational": ("pooled", None, None, None),
}


def variational_terms(model, judge, images, draws):
    """The terms of main_regular.py's, on noisy images."""
    mean, log_variance = model.posterior(add_noise(images, 0.2, draw_gaussian(images, draws)))
    raw, kl = model.decoder(draw_latent(mean, log_variance, draws)), gaussian_kl(mean, log_variance)
    return {"loss": images[0].numel() * ReconstructionLoss()(raw, images) + kl, "kl": kl}


def train(case):
    """Some steps of a case: for every step its terms, and the gradients and weights behind it."""
    torch.manual_seed(0)
    images = torch.rand(BATCH, 3, SIZE, SIZE, dtype=torch.float64)
    latent, decay, ruler, objective = CASES[case]
    kind = Autoencoder if objective else VariationalAutoencoder
    model = kind(SIZE, 3, hidden_dim=4, latent=latent, latent_dim=8, map_channels=8).double()
    judge, terms_of = None, variational_terms
    if objective:
        judge = Judge(model.encoder, decay, ruler)
        terms_of = SelfTeachingObjective(SIZE, objective, 0.35, (0.5, 1.0), sigreg_weight=1.0)
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
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        steps.append(({name: term.detach() for name, term in terms.items()}, gradients, weights))
    return steps


def main():
    """What each of the processes does that the test starts."""
    init_processes(torch.device("cpu"))
    torch.save({case: train(case) for case in CASES}, f"rank{rank()}.pt")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What each of two processes computed, by case."""
    folder = tmp_path_factory.mktemp("two")
    output_of(torchrun(folder, __file__))
    return [torch.load(folder / f"rank{number}.pt") for number in (0, 1)]


def output_of(process):
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one_does(two_processes, case):
    first, second = (results[case] for results in two_processes)
    for (terms, *model), (ours, *one), (theirs, *other) in zip(train(case), first, second, strict=True):
        means = {name: (ours[name] + theirs[name]) / 2 for name in terms}  # each has the terms of its rows
        torch.testing.assert_close(means, terms)
        torch.testing.assert_close([one, other], [model, model], rtol=1e-7, atol=1e-10)


def test_rows_are_shared_out_in_order_and_evenly(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    for number in range(3):
        monkeypatch.setenv("RANK", str(number))
        assert local_rows(torch.arange(6)).tolist() == [2 * number, 2 * number + 1]


if __name__ == "__main__":
    main()
