"""The service behind the page: faces, fills, patches, saved photos, and completions for programs."""

import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import CENTER, FACE, NO_FACE, PORTRAIT, box, differences, pixels, save
from PIL import Image

from align import landmarks, photo
from align.errors import InputError, MaskError, NoFaceError, PhotoError
from completion import Completion, FaceCompleter
from completion.__main__ import main
from completion.references import find_in
from dcgan.weights import Weights
from ui.config import Limits
from ui.reader import TooSlowError, read_reference, search
from ui.service import PARTS, Fill, Service, ServiceError, Upload, explain

Command = Callable[..., None]


@pytest.fixture
def service(encoder_weights: Weights) -> Service:
    return Service(FaceCompleter(encoder_weights, aligned=True), Limits(max_pixels=3_000_000, photos=3))


@pytest.fixture
def upload(service: Service, tmp_path: Path) -> Upload:
    """FACE, uploaded as a.png."""
    return service.read(save(tmp_path / "a.png"))


@pytest.fixture
def portrait(service: Service, tmp_path: Path) -> Upload:
    return service.read(save(tmp_path / "portrait.png", PORTRAIT))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


@pytest.fixture
def command(encoder_weights_file: Path) -> Command:
    """The command line with the same weights."""

    def run(*words: object) -> None:
        loading = ["--aligned", "--weights", encoder_weights_file, "--device", "cpu"]
        assert main([str(word) for word in [*loading, *words]]) == 0

    return run


def marks(path: Path, hole: NDArray[np.bool_]) -> Path:
    """What the page uploads for a hole."""
    return save(path, np.dstack([np.full((*hole.shape, 3), 255), np.where(hole, 255, 0)]))


def last(items: Iterator[Any]) -> Any:
    *_, item = items
    return item


def kept(patch: Fill, path: Path, upload: Upload) -> tuple[Path, int, int]:
    patch.save(path, upload.photo)
    return path, patch.x, patch.y


