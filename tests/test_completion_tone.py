import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import PORTRAIT, box

from align.locate import locate
from align.template import TEMPLATES
from align.warp import Alignment
from completion import FaceCompleter
from completion.benchmark.tones import toned as scan
from completion.tone import Stretch, Tone, grey, is_one_tone, luma

[FACE] = locate(PORTRAIT, TEMPLATES["face"], 128)
NO_HOLE = np.zeros(PORTRAIT.shape[:2], dtype=bool)
EYE = box(PORTRAIT.shape, 85, 115, 65, 110)


def toned(dark: tuple[float, ...], middle: tuple[float, ...], light: tuple[float, ...]) -> NDArray[np.uint8]:
    """The portrait in one tone, given by the colours of black, of middle grey and of white."""
    levels = [np.interp(luma(PORTRAIT), (0, 128, 255), ends) for ends in zip(dark, middle, light, strict=True)]
    return np.round(np.stack(levels, axis=-1)).astype(np.uint8)


SEPIA = toned((30, 16, 6), (150, 126, 98), (255, 240, 205))
TONES = {
    "grey": grey(PORTRAIT),
    "sepia": SEPIA,
    "blue": toned((8, 16, 44), (112, 130, 160), (235, 244, 255)),
    "faded": toned((90, 80, 60), (150, 140, 115), (215, 205, 180)),
    "green": toned((10, 20, 10), (120, 135, 118), (245, 255, 240)),
}
COLOUR = {
    "colour": PORTRAIT,
    "half as saturated": ((PORTRAIT.astype(int) + grey(PORTRAIT)) // 2).astype(np.uint8),
    "with a grey quarter": np.where(np.indices(NO_HOLE.shape).max(axis=0)[..., None] < 115, grey(PORTRAIT), PORTRAIT),
}


def jpeg(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    _, data = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


@pytest.fixture(scope="module")
def completer() -> FaceCompleter:
    return FaceCompleter.load(device="cpu")


@pytest.mark.parametrize("photo", TONES.values(), ids=TONES)
def test_prints_have_one_tone_also_with_noise_and_as_jpeg(photo: NDArray[np.uint8]) -> None:
    noise = np.random.default_rng(0).normal(0, 6, photo.shape)
    noisy = np.clip(photo + noise, 0, 255).astype(np.uint8)
    assert all(is_one_tone(each, EYE, FACE) for each in (photo, noisy, jpeg(photo)))
    assert is_one_tone(photo, EYE, None)


@pytest.mark.parametrize("side", [230, 150, 70])
def test_noise_that_jpeg_spreads_is_no_colour_at_any_size(side: int) -> None:
    photo = cv2.resize(PORTRAIT, (side, side), interpolation=cv2.INTER_AREA)
    hole, face = np.zeros((side, side), dtype=bool), FACE.rescaled(side / 230)
    assert is_one_tone(scan(photo, "scan"), hole, face) and not is_one_tone(photo, hole, face)


@pytest.mark.parametrize("photo", COLOUR.values(), ids=COLOUR)
def test_colour_photos_do_not_have_one_tone(photo: NDArray[np.uint8]) -> None:
    assert not is_one_tone(photo, EYE, FACE) and Tone.of(photo, photo, EYE, [FACE]) is None


@pytest.mark.parametrize("photo", TONES.values(), ids=TONES)
def test_a_tone_colours_the_luminance_as_it_was(photo: NDArray[np.uint8]) -> None:
    tone = Tone.of(photo, photo, EYE, [FACE])
    assert tone is not None
    restored = tone.colour(grey(photo))
    assert np.abs(restored.astype(int) - photo)[~EYE].mean() < 1
    if photo is TONES["grey"]:
        assert (restored == photo).all()


def test_a_photo_that_is_all_hole_does_not_have_one_tone() -> None:
    assert not is_one_tone(np.full_like(PORTRAIT, 127), ~NO_HOLE, FACE)


def test_what_lies_under_the_hole_has_no_effect_on_the_tone() -> None:
    hidden = SEPIA.copy()
    hidden[EYE] = (0, 255, 0)
    tones = [Tone.of(photo, SEPIA, EYE, [FACE]) for photo in (SEPIA, hidden)]
    assert tones[0] and tones[1] and np.array_equal(tones[0].offsets, tones[1].offsets)


@pytest.mark.parametrize("one_tone", [False, True])
def test_usual_faces_are_not_stretched(one_tone: bool) -> None:
    crop = FACE.warp(grey(PORTRAIT) if one_tone else PORTRAIT)
    stretch = Stretch.of(crop, np.zeros(crop.shape[:2], dtype=bool), one_tone)
    assert (stretch.gain == 1).all() and (stretch.offset == 0).all()
    if not one_tone:
        assert stretch.apply(crop) is crop and stretch.undo(crop) is crop


@pytest.mark.parametrize("one_tone", [False, True])
def test_a_dark_face_is_stretched_to_a_usual_one_and_back(one_tone: bool) -> None:
    crop = FACE.warp(grey(PORTRAIT) if one_tone else PORTRAIT)
    dark = np.round(255 * (crop / 255) ** 1.6 * 0.4).astype(np.uint8)
    stretch = Stretch.of(dark, np.zeros(crop.shape[:2], dtype=bool), one_tone)
    seen = stretch.apply(dark)
    assert abs(float(luma(seen).mean()) - 118.7) < 15 and abs(float(luma(seen).std()) - 54.7) < 15
    assert np.abs(stretch.undo(seen).astype(int) - dark).mean() < 1.5


def test_a_face_without_visible_pixels_is_not_stretched() -> None:
    crop = FACE.warp(PORTRAIT)
    assert not Stretch.of(crop, np.ones(crop.shape[:2], dtype=bool), False).changes


def test_grey_stays_grey_on_across_and_outside_faces(completer: FaceCompleter) -> None:
    hole = EYE.copy()
    hole[150:, :100] = True  # mouth, chin and background
    hole[:30, 180:] = True
    photo = TONES["grey"]
    done = completer(photo, hole, faces=[FACE])
    assert (np.ptp(done.pixels, axis=2) == 0).all()
    assert (done.pixels[~hole] == photo[~hole]).all() and (done.pixels[hole] != photo[hole]).any()


@pytest.mark.parametrize("photo", TONES.values(), ids=TONES)
def test_fills_stay_on_the_curve_of_the_tone(completer: FaceCompleter, photo: NDArray[np.uint8]) -> None:
    filled = completer(photo, EYE, faces=[FACE]).pixels[EYE]
    curve = np.array([photo[luma(photo) == level].mean(axis=0) for level in np.unique(luma(photo))])
    expected = np.stack([np.interp(luma(filled), np.unique(luma(photo)), channel) for channel in curve.T], axis=1)
    lab = [cv2.cvtColor((each / 255)[None].astype(np.float32), cv2.COLOR_RGB2LAB)[0] for each in (filled, expected)]
    assert np.linalg.norm(lab[0][:, 1:] - lab[1][:, 1:], axis=1).mean() < 1


@pytest.mark.slow
def test_darkening_and_fading_hardly_change_the_error(completer: FaceCompleter) -> None:
    def error(photo: NDArray[np.uint8]) -> float:
        """Mean absolute error over contrast, over four holes."""
        errors = []
        for x, y in ((65, 85), (115, 85), (95, 105), (95, 140)):
            hole = box(PORTRAIT.shape, y, y + 30, x, x + 45)
            filled = completer(photo, hole, faces=[FACE], detail="network").pixels
            errors.append(np.abs(filled[hole].astype(float) - photo[hole]).mean())
        return float(np.mean(errors) / FACE.warp(photo).std())

    dark = np.round(255 * (PORTRAIT / 255) ** 1.6 * 0.4).astype(np.uint8)
    light = luma(PORTRAIT)[..., None].astype(float)
    faded = np.round(148 + 0.5 * (light + 0.4 * (PORTRAIT - light) - 128)).astype(np.uint8)
    assert error(dark) < 1.15 * error(PORTRAIT) and error(faded) < 1.15 * error(PORTRAIT)


def test_one_tone_photos_of_other_alignments_are_completed() -> None:
    small = Alignment.identity(48)
    assert is_one_tone(FACE.resized(48).warp(TONES["blue"]), np.zeros((48, 48), dtype=bool), small)
