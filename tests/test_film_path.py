"""The path of a film: through its key codes, between them, without a jerk."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from soundguide.film.motion import STRONGER, WEAKER, Motion, gain_of, largest_jump, random_walk
from soundguide.film.path import LEAD_SECONDS, CodePath, path_through
from soundguide.film.settings import FilmSettings

L, D = 3, 4


def codes(num: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).normal(size=(num, L, D)).astype(np.float32))


def test_a_path_passes_through_its_knots() -> None:
    times, knots = [0.0, 1.0, 3.0, 3.5, 9.0], codes(5)
    np.testing.assert_allclose(CodePath(times, knots).at(np.array(times)), knots, atol=1e-6)


def test_a_path_stays_between_the_knots_around() -> None:
    knots = codes(12)
    path = CodePath([float(i) for i in range(12)], knots)
    for i in range(11):
        found = path.at(np.linspace(i, i + 1, 20))
        low, high = np.minimum(knots[i], knots[i + 1]), np.maximum(knots[i], knots[i + 1])
        assert (found >= low - 1e-6).all() and (found <= high + 1e-6).all()


def test_a_few_knots_around_give_what_all_of_them_give() -> None:
    times, knots = np.cumsum(np.random.default_rng(1).uniform(0.3, 2, 30)), codes(30)
    whole = PchipInterpolator(times, np.stack(knots).astype(np.float64))
    path = CodePath(list(times), knots)
    frames = np.linspace(times[0], times[-1], 401)
    found = np.concatenate([path.at(part) for part in np.array_split(frames, 57)])
    np.testing.assert_allclose(found, whole(frames), atol=1e-5)


def test_a_path_has_no_jerk_at_its_knots() -> None:
    path = CodePath([0.0, 1.0, 2.0, 3.0], codes(4))
    step = 2e-4
    for knot in (1.0, 2.0):
        before, at, after = path.at(np.array([knot - step, knot, knot + step]))
        np.testing.assert_allclose((at - before) / step, (after - at) / step, atol=0.05)


def test_a_film_begins_with_its_source_and_ends_with_its_last_key() -> None:
    source, *keys = codes(4)
    path = path_through(source, keys, [5, 15, 25], seconds=30)
    np.testing.assert_array_equal(path.at(np.array([0.0]))[0], source)
    np.testing.assert_allclose(path.at(np.array([LEAD_SECONDS, 4.0, 5.0])), [keys[0]] * 3, atol=1e-6)
    np.testing.assert_allclose(path.at(np.array([15.0, 25.0, 28.0, 30.0])), [keys[1], *[keys[2]] * 3], atol=1e-6)


def test_a_film_of_a_moment_has_a_path_too() -> None:
    source, key = codes(2)
    path = path_through(source, [key], [0.1], seconds=0.2)
    np.testing.assert_allclose(path.at(np.array([0.0, 0.05, 0.19])), [source, key, key], atol=1e-6)


def test_without_reaction_the_frames_are_the_path_s() -> None:
    source, *keys = codes(3)
    path = path_through(source, keys, [2, 6], seconds=8)
    motion = Motion(source, path, None, None, FilmSettings(react=0, fps=10))
    np.testing.assert_allclose(motion.codes(13, 40), path.at(np.arange(13, 40) / 10), atol=1e-5)


def test_the_reaction_moves_the_strength_of_the_change_within_its_bounds() -> None:
    source, *keys = codes(3)
    path = path_through(source, keys, [2, 6], seconds=8)
    drive = np.random.default_rng(3).uniform(0, 1, 80)
    drive[20], drive[30] = 0, 1
    found = Motion(source, path, drive, None, FilmSettings(react=0.8, fps=10)).codes(0, 80) - source
    still = path.at(np.arange(80) / 10) - source
    strength = np.linalg.norm(found, axis=(1, 2))[1:] / np.linalg.norm(still, axis=(1, 2))[1:]
    assert strength.min() == pytest.approx(1 - 0.8 * WEAKER) and strength.max() == pytest.approx(1 + 0.8 * STRONGER)
    # in the direction of the change alone
    np.testing.assert_allclose(found[1:], strength[:, None, None] * still[1:], atol=1e-5)


def test_a_reaction_beyond_all_bounds_never_turns_the_change_round() -> None:
    assert gain_of(np.zeros(1), 2 / WEAKER)[0] == 0


def test_no_frame_s_strength_jumps_more_than_is_stated() -> None:
    from soundguide.film.reaction import largest_step

    settings = FilmSettings(react=1.5)
    rising = np.array([0.0, largest_step(settings.fps)])
    assert np.diff(gain_of(rising, settings.react))[0] == pytest.approx(largest_jump(settings))


def test_without_meaning_the_frames_are_a_random_walk_as_large_as_the_drive() -> None:
    source, scale = codes(1)[0], np.array([0.5, 1, 2, 0.1], np.float32)
    walk = random_walk(scale, num_ws=L, seconds=8, pace=2, seed=5)
    drive = np.linspace(0, 1, 80)
    moves = Motion(source, None, drive, walk, FilmSettings(semantic=0, fps=10)).codes(0, 80) - source
    np.testing.assert_allclose(moves, drive[:, None, None] * walk.at(np.arange(80) / 10), atol=1e-5)
    np.testing.assert_array_equal(moves[0], 0)


def test_a_random_walk_is_its_seed_s_and_keeps_its_length() -> None:
    scale = np.array([0.5, 1, 2, 0.1], np.float32)
    first, again, other = (random_walk(scale, num_ws=L, seconds=20, pace=2, seed=s, length=0.7) for s in (5, 5, 6))
    np.testing.assert_array_equal(first.codes, again.codes)
    assert np.abs(np.stack(first.codes) - np.stack(other.codes)).max() > 0.1
    lengths = np.linalg.norm(np.stack(first.codes) / scale, axis=2) / np.sqrt(D)  # in standard deviations
    np.testing.assert_allclose(lengths, 0.7, rtol=1e-5)


def test_a_film_in_which_nothing_moves_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing would move"):
        FilmSettings(react=0, semantic=0)
