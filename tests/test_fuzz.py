"""Damaged files of every kind give a result or the error that is meant for them: no traceback, no other exception.

`make fuzz` runs this for FUZZ_SECONDS per kind of file, with other damage each time; a failure prints its seed.
"""

import contextlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import HEIC
from PIL import Image
from safetensors.torch import load_file, save_file
from test_align_bounds import rle

from align.cli import Parser, add_common
from align.deep import encode_png, write_tiff
from align.errors import InputError, MaskError, NoFaceError, PhotoError
from align.files import prepare_report
from align.folder import MANIFEST, Crop
from align.locate import align_by_landmarks
from align.manifest import is_owned, read_records
from align.photo import read_photo, to_photo
from align.template import TEMPLATES
from completion.manifest import Manifest
from completion.masks import read_mask
from completion.runtime import open_session
from dcgan.checkpoint import CheckpointError, load_checkpoint
from dcgan.dataset import DatasetError, load_faces, pack_faces
from dcgan.run import command_of, read_stats
from dcgan.weights import Weights, WeightsError, tensor_digest

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
RECORD = {"crop": "a.png", "source": "a.jpg", "face": 0, "template": "face", "size": 64}
LANDMARKS = [[20, 10], [20, 10], [10, 10], [10, 10], [15, 20.5]]
# What text of a format may contain in the wrong place.
TOKENS = [b"NaN", b"1e999", b"-1", b"0.5", b"9" * 400, b"null", b"true", b"[" * 5000, b'{"a":', b"{}", b"[]", b"= = ="]
TOKENS += [b'"', b"\\", b"\n", b"\xef\xbb\xbf", b"\xff", b"\0", b"\xe2\x80\xa8"]


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Put a token in place of a value, or flip bits, cut, repeat and overwrite at one to three places."""
    found = bytearray(data)
    values = [at for at in range(1, len(data)) if data[at - 1] in b":,[= "]
    if values and rng.random() < 0.5:
        at = values[rng.integers(len(values))]
        found[at : at + rng.integers(6)] = TOKENS[rng.integers(len(TOKENS))]
        return bytes(found)
    for _ in range(rng.integers(1, 4)):
        at, end = sorted(rng.integers(0, len(found) + 1, 2).tolist())
        end = min(end, at + 64)
        kind = rng.integers(5)
        if kind == 0 and found:
            found[min(at, len(found) - 1)] ^= 1 << rng.integers(8)
        elif kind == 1:
            del found[at:end]
        elif kind == 2:
            del found[at:]
        elif kind == 3:
            found[at:at] = found[at:end]
        else:
            found[at:end] = rng.bytes(end - at)
    return bytes(found)


def damage(seed: bytes, cases: int) -> Iterator[tuple[str, bytes]]:
    """Damaged copies of a file, each with its seed: always the same ones, or for a time new ones."""
    first = time.time_ns() if SECONDS else 0
    end = time.monotonic() + SECONDS
    number = 0
    while number < cases or time.monotonic() < end:
        yield f"seed {first + number}", mutated(seed, np.random.default_rng(first + number))
        number += 1


def check_all(
    files: Path | list[Path], seed: bytes, work: Callable[[], object], *expected: type[BaseException], cases: int = 300
) -> None:
    """Fail unless every damaged copy gives a result or one of the expected errors, whose message is one line."""
    files = files if isinstance(files, list) else [files]
    for name, content in chain([("intact", seed)], damage(seed, cases)):
        for file in files:
            file.write_bytes(content)
        try:
            work()
        except expected as error:
            assert content != seed, f"{name}: the intact file must be accepted"
            if isinstance(error, InputError):
                assert str(error) and "\n" not in str(error), name
        except BaseException as error:
            error.add_note(f"{name}: {content[:200]!r}")
            raise


def encoded(kind: str) -> bytes:
    """A small picture with metadata."""
    if kind == "HEIC":
        return HEIC
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image, file = Image.fromarray(pixels), io.BytesIO()
    exif = image.getexif()
    exif[0x0112], exif[0x0132] = 6, "2026:01:01 00:00:00"
    settings = {} if kind in ("BMP", "GIF", "PPM") else {"exif": exif}
    if kind == "DEFLATED":
        kind, settings = "TIFF", settings | {"compression": "tiff_adobe_deflate"}
    if kind == "progressive":
        kind, settings = "JPEG", settings | {"progressive": True}
    if kind == "RLE":
        return rle(8, 8, b"\x08\x05\0\0" * 8 + b"\0\1")
    if kind == "16-bit":
        return encode_png(pixels.astype(np.uint16) * 257, settings)
    if kind == "16-bit TIFF":
        write_tiff(file, pixels.astype(np.uint16) * 257, {})
        return file.getvalue()
    image.save(file, kind, **settings)
    return file.getvalue()


@pytest.mark.parametrize(
    "kind", "JPEG progressive PNG WEBP BMP RLE TIFF DEFLATED GIF PPM AVIF HEIC 16-bit".split() + ["16-bit TIFF"]
)
def test_damaged_photos(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "photo"

    def read() -> None:
        assert read_photo(file).pixels.dtype == np.uint8

    check_all(file, encoded(kind), read, PhotoError)


def test_damaged_masks(tmp_path: Path) -> None:
    mask, content, photo = tmp_path / "mask.png", io.BytesIO(), to_photo(Image.new("RGB", (16, 16), "grey"))
    Image.fromarray(np.eye(16, dtype=np.uint8) * 255).save(content, "PNG")
    check_all(mask, content.getvalue(), lambda: photo.pixels[read_mask(mask, photo)[0]], MaskError)


def test_damaged_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser, file = Parser("command"), tmp_path / "options.toml"
    parser.add_argument("--seed", type=int)
    parser.add_argument("--flip", action="store_true")
    add_common(parser)
    seed = b"# options\nseed = 1\nflip = false\n"
    check_all(file, seed, lambda: parser.parse_args(["--config", str(file)]), SystemExit)
    assert "Traceback" not in capsys.readouterr().err


def test_damaged_json_lines(tmp_path: Path) -> None:
    manifest, log = tmp_path / MANIFEST, tmp_path / "stats.jsonl"

    def read() -> None:
        read_records(manifest, Crop), read_stats(tmp_path)
        with contextlib.suppress(NoFaceError):
            align_by_landmarks(manifest, Path("a.jpg"), TEMPLATES["face"], 64)

    check_all([manifest, log], json.dumps(RECORD | {"landmarks": LANDMARKS, "kimg": 1}).encode() + b"\n", read)


def test_damaged_records_of_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"mine")
    lines = [{"output": "a.png", "files": {"a.png": "0" * 64}, "request": {"photo": "0" * 64}}]
    lines += [{"file": "a.png", "sha256": "0" * 64}, {"command": "train", "kimg": 1}]

    def read() -> None:
        manifest = Manifest(tmp_path)
        manifest.fingerprint(file)
        assert not manifest.made_by_us(file) and not is_owned(file)
        with contextlib.suppress(CheckpointError):
            command_of(tmp_path)

    records = [tmp_path / name for name in (".completions.jsonl", ".written.jsonl", "config.json")]
    check_all(records, b"\n".join(json.dumps(line).encode() for line in lines) + b"\n", read)


def test_damaged_reports_are_not_replaced(tmp_path: Path) -> None:
    report, seed = tmp_path / "r.json", b'{"settings": {}, "photos": [{"photo": "a.png", "status": "failed"}]}'
    check_all(report, seed, lambda: prepare_report(report), PhotoError)


def test_damaged_packed_faces(tmp_path: Path) -> None:
    file = tmp_path / "faces.npy"
    pack_faces(np.zeros((2, 8, 8, 3), dtype=np.uint8), file)

    def read() -> None:
        assert load_faces(file, 8, print).shape[1:] == (8, 8, 3)

    check_all(file, file.read_bytes(), read, DatasetError)


def test_damaged_graphs(tmp_path: Path, onnx_weights_file: Path) -> None:
    graph, seed = tmp_path / "w.onnx", onnx_weights_file.with_suffix(".onnx").read_bytes()
    check_all(graph, seed, lambda: open_session(graph), WeightsError, cases=60)


def test_damaged_weights(tmp_path: Path, encoder_weights_file: Path) -> None:
    """Damage anywhere in the file."""
    path, seed = tmp_path / "w.safetensors", encoder_weights_file.read_bytes()

    def read() -> None:
        with pytest.raises(WeightsError) if path.read_bytes() != seed else contextlib.nullcontext():
            assert Weights.open(path, "cpu").generator

    check_all(path, seed, read, cases=60)


@pytest.mark.parametrize("name", ["network", "encoder", "facts", "template"])
def test_damaged_headers_of_weights(tmp_path: Path, encoder_weights_file: Path, name: str) -> None:
    """Damage in one part of the header, with a digest that fits."""
    whole, tensors = encoder_weights_file.read_bytes(), load_file(encoder_weights_file)
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])["__metadata__"]
    del header["sha256"]
    part, path = tmp_path / name, tmp_path / "w.safetensors"

    def read() -> None:
        changed = header | {name: part.read_bytes().decode(errors="replace")}
        save_file(tensors, path, changed | {"sha256": tensor_digest(changed, tensors)})
        weights = Weights.open(path, "cpu")
        assert weights.logit_offset < float("inf") and weights.generator

    check_all(part, header[name].encode(), read, WeightsError, cases=60)


def test_damaged_checkpoints(tmp_path: Path) -> None:
    file, checkpoint = io.BytesIO(), tmp_path / "checkpoint-0000000001.pt"
    torch.save({"G": {"weight": torch.arange(8.0)}, "step": 3, "config": {"lr": 0.1}}, file)

    def read() -> None:
        assert load_checkpoint(tmp_path) is not None

    check_all(checkpoint, file.getvalue(), read, CheckpointError)
