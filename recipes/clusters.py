"""Dask clusters for the same search: $CLUSTER says which.

    python search.py                                this machine
    CLUSTER=slurm python search.py                  jobs of Slurm: pip install dask-jobqueue
    CLUSTER=kubernetes python search.py             pods: pip install dask-kubernetes
    CLUSTER=coiled python search.py                 machines of a cloud: pip install coiled
    CLUSTER=tcp://scheduler:8786 python search.py   a cluster that is there

The workers need distsearch and what trials import: a home or a folder on a network that all share
(Slurm), an image (Kubernetes), the packages of this environment (Coiled).
"""

from __future__ import annotations

import os
from pathlib import Path

from distributed import Client, Security

HERE = Path(__file__).parent


def client() -> Client | None:
    """A client of the cluster that $CLUSTER names; None where it names none."""
    name = os.environ.get("CLUSTER", "")
    if name in CLUSTERS:
        return Client(CLUSTERS[name]())
    return Client(name) if name else None


def slurm():
    """Four jobs, each a node of 8 CPUs and a GPU; `print(slurm().job_script())` shows one."""
    from dask_jobqueue import SLURMCluster

    cluster = SLURMCluster(
        queue=os.environ.get("SLURM_QUEUE", "gpu"),
        cores=8,
        processes=1,  # one node a job, whose slots are its CPUs and GPUs
        memory="64GB",
        walltime="12:00:00",
        job_extra_directives=["--gres=gpu:1"],
        # So that nobody else on the cluster can speak to the workers.
        security=Security.temporary(),
        protocol="tls://",
        shared_temp_directory=os.environ.get("SHARED_FOLDER", str(Path.home())),
        # A worker ends before Slurm ends it: its trials then run elsewhere, from their checkpoints.
        worker_extra_args=["--lifetime", "715m", "--lifetime-stagger", "4m"],
    )
    cluster.scale(jobs=int(os.environ.get("NODES", "4")))
    return cluster


def kubernetes():
    """What `kubernetes.yaml` describes, by the operator of Dask, which has to be installed."""
    from dask_kubernetes.operator import KubeCluster

    return KubeCluster(custom_cluster_spec=str(HERE / "kubernetes.yaml"))


def coiled():
    """Four machines with a GPU in your account, with the packages of this environment."""
    import coiled

    return coiled.Cluster(
        n_workers=int(os.environ.get("NODES", "4")),
        worker_vm_types=["g5.xlarge"],
        package_sync=True,
        spot_policy="spot_with_fallback",  # a machine that goes takes no trial with it
    )


CLUSTERS = {"slurm": slurm, "kubernetes": kubernetes, "coiled": coiled}
