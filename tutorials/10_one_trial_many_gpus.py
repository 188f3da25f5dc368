"""One trial on many GPUs, or on many CPU cores: a script for torchrun becomes a search.

    python tutorials/10_one_trial_many_gpus.py                          # two ranks on this machine
    python tutorials/10_one_trial_many_gpus.py --ranks 4 gpu1 gpu2      # over your own machines

`main` below is what a script for `torchrun --nproc-per-node 2 script.py` looks like: it joins the
process group by the variables that torchrun sets, wraps its network in DistributedDataParallel, and
lets each rank see its share of the data. Three things make it a train function of a search:

- `@args` names what is searched, and `args.lr` takes the place of a command line option;
- `reporter(...)` takes the place of `print`; all ranks call it, that of rank 0 counts, and where
  the scheduler stops or pauses a trial, it stops all ranks at the same report;
- `reporter.save` and `reporter.load`: when a rank dies, all of them start again from there.

`resource={'world_size': 2}` does the rest: each trial gets two slots at once, on one node or on
several, and each rank gets MASTER_ADDR, RANK, LOCAL_RANK, WORLD_SIZE and so on. On GPUs say
`{'num_gpus': 1, 'world_size': 2}`: that is for each rank.
"""

from __future__ import annotations

import argparse

import distsearch as ag
from distsearch import Int, Real
from distsearch.scheduler import HyperbandScheduler
from distsearch.train import process_group


@ag.args(lr=Real(1e-3, 1.0, log=True), width=Int(8, 64), epochs=8)
def main(args, reporter):
    """Learn to read digits, each rank with its share of the images."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data import DataLoader, TensorDataset
    from torch.utils.data.distributed import DistributedSampler

    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16).float(), torch.tensor(labels))
    train, held_out = torch.utils.data.random_split(
        data, [1400, len(data) - 1400], torch.Generator().manual_seed(0)
    )
    with process_group() as device:
        torch.manual_seed(0)  # the same first weights on every rank
        network = nn.Sequential(nn.Linear(64, args.width), nn.ReLU(), nn.Linear(args.width, 10))
        network = DistributedDataParallel(network.to(device))
        optimizer = torch.optim.SGD(network.parameters(), args.lr, momentum=0.9)
        sampler = DistributedSampler(train, seed=0)
        first = 1
        if (state := reporter.load()) is not None:
            network.module.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            first = state["epoch"] + 1
        for epoch in range(first, args.epochs + 1):
            sampler.set_epoch(epoch)
            network.train()
            for batch, target in DataLoader(train, batch_size=50, sampler=sampler):
                loss = nn.functional.cross_entropy(network(batch.to(device)), target.to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            accuracy = share_of_right_ones(network.module, held_out, args, device)
            reporter(epoch=epoch, accuracy=accuracy)
            reporter.save(
                {
                    "network": network.module.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "epoch": epoch,
                }
            )


def share_of_right_ones(network, data, args, device):
    """How much of the data is read rightly; each rank reads its share, and they add up."""
    import torch
    import torch.distributed as dist

    batch = [data[index] for index in range(args.rank, len(data), args.world_size)]
    images = torch.stack([image for image, _ in batch]).to(device)
    labels = torch.stack([label for _, label in batch]).to(device)
    network.eval()
    with torch.no_grad():
        right = (network(images).argmax(1) == labels).sum()
    dist.all_reduce(right)
    return right.item() / len(data)


def search():
    """Find a learning rate and a width."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("nodes", nargs="*", help="as user@host:port; none: this machine")
    options.add_argument("--ranks", type=int, default=2, help="processes of each trial")
    options.add_argument("--gpus", action="store_true", help="a GPU for each rank")
    options.add_argument("--trials", type=int, default=6)
    given = options.parse_args()
    scheduler = HyperbandScheduler(
        main,
        resource={"num_cpus": 1, "num_gpus": int(given.gpus), "world_size": given.ranks},
        num_trials=given.trials,
        max_t=8,
        grace_period=2,
        dist_ip_addrs=given.nodes,
        local=None if given.nodes else ag.Node("localhost", num_cpus=given.ranks),
        seed=0,
        verbose=0,
    )
    with scheduler:
        scheduler.run()
        scheduler.join_jobs()
        for trial in scheduler.trials:
            where = ", ".join(f"rank {rank} on {host}" for rank, host in enumerate(trial.hosts))
            print(f"trial {trial.id}: {trial.status.value} after epoch {trial.furthest:g}; {where}")
        print(f"Best accuracy: {scheduler.get_best_reward():.3f}")
        print(f"Best configuration: {scheduler.get_best_config()}")


if __name__ == "__main__":
    search()
