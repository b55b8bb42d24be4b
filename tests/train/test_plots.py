from __future__ import annotations

import numpy as np
import pytest

from fastgen import data
from fastgen.data import Dataset, Part
from fastgen.io import FileError
from fastgen.train import Epoch
from fastgen.train.flow_plots import interpolation_figure, reconstruction_figure
from fastgen.train.plots import rows_figure, save_figure, summary_figure

RECORDS = [Epoch(1, 5, -2.0, -2.1, 1e-3, 0.5), Epoch(2, 10, -1.5, -1.4, 1e-3, 1.0), Epoch(3, 15, -1.2, -1.6, 1e-3, 1.5)]
LEVELS = {"diagonal Gaussian": -2.3, "full-covariance Gaussian": -2.0}


def _log_prob(rows):
    return -0.5 * (rows**2).sum(axis=1)


@pytest.mark.parametrize(
    ("name", "titles"),
    [
        ("digits", ["held-out data", "samples", "learning curve"]),
        ("patches", ["held-out data", "samples", "learning curve"]),
        ("moons", ["held-out data", "samples", "density", "learning curve"]),
    ],
)
def test_panels(tmp_path, name, titles):
    rows = data.load(name)
    figure = summary_figure(rows, rows.test.rows[:64], _log_prob, RECORDS, LEVELS, "title")
    assert [ax.get_title() for ax in figure.axes] == titles
    curve = figure.axes[-1]
    labels = {line.get_label(): line for line in curve.lines}
    assert list(labels["valid"].get_ydata()) == [-2.1, -1.4, -1.6]
    assert list(labels["best: epoch 2"].get_ydata()) == [-1.4]
    assert set(labels["_full-covariance Gaussian"].get_ydata()) == {-2.0}
    assert [text.get_text() for text in curve.texts] == list(LEVELS)
    save_figure(tmp_path / "x.png", figure)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_images_are_laid_out_row_by_row():
    digits = data.digits()
    (ax,) = rows_figure(digits, digits.test.rows[:5], "five").axes
    sheet = np.asarray(ax.images[0].get_array().filled(np.nan))
    # Three by three tiles of eight pixels with a line between; the last four stay empty.
    assert sheet.shape == (26, 26)
    np.testing.assert_array_equal(sheet[:8, 9:17], digits.test.rows[1].reshape(8, 8))
    np.testing.assert_array_equal(sheet[9:17, :8], digits.test.rows[3].reshape(8, 8))
    assert np.isnan(sheet[9:, 18:]).all() and np.isnan(sheet[8]).all()


@pytest.mark.parametrize("features", [1, 5])
def test_tables_show_their_first_features(features):
    rows = np.random.default_rng(0).standard_normal((90, features)).astype(np.float32)
    table = Dataset("table", 0, *[Part(rows)] * 3, columns=tuple("abcde"[:features]))
    figure = summary_figure(table, rows, _log_prob, RECORDS, LEVELS, "title")
    assert [ax.get_title() for ax in figure.axes] == ["held-out data", "samples", "learning curve"]
    assert figure.axes[1].get_xlabel() == "a"
    if features > 1:
        np.testing.assert_array_equal(figure.axes[1].collections[0].get_offsets(), rows[:, :2])


def test_levels_show_the_mean_of_every_feature():
    rows = (np.random.default_rng(0).random((90, 5)) < 0.3).astype(np.float32)
    table = Dataset("table", 0, *[Part(rows)] * 3, levels=2).discrete()
    (ax,) = rows_figure(table, 1 - rows, "title").axes
    np.testing.assert_allclose(ax.collections[0].get_offsets().T, [rows.mean(0), 1 - rows.mean(0)], rtol=1e-6)


def test_a_picture_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"file/x\.png: cannot be written"):
        save_figure(tmp_path / "file" / "x.png", rows_figure(data.moons(size=20), data.moons(size=20).test.rows, "title"))


def test_paths_between_images_are_laid_out_a_line_each():
    digits = data.digits()
    paths = digits.test.rows[:6].reshape(2, 3, 64)
    (ax,) = interpolation_figure(digits, paths, "ways").axes
    sheet = np.asarray(ax.images[0].get_array().filled(np.nan))
    assert sheet.shape == (17, 26)
    np.testing.assert_array_equal(sheet[9:17, 9:17], paths[1, 1].reshape(8, 8))


def test_paths_between_points_are_lines():
    moons = data.moons(size=100)
    paths = moons.test.rows[:12].reshape(3, 4, 2)
    (ax,) = interpolation_figure(moons, paths, "ways").axes
    lines = [line.get_xydata() for line in ax.lines if len(line.get_xydata()) == 4]
    np.testing.assert_array_equal(lines, paths)


def test_paths_between_other_rows_are_refused():
    rows = np.zeros((20, 5), np.float32)
    table = Dataset("table", 0, *[Part(rows)] * 3)
    with pytest.raises(ValueError, match="expected images or points of two features, found 5 features in table"):
        interpolation_figure(table, rows.reshape(2, 10, 5), "ways")


@pytest.mark.parametrize("name", ["digits", "moons"])
def test_reconstructions_are_shown_with_their_largest_error(tmp_path, name):
    source = data.load(name)
    rows = source.test.rows[:70]
    rebuilt = rows.copy()
    rebuilt[3, 1] -= 0.25
    figure = reconstruction_figure(source, rows, rebuilt, "there and back")
    assert [ax.get_title() for ax in figure.axes] == ["x", "inverse(forward(x))", "difference, at most 0.25"]
    if name == "digits":
        difference = figure.axes[2].images[0]
        assert difference.get_clim() == (-0.25, 0.25)
        assert np.nanmin(difference.get_array().filled(np.nan)) == -0.25
    save_figure(tmp_path / "x.png", figure)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_reconstruction_without_error_can_be_drawn(tmp_path):
    digits = data.digits()
    save_figure(tmp_path / "x.png", reconstruction_figure(digits, digits.test.rows, digits.test.rows, "there and back"))
