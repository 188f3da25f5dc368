"""What stands on a command line for a configuration, what a file says of a space, and a line."""

from __future__ import annotations

import re

import pytest

import distsearch as ag
from distsearch.commands import space_file
from distsearch.commands.metrics import Watch
from distsearch.commands.template import Template
from distsearch.errors import OptionError, SpaceError
from distsearch.report import main as report

SPACE = """
epochs = 10

[lr]
type = "real"
lower = 1e-4
upper = 1e-1
log = true

[model]
type = "choice"
[model.options.cnn.channels]
type = "int"
lower = 8
upper = 64
step = 8
[model.options.linear]

[net.bias]
type = "bool"
"""


def test_values_are_words_of_their_own_whatever_signs_are_in_them():
    template = Template("train --lr={lr:.3f} {mode} '{a b}' --json {{}}".replace("{a b}", "{note}"))
    assert template.names == ["lr", "mode", "note"]
    words = template.fill({"lr": 0.12345, "mode": "", "note": "x; rm -rf $(pwd) 'y'"})
    assert words == ["train", "--lr=0.123", "x; rm -rf $(pwd) 'y'", "--json", "{}"]
    shell = Template("echo {note} | cat", shell=True)
    assert shell.fill({"note": "a'; b"}) == ["/bin/sh", "-c", "echo 'a'\"'\"'; b' | cat"]


def test_what_is_not_active_is_left_out_with_its_option():
    template = Template(["train", "-v", "--layers", "{net.layers}", "--opt={opt}", "{flag}", "end"])
    assert template.fill({"opt": True, "flag": [1, 2.5]}) == [
        "train",
        "-v",
        "--opt=true",
        "1,2.5",
        "end",
    ]
    assert template.fill({"net.layers": 3, "flag": ""})[1:4] == ["-v", "--layers", "3"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", "there is no command"),
        ("train 'x", "No closing quotation"),
        ("train {", "write {{ and }} for braces"),
        ("train {}", "name a parameter"),
        ("train {lr!r}", "name a parameter"),
    ],
)
def test_a_command_that_cannot_be_read_is_refused(command, words):
    with pytest.raises(OptionError, match=re.escape(words)):
        Template(command)


def test_each_parameter_has_a_place_and_each_place_a_parameter():
    space = {"lr": ag.Real(0, 1), "wd": ag.Real(0, 1), "epochs": 3}
    with pytest.raises(SpaceError, match=r"no parameter for \{lrr\}; did you mean 'lr'"):
        ag.command("train {lrr} {wd}", space=space)
    with pytest.raises(SpaceError, match="'wd' is searched, but is nowhere in the command"):
        ag.command("train {lr}", space=space)
    assert ag.command("train.py {lr} {wd} {task_id}", space=space).__name__ == "train"


def test_a_file_holds_numbers_choices_constants_and_conditional_spaces(tmp_path):
    (tmp_path / "space.toml").write_text(SPACE)
    space = ag.space.Dict(**space_file.read(tmp_path / "space.toml"))
    assert space.default == {
        "lr": pytest.approx(10**-2.5),
        "model": "cnn",
        "model.cnn.channels": 32,
        "net.bias": False,
    }
    assert space.build({"model": "linear"}).model == {"option": "linear"}
    command = "t {lr} {epochs} --model {model} --channels {model.channels} {net.bias}"
    train_fn = ag.command(command, space=tmp_path / "space.toml")
    from distsearch.commands.trial import _values

    built = train_fn.space.build({"lr": 0.1, "model": "linear", "net.bias": True})
    words = Template(command).fill(dict(_values(built)))
    assert words == ["t", "0.1", "10", "--model", "linear", "true"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[lr\n", "is no TOML"),
        ("[lr]\nlower = 1", "[lr] has no type"),
        ("[lr]\ntype = 'reel'", "[lr] type = 'reel'; did you mean 'real'"),
        ("[lr]\ntype = 'real'\nlowr = 1", "[lr] lowr = ...: did you mean 'lower'"),
        ("[lr]\ntype = 'real'\nlower = 1", "[lr] upper is missing"),
        ("[lr]\ntype = 'int'\nlower = 1.5\nupper = 2", "[lr] "),
        ("[net.opt]\ntype = 'choice'", "[net.opt] options is missing"),
        ("[opt]\ntype = 'choice'\noptions = {a = 1}", "[opt] options.a is no table"),
    ],
)
def test_what_a_file_says_wrongly_is_told_with_its_table(tmp_path, text, words):
    (tmp_path / "space.toml").write_text(text)
    with pytest.raises(SpaceError, match=re.escape(words)) as caught:
        space_file.read(tmp_path / "space.toml")
    assert "space.toml" in str(caught.value)


def test_metrics_are_found_by_name_by_expression_and_in_lines_of_json():
    watch = Watch({"accuracy": "", "epoch": r"Epoch (\d+)"}, json_lines=True)
    assert watch.hear("Epoch 3 of 10") is None
    assert watch.hear("val_accuracy: 0.5") is None
    assert watch.hear("loss 0.3 accuracy: 9.1e-1, best accuracy=.95") == {
        "epoch": 3,
        "accuracy": 0.95,
    }
    assert watch.hear('{"accuracy": 1, "epoch": 4}') == {"accuracy": 1, "epoch": 4}
    assert watch.hear("{not json") is None
    issue = Watch({"accuracy": "([0-9.]+)"}, json_lines=False)
    assert issue.hear("epoch 7, accuracy=0.25 (loss 3)") == {"accuracy": 0.25}


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("=x", "does not begin with a name"),
        ("acc=[", "no regular expression"),
        ("acc=value", "has 0 groups"),
        ("acc=(a)(b)", "has 2 groups"),
    ],
)
def test_a_metric_that_cannot_be_looked_for_is_refused(metric, words):
    with pytest.raises(OptionError, match=re.escape(words)):
        ag.command("train {x}", space={"x": ag.Real(0, 1)}, metrics=metric)


def test_a_report_from_outside_of_a_search_says_so_and_is_no_error(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("DISTSEARCH_REPORT", raising=False)
    assert report(["accuracy=.9"]) == 0 and "no search hears" in capsys.readouterr().err
    assert report(["accuracy"]) == 2 and report([]) == 2
    (tmp_path / "reports").touch()
    monkeypatch.setenv("DISTSEARCH_REPORT", str(tmp_path / "reports"))
    assert report(["accuracy=.9", "epoch=3", "note=warm"]) == 0
    assert (tmp_path / "reports").read_text() == '{"accuracy": 0.9, "epoch": 3, "note": "warm"}\n'
