"""The house: what importing costs, which way imports go, whether the README tells the truth."""

from __future__ import annotations

import ast
import graphlib
import inspect
import itertools
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import distsearch

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "distsearch"
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROOMS = ("errors", "space", "resource", "core", "searcher", "scheduler", "train", "testing")
ROOMS += ("data", "plots", "nas", "gan", "page", "report", "commands", "cli")
SEES = {
    "errors": set(),
    "space": {"errors"},
    "resource": {"errors"},
    "core": {"errors", "space", "resource"},
    "searcher": {"errors", "space", "resource", "core"},
    "scheduler": {"errors", "space", "resource", "core", "searcher"},
    "train": {"errors", "core"},
    "data": {"errors", "space"},
    "nas": {"errors", "space", "resource", "core", "searcher", "scheduler", "train", "data"},
    "testing": {"errors", "space", "resource", "core", "searcher", "scheduler", "train"},
    "gan": {"errors", "space", "resource", "core", "scheduler", "data"},
    "plots": {"errors", "space", "core"},
    "page": {*ROOMS} - {"testing", "page", "cli"},
    "report": set(),
    "commands": {"errors", "space", "resource", "core", "report"},
    "cli": {*ROOMS} - {"testing"},
}


def python(*arguments: str, folder: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Importing

HEAVY = ["torch", "bokeh", "matplotlib", "optuna", "pandas", "distributed", "dask", "asyncssh"]
HEAVY += ["pytest", "hypothesis", "click", "sklearn", "PIL"]


@pytest.mark.parametrize(
    "use",
    [
        "distsearch",
        "distsearch; distsearch.scheduler.FIFOScheduler; distsearch.args; distsearch.Node",
        "distsearch; distsearch.open",
        "distsearch.core.trial_process",
        "distsearch.resource.launcher",
        "distsearch.train.inherit",
        "distsearch; distsearch.testing",
        "distsearch.data",
        "distsearch; distsearch.plots",
        "distsearch.nas.trials; import distsearch.nas.pc_darts.trials",
        "distsearch.testing.fates",
    ],
)
def test_importing_distsearch_loads_no_heavy_library(use):
    loaded = python("-c", f"import {use}\nimport sys; print(*sys.modules)").split()
    assert "distsearch" in loaded
    assert sorted(set(HEAVY).intersection(loaded)) == []


def test_importing_distsearch_starts_no_thread_and_changes_no_setting():
    code = (
        "import logging, os, random, signal, threading, warnings\n"
        "def settings():\n"
        "    signals = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}\n"
        "    return (threading.active_count(), logging.root.level, logging.root.handlers[:],\n"
        "            dict(os.environ), random.getstate(), signals)\n"
        "before = settings()\n"
        "import distsearch.scheduler\n"
        "assert settings() == before\n"
    )
    python("-c", code)


@pytest.mark.parametrize("name", sorted(distsearch.__all__))
def test_every_public_name_is_there_and_listed(name):
    assert getattr(distsearch, name) is not None
    assert name in dir(distsearch)


def test_a_name_that_does_not_exist_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="'Reel'"):
        distsearch.Reel


# Rooms


def imports_of(path: Path, package: Path = PACKAGE) -> list[tuple[str, str, int]]:
    """What a module imports: at its top, inside its functions and under TYPE_CHECKING alike.

    Each as the full name of a module, the name that is taken from it ("": the module itself) and
    the line.
    """
    folder = (package.name, *path.relative_to(package).parts[:-1])
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, "", node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [(module, alias.name, node.lineno) for alias in node.names]
    return found


def rooms_imported_by(path: Path) -> set[str]:
    """The rooms that a module imports from."""
    names = [f"{module}.{name}".split(".") for module, name, _ in imports_of(path)]
    return {room for top, room, *_ in names if top == "distsearch"} & set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way_between_the_rooms(room):
    alone = PACKAGE / f"{room}.py"  # errors and report are one module each
    files = [alone] if alone.exists() else sorted((PACKAGE / room).rglob("*.py"))
    assert files
    wrong = {
        str(path.relative_to(ROOT)): sorted(others)
        for path in files
        if (others := rooms_imported_by(path) - SEES[room] - {room})
    }
    assert wrong == {}