def counted(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> list[Any]:
    """Record the calls of a function."""
    calls: list[Any] = []
    original = getattr(where, name)
    monkeypatch.setattr(where, name, lambda *words, **named: (calls.append(words), original(*words, **named))[1])
    return calls


# Faces


def test_a_result_takes_two_opens_one_decoding_and_one_search_for_faces(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "portrait.png", PORTRAIT)
    opens, decodings = counted(monkeypatch, photo, "_open"), counted(monkeypatch, photo, "_to_photo")
    searches: list[int] = []
    detector = landmarks.detector()

    class Counting:
        def run(self, *words: Any) -> Any:
            searches.append(1)
            return detector.run(*words)

    monkeypatch.setattr(landmarks, "detector", Counting)
    faces = service.faces(service.read(path))
    hole = box(PORTRAIT.shape[:2], 130, 150, 90, 120)
    for _ in range(2):
        again = service.read(path)
        filled = last(service.fill(again.photo, hole, service.alignments(again, described(service, again, faces))))
        service.save(again, [kept(filled, tmp_path / "step.png", again)], tmp_path / "saved")
    assert (len(opens), len(decodings)) == (6, 3)  # with one patch, twice
    assert 1 <= len(searches) <= 3


def described(service: Service, upload: Upload, faces: Any) -> list[Any]:
    """The alignments as the page sends them back, after a journey through JSON."""
    found = json.loads(json.dumps([service.describe(upload, face) for face in faces]))
    return [face["alignment"] for face in found]


def test_uploads_of_four_of_the_largest_photos_are_remembered(encoder_weights: Weights, tmp_path: Path) -> None:
    service = Service(FaceCompleter(encoder_weights, aligned=True), Limits(max_pixels=4096))
    first, *others = [save(tmp_path / f"{number}.png", np.zeros((64, 64, 3))) for number in range(5)]
    upload = service.read(first)
    for path in others[:3]:
        service.read(path)
    assert service.read(first) is upload
    service.read(others[3])
    assert service.read(first) is upload  # the one used longest ago has gone
    assert len(service._uploads) == 4 and others[0] not in service._uploads


def test_a_face_is_described_by_its_corners_its_eyes_and_the_outlines_of_its_parts(
    service: Service, portrait: Upload
) -> None:
    [face] = service.faces(portrait)
    found = service.describe(portrait, face)
    eyes = np.array(found["eyes"])
    assert np.abs(eyes - [(93, 102), (136, 104)]).max() < 4  # by eye, in PORTRAIT
    assert set(found["parts"]) == set(PARTS)

    def middle(part: str) -> NDArray[np.float64]:
        return np.concatenate(found["parts"][part]).mean(axis=0)

    for part, eye in (("left eye", eyes[0]), ("right eye", eyes[1])):
        [outline] = found["parts"][part]
        assert cv2.pointPolygonTest(np.float32(outline), eye.tolist(), False) > 0
    assert middle("eyes")[1] < middle("nose")[1] < middle("mouth")[1]
    assert middle("left half")[0] < middle("nose")[0] < middle("right half")[0]
    inside = np.array(found["corners"])
    for outline in (points for outlines in found["parts"].values() for points in outlines):
        assert (cv2.pointPolygonTest(np.float32(inside), np.mean(outline, axis=0).tolist(), False)) > 0


def test_faces_come_back_exactly_and_absurd_ones_are_refused(service: Service, portrait: Upload) -> None:
    faces = service.faces(portrait)
    sent = described(service, portrait, faces)
    [back] = service.alignments(portrait, sent)
    assert np.array_equal(back.matrix, faces[0].matrix) and back.size == faces[0].size
    wrong = ["x", [[1]], [[*sent[0][:6], 33]], [[0] * 6 + [32]], [[1e9, 0, 0, 0, 1e9, 0, 32]], [[float("nan")] * 7]]
    wrong += [[[1e-9, 0, 0, 0, 1e-9, 0, 32]], [[True] * 7], sent * 201]
    for faces in wrong:
        with pytest.raises(ServiceError):
            service.alignments(portrait, faces)


def test_a_face_is_marked_by_its_eyes(service: Service, portrait: Upload) -> None:
    [found] = service.faces(portrait)
    eyes = [float(value) for point in service.describe(portrait, found)["eyes"] for value in point]
    assert np.abs(service.marked(portrait, eyes).matrix - found.matrix).max() < 0.2
    for wrong in ([1.0, 2.0], [1, 1, 1, 1], [-1, 5, 30, 5], ["a", 1, 2, 3]):
        with pytest.raises(InputError):
            service.marked(portrait, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.001, 0.5])
