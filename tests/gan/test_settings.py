"""Settings: what is usual, what is refused, and in which words."""

from __future__ import annotations

import pytest

from distsearch.errors import OptionError
from distsearch.gan import Settings


def test_what_is_usual_depends_on_the_network():
    mlp, dcgan = Settings(), Settings(network="dcgan")
    assert (mlp.latent, mlp.lr, mlp.batch, mlp.sigma) == (64, 5e-4, 100, 0.01)
    assert (dcgan.latent, dcgan.lr, dcgan.batch, dcgan.sigma) == (100, 5e-5, 128, 0.05)


def test_settings_come_back_from_text_as_they_were():
    settings = Settings(hidden=(32, 16), loss="mustangs", dieting=0.5, data_root="here")
    assert Settings.from_json(settings.to_json()) == settings


def test_the_options_come_before_the_file_and_the_file_before_the_defaults(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text('grid = "3x5"\ngenerations = 7\nhidden = [8, 8]\n')
    settings = Settings.read(path, {"generations": 9})
    assert (settings.grid, settings.generations, settings.hidden) == ("3x5", 9, (8, 8))
    assert len(settings.graph) == 15


def test_isolated_cells_have_no_neighbours():
    assert Settings(isolated=True).graph == ((), (), (), ())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"generatons": 3}, "did you mean 'generations'"),
        ({"loss": "wgn"}, "did you mean 'wgan'"),
        ({"generations": 0}, "generations=0, but it must be 1 or more"),
        ({"generations": "3"}, "generations='3'; give a whole number"),
        ({"dieting": 1.5}, "above 0, and 1 at most"),
        ({"grid": "1x1"}, "grid='1x1' makes a population of 1"),
        ({"hidden": []}, "hidden=()"),
        ({"hidden": ["a"]}, "a list of widths"),
        ({"lr": True}, "lr=True; give a number"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_right(given, says):
    with pytest.raises(OptionError) as error:
        Settings.of(given)
    assert says in str(error.value)


def test_a_file_that_is_no_toml_is_refused(tmp_path):
    (tmp_path / "bad.toml").write_text("generations: 3")
    with pytest.raises(OptionError, match="is no TOML"):
        Settings.read(tmp_path / "bad.toml", {})
    with pytest.raises(OptionError, match="cannot be read"):
        Settings.read(tmp_path / "none.toml", {})


def test_differences_are_told_by_name():
    lines = Settings().differences(Settings(lr=0.1, grid="3x3"))
    assert lines == ["grid: '2x2' there, '3x3' here", "lr: 0.0005 there, 0.1 here"]
