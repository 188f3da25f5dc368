"""Two ranks take the steps that one would take with all images."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from distsearch.nas.pc_darts.supernet import Architecture, Supernet  # noqa: E402
from distsearch.nas.ranks import Ranks  # noqa: E402
from distsearch.nas.training import Epoch, Pixels, seed_everything  # noqa: E402


def gradients(supernet, architecture, batch, ranks):
    """The gradient of weights and architecture, averaged over the ranks."""
    images, labels = batch
    loss = functional.cross_entropy(supernet(images.double(), architecture.mixes()), labels)
    both = [*supernet.parameters(), *architecture.parameters()]
    found = torch.autograd.grad(loss, both)
    ranks.average(found)
    return found


def batches(images, ranks):
    from distsearch.data.augment import Augmentation

    pixels = Pixels.of(images, torch.device("cpu"))
    return Epoch(
        pixels,
        torch.arange(64),
        batch_size=32,
        ranks=ranks,
        augmentation=Augmentation(),
        seeds=(5, 1),
    )


def networks():
    seed_everything(3)
    supernet = Supernet(channels=4, layers=3, classes=3, channels_in=1, part=2).double().eval()
    return supernet, Architecture().double()


def rank_of_two(rank, meeting, images, answers):
    """What one of two ranks finds; runs in a process of its own."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2
    )
    ranks = Ranks()
    epoch = batches(images, ranks)
    found = gradients(*networks(), next(iter(epoch)), ranks)
    alike = ranks.check_alike([torch.arange(3.0)], "the architecture")
    try:
        ranks.check_alike([torch.full((3,), float(rank))], "the architecture")
        complaint = ""
    except RuntimeError as error:
        complaint = str(error)
    totals = [ranks.total(torch.tensor([1.0 + rank])).item(), ranks.gathered(rank, found[0].device)]
    torch.save((found, alike, complaint, totals), f"{answers}/{rank}")
    torch.distributed.destroy_process_group()


def test_the_mean_gradient_of_two_ranks_is_that_of_the_whole_batch(images, tmp_path):
    context = torch.multiprocessing.start_processes(
        rank_of_two,
        (str(tmp_path / "meeting"), images, str(tmp_path)),
        nprocs=2,
        join=False,
        start_method="fork",
    )
    try:
        for _ in range(2):
            context.join(timeout=60)
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()
    first, second = (torch.load(tmp_path / str(rank)) for rank in (0, 1))
    whole = gradients(*networks(), next(iter(batches(images, Ranks()))), Ranks())
    for one, other, expected in zip(first[0], second[0], whole, strict=True):
        assert torch.equal(one, other)
        assert torch.allclose(one, expected, atol=1e-12)
    assert first[1] == second[1]
    assert first[2] == second[2]
    assert "not alike on all ranks: 1 differ from rank 0" in first[2]
    assert first[3] == second[3] == [3.0, [0.0, 1.0]]


def test_the_batches_of_ranks_are_disjoint_and_differ_in_their_randomness(images):
    epochs = []
    for rank in (0, 1):
        ranks = Ranks()
        ranks.rank, ranks.world_size = rank, 2
        epochs.append(batches(images, ranks))
    first, second = ([images.flatten(1) for images, _ in epoch] for epoch in epochs)
    assert [len(part) for part in first] == [16, 16]
    seen = {tuple(image.tolist()) for part in (*first, *second) for image in part}
    assert len(seen) == 64
    assert epochs[0].generator.initial_seed() != epochs[1].generator.initial_seed()