def test_outlines_of_damage_have_few_points_and_enclose_all_of_it(
    service: Service, upload: Upload, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    hole = np.random.default_rng(0).random((1000, 1500)) < share
    monkeypatch.setattr("ui.service.find_damage", lambda *_: hole)
    outlines = service.damage(upload.photo, 0.5)
    assert 0 < sum(map(len, outlines)) <= 20_000
    drawn = [np.floor(np.array(outline)).astype(np.int32) for outline in outlines]
    inside = cv2.fillPoly(np.zeros(hole.shape, np.uint8), drawn, 1)  # by the even-odd rule
    assert (cv2.polylines(inside, drawn, True, 1)[hole] > 0).all()


# Fills


def test_a_fill_is_that_of_the_library_and_changes_nothing_else(service: Service, portrait: Upload) -> None:
    faces = service.faces(portrait)
    hole = box(PORTRAIT.shape[:2], 130, 150, 90, 130)
    hole[140, 100] = False
    filled = last(service.fill(portrait.photo, hole, faces))
    assert isinstance(filled, Fill) and (filled.faces, filled.outside, filled.quick) == (1, False, False)
    assert (filled.x, filled.y, filled.pixels.shape) == (90, 130, (20, 40, 4))
    assert np.array_equal(filled.pixels[..., 3] > 0, hole[130:150, 90:130])
    expected = service.completer(portrait.photo, hole, faces=faces).pixels[130:150, 90:130]
    shown = hole[130:150, 90:130]
    assert np.array_equal(filled.pixels[..., :3][shown], expected[shown])


def test_an_attempt_gives_another_fill_of_the_same_hole(service: Service, upload: Upload) -> None:
    fills = [last(service.fill(upload.photo, CENTER, [], attempt)) for attempt in (0, 1, 1, 2)]
    pictures = [fill.pixels for fill in fills]
    assert np.array_equal(pictures[1], pictures[2])
    assert not np.array_equal(pictures[0], pictures[1]) and not np.array_equal(pictures[1], pictures[3])


def test_what_lies_outside_all_faces_is_filled_from_around_it_and_said(service: Service, tmp_path: Path) -> None:
    upload = service.read(save(tmp_path / "grey.png", NO_FACE))
    hole = box(NO_FACE.shape[:2], 20, 30, 20, 30)
    filled = last(service.fill(upload.photo, hole, []))
    assert (filled.faces, filled.outside) == (0, True)
    assert (filled.pixels == (128, 128, 128, 255)).all()


def test_at_the_time_limit_the_fill_is_a_quick_one(
    service: Service, upload: Upload, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.limits = Limits(seconds=1)
    release = threading.Event()

    def never(*_: Any, **__: Any) -> Iterator[Any]:
        assert release.wait(300)
        yield from ()

    monkeypatch.setattr(FaceCompleter, "steps", never)
    monkeypatch.setattr("ui.service._REST_S", 0)
    filled = last(service.fill(upload.photo, CENTER, []))
    with pytest.raises(ServiceError, match="took longer than 1 s"):
        last(service.complete(upload, "center", folder))
    release.set()
    assert filled.quick
    around = upload.photo.pixels.reshape(-1, 3)
    inside = filled.pixels[..., :3].reshape(-1, 3)
    assert (inside.min(axis=0) >= around.min(axis=0)).all() and (inside.max(axis=0) <= around.max(axis=0)).all()


def test_the_marks_are_where_the_drawing_is_opaque_whatever_its_size(service: Service, tmp_path: Path) -> None:
    upload = service.read(save(tmp_path / "large.png", np.zeros((64, 96, 3))))
    hole = box((64, 96), 16, 48, 24, 60)
    assert np.array_equal(service.hole(upload, marks(tmp_path / "m.png", hole)), hole)
    half = service.hole(upload, marks(tmp_path / "n.png", hole[::2, ::2]))
    assert (half != hole).sum() <= 2 * (32 + 36)
    huge = np.ones((1, 3_000_001), dtype=bool)
    webp = marks(tmp_path / "hole.webp", hole)
    for wrong in (marks(tmp_path / "huge.png", huge), save(tmp_path / "x.jpg"), webp, _text(tmp_path / "x.png")):
        with pytest.raises(ServiceError, match="cannot be read"):
            service.hole(upload, wrong)
    with pytest.raises(ServiceError, match="Nothing is marked"):
        service.hole(upload, marks(tmp_path / "nothing.png", hole & False))


def _text(path: Path) -> Path:
    path.write_text("text")
    return path


# Patches and saved photos


def test_patches_lie_over_each_other_and_must_fit(service: Service, upload: Upload, tmp_path: Path) -> None:
    square = np.full((4, 4, 4), 255, dtype=np.uint8)
    square[0, 0, 3] = 0
    steps = []
    for number, (shade, x, y) in enumerate([(10, 2, 3), (200, 4, 5)]):
        square[..., :3] = shade
        steps.append(kept(Fill(square, x, y), tmp_path / f"{number}.png", upload))
    photo, covered = service.patched(upload, steps)
    assert photo.pixels[4, 3].tolist() == [10] * 3 and photo.pixels[6, 5].tolist() == [200] * 3
    assert photo.pixels[5, 4].tolist() == [10] * 3  # through the transparent corner of the second
    assert covered.sum() == 15 + 15 - 3 and np.array_equal(photo.pixels[~covered], FACE[~covered])
    for wrong in ([(steps[0][0], 30, 0)], [(steps[0][0], -1, 0)], [(save(tmp_path / "rgb.png"), 0, 0)], steps * 101):
        with pytest.raises(ServiceError):
            service.patched(upload, wrong)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
def test_a_saved_photo_has_the_bytes_of_the_command_line(
    service: Service, command: Command, tmp_path: Path, mode: str, suffix: str
) -> None:
    image = Image.fromarray(FACE).convert(mode)
    if mode == "RGBA":
        if suffix in (".jpg", ".bmp"):
            pytest.skip("has no transparency")
        image.putalpha(Image.fromarray(np.tile(np.uint8(np.linspace(0, 255, 32)), (32, 1))))
    path = save(tmp_path / f"a{suffix}", image, **{"dpi": (72, 72)} if suffix != ".webp" else {"lossless": True})
    upload = service.read(path)
    filled = last(service.fill(upload.photo, CENTER, []))
    written = service.save(upload, [kept(filled, tmp_path / "step.png", upload)], tmp_path / "saved")
    mask = save(tmp_path / "hole.png", np.where(CENTER, 255, 0))
    command("--mask", mask, "--output", tmp_path / f"out{suffix}", path)
    assert not differences(written, tmp_path / f"out{suffix}")


def test_a_zip_file_holds_every_filled_photo_and_a_report(service: Service, upload: Upload, folder: Path) -> None:
    filled = last(service.fill(upload.photo, CENTER, []))
    steps = [kept(filled, folder / "step.png", upload)]
    photo = save(folder / "photo.png")
    items = [("a.png", photo, steps, ""), ("a.png", photo, [], ""), ("../b.jpg", None, [], "too dark")]
    with zipfile.ZipFile(service.save_all(items, folder / "all.zip")) as archive:
        assert archive.namelist() == ["a.png", "a-2.png", "report.json"]
        report = json.loads(archive.read("report.json"))
    assert report[0] == {"photo": "a.png", "file": "a.png", "steps": 1}
    assert report[2] == {"photo": "../b.jpg", "failed": "too dark"}
    with pytest.raises(ServiceError, match="give from 1 to 3"):
        service.save_all(items * 2, folder / "all.zip")


# Completions and batches


def test_masks_and_references_are_decoded_like_photos_and_drawings_are_png(
    encoder_weights: Weights, upload: Upload, tmp_path: Path, folder: Path
) -> None:
    def refuses(work: Callable[..., Any], path: Path) -> Any:
        raise PhotoError(f"{work.__name__} {path.name}")

    service = Service(FaceCompleter(encoder_weights, aligned=True), Limits(), refuses)
    mask = save(tmp_path / "mask.png", np.where(CENTER, 255, 0))
    with pytest.raises(PhotoError, match="read_reference mask.png"):
        service.references([mask])
    with pytest.raises(PhotoError, match="read mask.png"):
        last(service.complete(upload, mask, folder))
    drawn, webp = (marks(tmp_path / f"drawn.{suffix}", CENTER) for suffix in ("png", "webp"))
    assert np.array_equal(service.hole(upload, drawn), CENTER)
    service.patched(upload, [(drawn, 0, 0)])
    with pytest.raises(ServiceError, match="a step cannot be read"):
        service.patched(upload, [(webp, 0, 0)])


def test_references_are_decoded_and_faces_searched_for_by_the_reader_alone(
    encoder_weights: Weights, portrait: Upload, tmp_path: Path
) -> None:
    other = save(tmp_path / "other.png", np.pad(PORTRAIT, ((9, 0), (0, 0), (0, 0)), "edge"))
    found, faces, slow = find_in(other), FaceCompleter(encoder_weights).locate(PORTRAIT), threading.Event()

    def does(work: Callable[..., Any], *words: Any) -> Any:
        if work is read_reference:
            return found
        assert work is search
        if slow.is_set():
            raise TooSlowError("reading it took longer than 60 s")
        return faces, 0

    service = Service(FaceCompleter(encoder_weights), Limits(), does)
    hole = box(PORTRAIT.shape[:2], 130, 150, 90, 130)
    shown_by = service.references([_text(other)])  # no longer a photo
    filled = last(service.fill(portrait.photo, hole, [], 0, shown_by))
    expected = service.completer(portrait.photo, hole, faces=faces, reference=shown_by)
    assert expected.details["face 1"].source == "other.png" and filled.notes == ()
    assert np.array_equal(filled.pixels[..., :3].reshape(-1, 3), expected.pixels[hole])
    slow.set()
    assert last(service.fill(portrait.photo, hole, [])).quick


def test_a_photo_that_only_its_reader_knows_is_saved_as_png(encoder_weights: Weights, tmp_path: Path) -> None:
    service = Service(FaceCompleter(encoder_weights), Limits(), lambda *_: photo.as_photo(FACE))
    assert service.read(_text(tmp_path / "a.heic")).suffix == ".png"


@pytest.mark.parametrize(
    "options", [{}, {"candidates": 3, "seed": 5}, {"solver": "thorough", "blend": "alpha"}], ids=str
)
def test_completions_are_those_of_the_command_line_byte_for_byte(
    service: Service, command: Command, upload: Upload, tmp_path: Path, folder: Path, options: dict[str, Any]
) -> None:
    files, done = last(service.complete(upload, "center", folder, "a", **options))
    assert isinstance(done, Completion)
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    command("--mask", "center", *words, "--output", tmp_path / "a-completed.png", tmp_path / "a.png")
    assert len(files) == options.get("candidates", 1)
    for file in files:
        assert not differences(file, tmp_path / file.name)


@pytest.mark.parametrize("named", [True, False])
def test_a_face_in_a_photo_is_completed_as_on_the_command_line(
    service: Service, command: Command, portrait: Upload, tmp_path: Path, folder: Path, named: bool
) -> None:
    hole = box(PORTRAIT.shape, 80, 115, 70, 160)
    mask: Any = "mouth" if named else save(tmp_path / "hole.png", np.where(hole, 255, 0))
    [file], _ = last(service.complete(portrait, mask, folder))
    command("--mask", mask, "--output", tmp_path / "out.png", tmp_path / "portrait.png")
    assert not differences(file, tmp_path / "out.png")


def test_another_photo_of_the_person_gives_its_detail(
    service: Service, portrait: Upload, tmp_path: Path, folder: Path
) -> None:
    other = save(tmp_path / "other.png", np.pad(PORTRAIT, ((9, 0), (0, 0), (0, 0)), "edge"))
    shown_by = service.references([other])
    _, done = last(service.complete(portrait, "mouth", folder, reference=shown_by))
    assert done.details["face 1"].source == "other.png"
    hole, faces = done.hole, service.faces(portrait)
    plain, referred = (last(service.fill(portrait.photo, hole, faces, 0, each)) for each in ((), shown_by))
    assert np.array_equal(referred.pixels[..., :3][referred.pixels[..., 3] > 0], done.pixels[hole])
    assert not np.array_equal(plain.pixels, referred.pixels)
    assert referred.notes == ()
    without = save(tmp_path / "without.png", NO_FACE)
    noted = last(service.fill(portrait.photo, hole, faces, 0, (without,)))
    assert noted.notes == ("No face was found in the reference without.png.",)
    with pytest.raises(ServiceError, match="give up to 8"):
        service.references([other] * 9)
    with pytest.raises(PhotoError):
        service.references([save(tmp_path / "x.png").with_name("absent.png")])


@pytest.mark.parametrize("mask", ["/etc/passwd", "a.png", "alpha", "", "center,../a", 13, ["mouth"], None])
def test_a_name_is_never_a_file_on_the_server(service: Service, upload: Upload, folder: Path, mask: Any) -> None:
    with pytest.raises(ServiceError, match="there is no hole named"):
        last(service.complete(upload, mask, folder))
    with pytest.raises(ServiceError, match="there is no hole named"):
        last(service.batch([folder / "a.png"], mask, [], folder))


WRONG = {
    "solver": ("magic", None, ["fast"]),
    "blend": ("", {}),
    "candidates": (0, 9, 2.5),
    "seed": (-1, "1", None),
    "prior_weight": (-0.1, float("nan"), "1"),
}


@pytest.mark.parametrize("wrong", [{name: value} for name, values in WRONG.items() for value in values], ids=str)
def test_an_option_with_a_wrong_value_or_type_is_refused(
    service: Service, upload: Upload, folder: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises(InputError):
        last(service.complete(upload, "center", folder, **wrong))


def test_a_photo_without_a_face_or_over_the_limit_is_refused(service: Service, tmp_path: Path, folder: Path) -> None:
    with pytest.raises(NoFaceError) as caught:
        last(service.complete(service.read(save(tmp_path / "grey.png", NO_FACE)), "center", folder))
    assert explain(caught.value) == "No face was found there. Use a photo that shows the face larger."
    with pytest.raises(PhotoError, match="the limit is 3,000,000 pixels"):
        service.read(save(tmp_path / "large.png", np.zeros((2000, 2000, 3))))
    assert explain(MaskError("the hole is empty")) == "The hole is empty."


def test_slow_solvers_and_many_pixels_make_a_request_large(service: Service, tmp_path: Path) -> None:
    small, large = save(tmp_path / "small.png"), save(tmp_path / "large.png", np.zeros((1000, 2000, 3)))
    unread = tmp_path / "unread.png"
    unread.write_bytes(bytes(2**20))
    service.read(small), service.read(large)
    assert service.is_large(small, solver="paper") and service.is_large(large, candidates=5)
    assert not service.is_large(small, candidates=8) and not service.is_large(large, candidates=4)
    assert service.is_large(unread)


def test_a_mask_has_a_few_names(service: Service, upload: Upload, folder: Path) -> None:
    with pytest.raises(ServiceError, match="the mask has 200 names; give at most 8"):
        last(service.complete(upload, ",".join(["mouth"] * 200), folder))


@pytest.mark.parametrize("named", [True, False])
def test_a_batch_completes_each_photo_and_reports_those_that_failed(
    service: Service, tmp_path: Path, folder: Path, named: bool
) -> None:
    photos = [save(tmp_path / "1" / "a.png"), save(tmp_path / "2" / "a.png", FACE[::-1]), _text(tmp_path / "b.png")]
    masks = [] if named else [save(tmp_path / "m.png", np.where(CENTER, 255, 0))]
    *lines, archive = service.batch(photos, "center", masks, folder)
    assert [line.partition(":")[0] for line in lines] == ["a.png", "a.png", "b.png"]
    assert "completed" in lines[0] and lines[2].startswith("b.png: Not an image; expected JPEG, PNG,")
    with zipfile.ZipFile(archive) as opened:
        report = json.loads(opened.read("report.json"))
        names = opened.namelist()
        for name, before in zip(names[:2], (FACE, FACE[::-1]), strict=True):
            with opened.open(name) as file:
                after = pixels(file)
            assert np.array_equal(after[~CENTER], before[~CENTER]) and (after[CENTER] != before[CENTER]).any()
    assert [photo["status"] for photo in report["photos"]] == ["completed", "completed", "failed"]
    assert str(tmp_path) not in json.dumps(report)


def test_a_batch_has_one_mask_for_all_or_one_for_each(service: Service, tmp_path: Path, folder: Path) -> None:
    photos = [save(tmp_path / f"{name}.png") for name in "ab"]
    masks = [save(tmp_path / "masks" / f"{name}.png", np.where(CENTER, 255, 0)) for name in "ac"]
    *lines, _ = service.batch(photos, "", masks, folder)
    assert "completed" in lines[0] and "No masks are named b" in lines[1]
    for wrong, words in ((photos * 2, "4 photos"), ([], "0 photos")):
        with pytest.raises(ServiceError, match=words):
            last(service.batch(wrong, "center", [], folder))
    with pytest.raises(ServiceError, match="none of the photos"):
        last(service.batch([_text(tmp_path / "c.png")], "center", [], folder))
