"""Checkpoints and weights files: saving, loading, and refusing damaged ones."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import files
from safetensors.torch import load_file, save_file

import weights as registry
from align.errors import DeviceError
from dcgan.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from dcgan.config import NetworkConfig
from dcgan.networks import Discriminator, Generator
from dcgan.sampling import generate
from dcgan.tensors import OutputError
from dcgan.weights import Weights, WeightsError, bundled_file, sealed, tensor_digest


def rewrite(source: Path, target: Path, change: dict[str, Any]) -> Path:
    """Change tensors, whose names have a dot, and the header of a file, and its digest; None removes a part."""
    length = int.from_bytes(source.read_bytes()[:8], "little")
    header = json.loads(source.read_bytes()[8 : 8 + length])["__metadata__"]
    whole = {name: value for name, value in (header | load_file(source) | change).items() if value is not None}
    tensors = {name: value for name, value in whole.items() if "." in name}
    header = {name: value for name, value in whole.items() if "." not in name and name != "sha256"}
    save_file(tensors, target, header | {"sha256": tensor_digest(header, tensors)})
    return target


def test_weights_survive_saving_and_loading(small_weights_file: Path, small_weights: Weights) -> None:
    again = Weights.open(small_weights_file, "cpu")
    z = torch.randn(2, again.generator.config.nz)
    assert torch.equal(again.generator(z), small_weights.generator(z))
    assert again.template == "face"
    assert again.metadata == {"images": 0}
    assert not again.generator.training
    assert not any(weight.requires_grad for weight in again.discriminator.parameters())


def test_an_encoder_survives_saving_and_loading(
    small_weights: Weights, encoder_weights: Weights, encoder_weights_file: Path
) -> None:
    assert small_weights.encoder is None
    assert small_weights.sha256 != encoder_weights.sha256
    one, other = encoder_weights.encoder, Weights.open(encoder_weights_file, "cpu").encoder
    assert one is not None and other is not None
    images, hole = torch.randn(2, 3, 32, 32), torch.rand(2, 1, 32, 32) < 0.5
    (z, skips), (again, skips_again) = one(images, hole), other(images, hole)
    assert torch.equal(z, again) and one.settings == other.settings
    assert torch.equal(encoder_weights.generator(z, skips), small_weights.generator(z, skips_again))
    assert not torch.equal(encoder_weights.generator(z, skips), small_weights.generator(z))
    assert not one.training and not any(weight.requires_grad for weight in one.parameters())
    z = torch.randn(2, 8)
    assert torch.equal(encoder_weights.generator(z), small_weights.generator(z))


def test_half_precision_costs_less_than_a_grey_level(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = NetworkConfig(size=32, nz=8, ngf=8, ndf=8)
    G = Generator(config).eval()
    Weights.of(G, Discriminator(config), "face", {}).save(tmp_path / "w.safetensors")
    z = torch.randn(16, 8)
    with torch.no_grad():
        assert (Weights.open(tmp_path / "w.safetensors", "cpu").generator(z) - G(z)).abs().max() < 1 / 127.5


class Canary:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_malicious_pickle_is_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "w.safetensors").write_bytes(pickle.dumps(Canary(canary)))
    torch.save({"G": Canary(canary)}, tmp_path / "checkpoint-0000000001.pt")
    torch.save({"G": Canary(canary)}, tmp_path / "torch.safetensors")
    for name in ("w.safetensors", "torch.safetensors"):
        with pytest.raises(WeightsError, match="python -m dcgan export"):
            assert Weights.open(tmp_path / name, "cpu").generator
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_checkpoint(tmp_path)
    assert not canary.exists()


@pytest.mark.parametrize("content", ["truncated", "empty", "zeros", "text", "header"])
def test_a_damaged_file_is_refused(tmp_path: Path, small_weights_file: Path, content: str) -> None:
    whole = small_weights_file.read_bytes()
    damaged = {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "zeros": bytes(1000),
        "text": b"<html>not found</html>",
        "header": whole[:7],
    }
    path = tmp_path / "w.safetensors"
    path.write_bytes(damaged[content])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        assert Weights.open(path, "cpu").generator


def test_a_flipped_bit_or_changed_settings_are_noticed(tmp_path: Path, small_weights_file: Path) -> None:
    content, path = small_weights_file.read_bytes(), tmp_path / "w.safetensors"
    flipped = content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:]
    for changed in (flipped, content.replace(rb"images\": 0", rb"images\": 9")):
        assert changed != content
        path.write_bytes(changed)
        with pytest.raises(WeightsError, match="sha256"):
            assert Weights.open(path, "cpu").generator


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": "2"}, "version 2, this program reads version 1"),
        ({"format": "another"}, "from another program"),
        ({"network": '{"dropout": 0.5}'}, "an invalid network"),
        ({"network": "not json"}, "an invalid network"),
        ({"network": "[" * 10**5}, "an invalid network: it is nested too deeply"),
        ({"network": '{"size": 32.0}'}, "size is 32.0; expected an integer"),
        ({"network": '{"size": 32, "ngf": 1024, "nz": 8, "upsample": "nearest"}'}, "G.layers.0.weight is"),
        ({"encoder": '{"nef": 8192}'}, "nef is 8192; expected an integer from 1 to 1024"),
        ({"encoder": '{"nef": 1024, "skips": true}'}, r"E.layers.0.weight is \(8, 4, 4, 4\); expected \(1024, "),
        ({"encoder": '{"nef": 8.0}'}, "nef is 8.0; expected an integer"),
        ({"encoder": "[]"}, "an invalid network"),
        ({"facts": "[]"}, "an invalid network"),
        ({"facts": '{"logit_offset": NaN}'}, "NaN is not a finite number"),
        ({"template": ""}, "the template is ''; expected one of face"),
        ({"template": None}, "an invalid network: 'template'"),
        ({"G.layers.0.weight": torch.zeros(3, 3)}, r"G.layers.0.weight is \(3, 3\); expected"),
        ({"G.layers.0.weight": None}, "missing or extra tensors: layers.0.weight"),
        ({"E.layers.0.weight": None}, "E has missing or extra tensors"),
        ({"D.more": torch.zeros(1)}, "missing or extra tensors: more"),
        ({"D.head.bias": torch.full((1,), float("nan"))}, "contains NaN or infinity"),
        ({"D.head.bias": torch.zeros(1, dtype=torch.int64)}, "D.head.bias is torch.int64; expected torch.float16 or"),
        ({"D.\x1b[31m\n": torch.zeros(1)}, r"extra tensors: '\\x1b\[31m\\n'"),
    ],
)
def test_a_wrong_header_and_wrong_tensors_are_refused(
    tmp_path: Path, encoder_weights_file: Path, change: dict[str, Any], words: str
) -> None:
    path = rewrite(encoder_weights_file, tmp_path / "w.safetensors", change)
    with pytest.raises(WeightsError, match=words):
        assert Weights.open(path, "cpu").generator


def test_finite_weights_that_give_nan_are_an_error(tmp_path: Path, small_weights_file: Path) -> None:
    first = load_file(small_weights_file)["G.layers.1.running_var"]
    path = rewrite(small_weights_file, tmp_path / "w.safetensors", {"G.layers.1.running_var": -first})
    G = Weights.open(path, "cpu").generator
    with pytest.raises(OutputError, match="gave NaN or infinity"):
        generate(G, torch.randn(2, G.config.nz))


def test_the_newest_readable_checkpoint_loads(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    for images in (1, 2, 3):
        save_checkpoint(tmp_path, images, {"step": images, "weight": torch.full((100,), images)})
    newest = tmp_path / "checkpoint-0000000003.pt"
    assert files(tmp_path) == ["checkpoint-0000000002.pt", newest.name]
    whole = newest.read_bytes()
    for length in range(0, len(whole), 97):
        newest.write_bytes(whole[:length])
        saved = load_checkpoint(tmp_path)
        assert saved is not None
        assert saved["step"] == 2


def test_a_flipped_bit_in_a_checkpoint_is_noticed_or_without_effect(tmp_path: Path) -> None:
    state = {"weight": torch.arange(100.0)}
    save_checkpoint(tmp_path, 1, {"step": 1})
    newest = save_checkpoint(tmp_path, 2, state)
    whole = newest.read_bytes()
    tensor = whole.index(state["weight"].numpy().tobytes())
    for at in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        newest.write_bytes(damaged)
        loaded = load_checkpoint(tmp_path)
        assert loaded is not None
        if "weight" in loaded:  # a zip file has bytes that nobody reads, such as times and padding
            assert torch.equal(loaded["weight"], state["weight"]) and not tensor <= at < tensor + 400


def test_a_broken_checkpoint_is_named_and_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for images in (1, 2):
        save_checkpoint(tmp_path, images, {"step": images})
    (tmp_path / "checkpoint-0000000002.pt").write_bytes(b"broken")
    for _ in range(2):
        assert load_checkpoint(tmp_path) == {"step": 1}
    [line] = caplog.messages
    assert "renamed to checkpoint-0000000002.pt.broken, using checkpoint-0000000001.pt" in line
    save_checkpoint(tmp_path, 3, {"step": 3})
    names = [f"checkpoint-000000000{name}" for name in ("1.pt", "2.pt.broken", "3.pt")]
    assert files(tmp_path) == names
    assert (tmp_path / names[1]).read_bytes() == b"broken"
    (tmp_path / "checkpoint-0000000002.pt").write_bytes(b"broken again")
    (tmp_path / names[2]).unlink()
    assert load_checkpoint(tmp_path) == {"step": 1}
    assert (tmp_path / names[1]).read_bytes() == b"broken" and (tmp_path / f"{names[1]}2").exists()


def test_own_copies_and_changed_checkpoints_are_never_deleted_or_resumed_from(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"step": 1})
    first = tmp_path / "checkpoint-0000000001.pt"
    mine = ["checkpoint-best.pt", "checkpoint-old.pt", "checkpoint-1.pt", "checkpoint-9999999999.pt"]
    for name in mine:
        shutil.copy(first, tmp_path / name)
    (tmp_path / "checkpoint-0000000005.pt").symlink_to(tmp_path / "checkpoint-best.pt")
    for images in (2, 3, 4):
        assert load_checkpoint(tmp_path) == {"step": images - 1}
        save_checkpoint(tmp_path, images, {"step": images})
    expected = ["checkpoint-0000000003.pt", "checkpoint-0000000004.pt", "checkpoint-0000000005.pt", *mine]
    assert files(tmp_path) == sorted(expected)
    shutil.copy(tmp_path / "checkpoint-0000000004.pt", tmp_path / "checkpoint-0000000003.pt")  # changed
    save_checkpoint(tmp_path, 6, {"step": 6})
    assert "checkpoint-0000000003.pt" in files(tmp_path)


def test_checkpoints_keep_their_names_if_all_are_broken(tmp_path: Path) -> None:
    for images in (1, 2):
        (tmp_path / f"checkpoint-{images:010d}.pt").write_bytes(b"broken")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="no checkpoint in .* is usable"):
            load_checkpoint(tmp_path)


def test_a_checkpoint_that_is_no_file_or_no_dictionary_is_set_aside(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"step": 1})
    torch.save([], tmp_path / "checkpoint-0000000002.pt")
    os.mkfifo(tmp_path / "checkpoint-0000000003.pt")
    (tmp_path / "checkpoint-0000000004.pt").mkdir()
    assert load_checkpoint(tmp_path) == {"step": 1}
    assert len(list(tmp_path.glob("*.broken"))) == 3


def test_embedded_weights_match_the_registry() -> None:
    for name, entry in registry.REGISTRY.items():
        loaded = Weights.open(name, "cpu")
        assert loaded.size == loaded.generator.config.size == entry.size
        assert loaded.template == entry.template
        assert loaded.onnx_path() == registry.FOLDER / f"{name}.onnx"
        assert entry.licence in (registry.FOLDER / "README.md").read_text()
    for name in registry.SHA256:
        assert bundled_file(name).stat().st_size < 32_000_000


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
def test_changed_absent_and_unknown_embedded_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(registry, "FOLDER", tmp_path)
    with pytest.raises(WeightsError, match="cannot be read.*reinstall dcgan-completion"):
        bundled_file(f"faces-64{suffix}")
    (tmp_path / f"faces-64{suffix}").write_bytes(b"other")
    with pytest.raises(WeightsError, match="sha256"):
        bundled_file(f"faces-64{suffix}")
    with pytest.raises(WeightsError, match="reinstall dcgan-completion|not a readable safetensors file"):
        Weights.open(registry.DEFAULT, "cpu")
    for name, words in (
        ("dogs", "there are no weights 'dogs'"),
        ("dogs.safetensors", "dogs.safetensors is not a file"),
    ):
        with pytest.raises(WeightsError, match=words):
            Weights.open(name, "cpu")


def test_changed_bundled_weights_are_refused_when_networks_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_weights_file: Path
) -> None:
    monkeypatch.setattr(registry, "FOLDER", tmp_path)
    (tmp_path / "faces-64.safetensors").write_bytes(small_weights_file.read_bytes())
    weights = Weights.open("faces-64", "cpu")
    assert weights.size == 32
    with pytest.raises(WeightsError, match="sha256"):
        assert weights.generator


def test_a_graph_beside_the_weights_is_found(tmp_path: Path, small_weights_file: Path, small_weights: Weights) -> None:
    path = Path(shutil.copy(small_weights_file, tmp_path / "mine.safetensors"))
    assert Weights.open(path).onnx_path() is None
    path.with_suffix(".onnx").write_bytes(sealed(b"graph"))
    assert Weights.open(str(path)).onnx_path() == path.with_suffix(".onnx")
    inner = Weights.of(small_weights.generator, small_weights.discriminator)
    assert inner.onnx_path() is None and inner.device == "cpu" and not inner.has_encoder and inner.sha256 == ""


def test_devices_are_checked(small_weights_file: Path) -> None:
    with pytest.raises(DeviceError, match="tpu"):
        Weights.open(small_weights_file, "tpu")
    with pytest.raises(DeviceError, match="cuda:99 is absent"):
        assert Weights.open(small_weights_file, "cuda:99").generator