def test_every_part_of_the_package_is_a_known_room():
    parts = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    parts |= {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert parts == set(ROOMS)


# Circles


def circle_of_imports(package: Path) -> str:
    """A circle of imports between the modules of a package, import by import; "": there is none.

    The one exception is the package's face, `package/__init__.py`, which hands on names that are
    loaded when they are first used: a name that is taken from it counts as taken from its home.
    """
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        files[".".join(parts).removesuffix(".__init__")] = path
    handed_on = {}

    def home_of(module: str, name: str) -> str:
        if f"{module}.{name}" in files:
            return f"{module}.{name}"
        if name and module == package.name:
            return handed_on.get(name, "")  # "": the face's own, as its version
        return module

    for module, name, _ in imports_of(files[package.name], package):
        handed_on[name] = home_of(module, name)
    lines: dict[str, dict[str, int]] = {}  # by module: what it imports, and where first
    for importer, path in files.items():
        lines[importer] = {}
        for module, name, line in imports_of(path, package):
            home = home_of(module, name)
            if home in files:
                lines[importer].setdefault(home, line)
    try:
        graphlib.TopologicalSorter(lines).prepare()
    except graphlib.CycleError as error:
        circle = error.args[1][::-1]
    else:
        return ""
    names = {module: path.relative_to(package.parent) for module, path in files.items()}
    return "".join(
        f"\n{names[one]}:{lines[one][other]} imports {names[other]}"
        for one, other in itertools.pairwise(circle)
    )


def test_no_modules_import_each_other_in_a_circle():
    circle = circle_of_imports(PACKAGE)
    assert not circle, f"imports go in a circle:{circle}"


@pytest.mark.parametrize(
    "back",
    [
        "from .a import f",
        "import house.a",
        "from house import a",
        "def g():\n    from . import a",
        "if TYPE_CHECKING:\n    from .a import f",
        "from . import f",
        "import house",
    ],
)
def test_a_circle_of_imports_is_told_file_by_file(back, tmp_path):
    package = tmp_path / "house"
    (package / "room").mkdir(parents=True)
    (package / "__init__.py").write_text("if TYPE_CHECKING:\n    from .a import f\nversion = 1\n")
    (package / "a.py").write_text("from . import version\nfrom .room.b import g\n")
    (package / "room/__init__.py").write_text("")
    (package / "room/b.py").write_text("from .. import c\n")
    (package / "c.py").write_text("from . import version\n")
    assert circle_of_imports(package) == ""
    (package / "c.py").write_text(back)
    told = circle_of_imports(package).splitlines()
    assert "house/a.py:2 imports house/room/b.py" in told
    assert "house/room/b.py:1 imports house/c.py" in told
    assert any(line.startswith("house/c.py:") for line in told)


@pytest.mark.parametrize("room", ["resource", "core"])
def test_the_design_says_of_every_module_of_the_largest_rooms_what_it_is_about(room):
    design = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    (table,) = re.findall(rf"\n### [^\n]*`{room}/`\n(.*?)\n##", design, re.DOTALL)
    told = re.findall(r"`([a-z_]+\.py)`", table)
    there = {path.name for path in (ROOT / "distsearch" / room).glob("*.py")} - {"__init__.py"}
    assert sorted(told) == sorted(there)


# The README

BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_commands_of_the_readme_are_targets_of_the_makefile():
    named = set(re.findall(r"\bmake ([a-z]+)(?=`|\s+#)", README))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= targets


def test_the_links_of_the_readme_and_the_other_pages_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs/design.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_first_example_of_the_readme_runs_and_its_log_answers_the_sql(tmp_path):
    (tmp_path / "example.py").write_text(BLOCKS[0])
    said = python("example.py", folder=tmp_path)
    assert "20 done, 0 failed" in said
    assert (tmp_path / "curves.png").exists()
    (log,) = tmp_path.glob("distsearch_results/*/events.db")
    queries = re.findall(r"sqlite3 \S+events\.db '([^']+)'", README)
    assert len(queries) == 2
    connection = sqlite3.connect(log)
    try:
        rows = [connection.execute(query).fetchall() for query in queries]
    finally:
        connection.close()
    assert [len(found) for found in rows] == [20, 200]


def test_the_rule_of_the_readme_stops_trials(tmp_path):
    (rule,) = [block for block in BLOCKS if "class MedianStop" in block]
    program = rule + (
        "import distsearch as ag\n"
        "@ag.args(x=ag.Real(0, 1))\n"
        "def train_fn(args, reporter):\n"
        "    for epoch in range(3):\n"
        "        reporter(epoch=epoch + 1, accuracy=args.x)\n"
        "node = ag.Node('localhost', num_cpus=1)\n"
        "with MedianStop(train_fn, local=node, verbose=0, seed=1) as s:\n"
        "    s.run(num_trials=8)\n"
        "    s.join_jobs()\n"
        "    print(*sorted({trial.status.value for trial in s.trials}))\n"
    )
    (tmp_path / "rule.py").write_text(program)
    assert python("rule.py", folder=tmp_path).split() == ["finished", "stopped"]


def test_the_searcher_of_the_readme_names_the_best_trial_as_parent(tmp_path):
    (searcher,) = [block for block in BLOCKS if "class FromTheBest" in block]
    program = searcher + (
        "import distsearch as ag\n"
        "@ag.args(lr=ag.Real(0, 1))\n"
        "def train_fn(args, reporter):\n"
        "    learned = (reporter.load() or {'learned': 0})['learned'] + args.lr\n"
        "    reporter.save({'learned': learned})\n"
        "    reporter(accuracy=learned)\n"
        "node = ag.Node('localhost', num_cpus=1)\n"
        "searcher = FromTheBest(train_fn.space)\n"
        "with ag.scheduler.FIFOScheduler(train_fn, searcher=searcher, local=node) as s:\n"
        "    s.run(num_trials=8)\n"
        "    s.join_jobs()\n"
        "    print(*[of.parents for of in s.lineage().values()])\n"
        "    print(s.get_best_task_id(), s.get_best_reward() > 1)\n"
    )
    (tmp_path / "searcher.py").write_text(program)
    *_, parents, best = python("searcher.py", folder=tmp_path).splitlines()
    assert parents == "() " + " ".join(f"({n},)" for n in range(7))
    assert best == "7 True"


def test_the_searcher_of_the_readme_passes_the_kit_for_searchers(tmp_path):
    (searcher,) = [block for block in BLOCKS if "class FromTheBest" in block]
    (kit,) = [block for block in BLOCKS if "class TestMySearcher" in block]
    kit += "    learns = repeats = True\n"
    (tmp_path / "test_it.py").write_text(searcher + "MySearcher = FromTheBest\n" + kit)
    quick = (ROOT / "tests/testing/quick.py").read_text()
    (tmp_path / "conftest.py").write_text(quick)
    said = python("-m", "pytest", "-q", folder=tmp_path)
    assert int(re.search(r"(\d+) passed, 2 skipped", said)[1]) >= 18


def test_nobody_is_told_to_install_distsearch_from_an_index_that_does_not_have_it():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tutorials/*")]
    pages += [*ROOT.glob("benchmarks/*.*"), *ROOT.glob("distsearch/**/*.py")]
    advice = re.compile(r"pip install[^`\n]*\bdistsearch\b")
    assert [str(page) for page in pages if page.is_file() and advice.search(page.read_text())] == []


def test_the_searcher_kit_of_the_readme_tests_a_searcher(tmp_path):
    (kit,) = [block for block in BLOCKS if "class TestMySearcher" in block]
    searcher = "from distsearch.searcher import RandomSearcher as MySearcher\n"
    (tmp_path / "test_my_searcher.py").write_text(searcher + kit)
    said = python("-m", "pytest", "-q", folder=tmp_path)
    assert int(re.search(r"(\d+) passed in", said)[1]) >= 20


def test_the_record_of_the_readme_opens_a_search_that_another_program_has_run(tmp_path):
    (record,) = [block for block in BLOCKS if "ag.open" in block]
    search = BLOCKS[0].replace(
        "FIFOScheduler(", "FIFOScheduler(checkpoint='runs/digits', train_fn="
    )
    (tmp_path / "search.py").write_text(search)
    *_, best = python("search.py", folder=tmp_path).splitlines()
    (tmp_path / "record.py").write_text(record)
    stands, *found = python("record.py", folder=tmp_path).splitlines()
    assert "of train_fn in" in stands and "20 trials (20 finished)" in stands
    assert found == [best]
    assert (tmp_path / "curves.png").exists()
    table = (tmp_path / "trials.csv").read_text().splitlines()
    assert table[0].startswith("id,lr,wd,status,attempt,host,best,")
    assert len(table) == 21


def test_the_names_that_the_readme_uses_exist():
    scheduler = distsearch.scheduler.FIFOScheduler
    options = set(inspect.signature(scheduler).parameters)
    code = " ".join(BLOCKS)
    for name in re.findall(r"\bag\.(\w+)", code):
        assert hasattr(distsearch, name), name
    for name in re.findall(r"\bscheduler\.(\w+)", code.replace("ag.scheduler.", "")):
        assert hasattr(scheduler, name) or name in ("Continue", "FIFOScheduler"), name
    for name in re.findall(r"`(\w+)='?[\w.]+'?`", README):
        assert name in options | {"num_gpus"}, name


# The pages


def test_the_changelog_begins_with_this_version():
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first[1] == distsearch.__version__
