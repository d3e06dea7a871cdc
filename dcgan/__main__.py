"""python -m dcgan: train, encode, sample, export, evaluate, explore."""

from __future__ import annotations

import argparse
import re
import signal
import sys
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from align.cli import add_flags, at_least, parse, refuse_existing, run_main, say, show_progress
from dcgan.config import PRESETS, EncoderConfig, EvaluateOptions, NetworkConfig, TrainConfig
from dcgan.explore.registry import add_explore
from weights import REGISTRY, VERSION

if TYPE_CHECKING:
    from collections.abc import Generator

    from dcgan.parallel import Group
    from dcgan.run import TrainingStep

_EXAMPLE = """example:
  python -m align raw/ aligned/
  python -m dcgan train aligned/ --out runs/faces
  python -m dcgan export runs/faces faces.safetensors
  python -m dcgan sample --weights faces.safetensors --out samples/"""


def build_parser() -> argparse.ArgumentParser:
    """The command line; the flags of `train` come from the fields of its config."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m dcgan", description="Train a DCGAN on aligned faces.", epilog=_EXAMPLE, formatter_class=formatter
    )
    parser.add_argument("--version", action="version", version=f"dcgan-completion {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_encode(commands)
    _add_sample(commands)
    _add_export(commands)
    _add_evaluate(commands)
    add_explore(commands)
    _add_benchmark_train(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done, 1 failed, 2 wrong usage or unusable input, 130 or 143 after SIGINT or SIGTERM.
    """
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse(build_parser(), argv, at=2 if argv[:1] == ["explore"] else 1)
    hint = "lower --batch, or take --device cpu; what was saved is kept"
    return run_main("dcgan", lambda: arguments.handler(arguments), out_of_memory=hint)


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train on a folder of aligned faces; the same command again carries on where it was stopped",
        description="Train on a folder of aligned faces; the same command again carries on where it was stopped.",
        epilog="example: python -m dcgan train aligned/ --out runs/faces",
    )
    parser.add_argument("faces", type=Path, help="folder of crops, as python -m align writes it")
    parser.add_argument("--out", type=Path, required=True, help="run folder: settings, curves, grids, checkpoints")
    parser.add_argument("--val", type=Path, help="folder of aligned faces of others, to see whether D learns by heart")
    parser.add_argument(
        "--dedupe", type=Path, metavar="LIST", help="leave these files out: duplicates.txt of explore duplicates"
    )
    parser.add_argument("--preset", choices=list(PRESETS), default="default", help="settings to start from (default)")
    for config in (NetworkConfig, TrainConfig):
        _add_config(parser, config)
    add_flags(parser, "--config", "--device")
    parser.set_defaults(handler=_train)


def _train(arguments: argparse.Namespace) -> int:
    from dcgan import parallel
    from dcgan.checkpoint import pick_device
    from dcgan.dataset import load_faces, read_list
    from dcgan.train import train

    config = _train_config(arguments)
    group, device_name = parallel.join(arguments.device)
    tell = say if group.rank == 0 else _hush
    device = pick_device(device_name)
    leave_out = read_list(arguments.dedupe) if arguments.dedupe else ()
    faces = load_faces(arguments.faces, config.network.size, tell, leave_out)
    val = load_faces(arguments.val, config.network.size, tell) if arguments.val else None
    processes = f", {group.size} processes" if group.size > 1 else ""
    tell(f"{len(faces)} faces; training to {config.kimg:g} kimg on {device}{processes}, run folder {arguments.out}")
    return _follow(train(config, faces, arguments.out, device, val, group), config.kimg, arguments.out, group)


def _add_encode(commands: Any) -> None:
    parser = commands.add_parser(
        "encode",
        help="train the encoder of a weights file, which guesses z; the same command again carries on",
        description="Train, for the G and D of a weights file, an encoder that guesses z from what is known of a face. "
        "The same command again carries on where it was stopped; export adds the encoder to the weights.",
        epilog="example: python -m dcgan encode faces-64 aligned/ --out runs/encoder",
    )
    parser.add_argument("weights", metavar="WEIGHTS", help=f"file or name: {', '.join(REGISTRY)}")
    parser.add_argument("faces", type=Path, help="folder of crops, as python -m align writes it")
    parser.add_argument("--out", type=Path, required=True, help="run folder: settings, curves, grids, checkpoints")
    parser.add_argument("--val", type=Path, help="folder of aligned faces of others, for the grids and the PSNR")
    _add_config(parser, EncoderConfig)
    add_flags(parser, "--config", "--device")
    parser.set_defaults(handler=_encode)


def _encode(arguments: argparse.Namespace) -> int:
    from completion.encoder import train_encoder
    from dcgan.checkpoint import load, pick_device
    from dcgan.dataset import load_faces
    from dcgan.grow import grow
    from dcgan.parallel import Group

    config = EncoderConfig(**_given(arguments, EncoderConfig))
    device = pick_device(arguments.device)
    trained = load(arguments.weights, device)
    if config.start:
        start = load(config.start, device)
        trained = replace(trained, encoder=grow(start, trained.generator.config.size).encoder)
    size = config.size or trained.generator.config.size
    trained = grow(trained, size)
    if arguments.nef is None and trained.encoder is not None:
        config = replace(config, nef=trained.encoder.settings["nef"])
    faces = load_faces(arguments.faces, size, say)
    val = load_faces(arguments.val, size, say) if arguments.val else None
    say(f"{len(faces)} faces; training E to {config.kimg:g} kimg on {device}, run folder {arguments.out}")
    run = train_encoder(config, trained, faces, arguments.out, device, val)
    return _follow(run, config.kimg, arguments.out, Group())


def _follow(run: Generator[TrainingStep], kimg: float, out: Path, group: Group) -> int:
    """Show the progress of a training run; the first signal ends it between two steps.

    Returns:
        The exit code.
    """
    from tqdm import tqdm

    tell = say if group.rank == 0 else _hush
    stop = _StopSignal()
    begin = next(run).images
    if begin:
        tell(f"carrying on at {begin / 1000:g} kimg")
    total = round(kimg * 1000)
    with tqdm(total=total, initial=begin, unit="img", unit_scale=True, disable=group.rank > 0 or None) as bar:
        for progress in run:
            bar.update(progress.images - bar.n)
            if progress.stats:
                bar.clear()
                tell("  ".join(f"{name} {value:.4g}" for name, value in progress.stats.items()))
            if group.mean(stop.number):  # a signal to any process stops all of them at the same step
                run.close()
                tell(f"stopped and saved at {progress.images / 1000:.1f} kimg; the same command carries on")
                return 128 + (stop.number or signal.SIGTERM)
    group.close()
    if group.rank == 0:
        print(out)
    return 0


def _add_sample(commands: Any) -> None:
    parser = commands.add_parser(
        "sample",
        help="generate faces: a grid and single files",
        description="Generate faces: a grid and single files.",
        epilog="example: python -m dcgan sample --count 64 --out samples/",
    )
    add_flags(parser, "--weights")
    parser.add_argument("--out", type=Path, required=True, help="folder for grid.png, 0000.png, 0001.png ...")
    parser.add_argument("--count", type=at_least(1), default=64, help="number of faces (64)")
    parser.add_argument("--seed", type=int, default=0, help="of z (0)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    add_flags(parser, "--config", "--device")
    parser.set_defaults(handler=_sample)


def _sample(arguments: argparse.Namespace) -> int:
    import torch
    from torchvision.utils import make_grid

    from align.photo import write_photo
    from dcgan.checkpoint import load
    from dcgan.sampling import generate, sample_z
    from dcgan.tensors import to_image, to_tensor

    G = load(arguments.weights, arguments.device).generator
    names = ["grid.png", *(f"{index:04d}.png" for index in range(arguments.count))]
    refuse_existing([arguments.out / name for name in names], arguments.overwrite)
    faces = generate(G, sample_z(arguments.count, G.config, torch.Generator().manual_seed(arguments.seed)))
    grid = make_grid(to_tensor(faces), nrow=round(arguments.count**0.5) or 1, padding=0)[None]
    for name, picture in zip(names, [*to_image(grid), *faces], strict=True):
        write_photo(arguments.out / name, picture)
    print(arguments.out / "grid.png")
    return 0


def _add_export(commands: Any) -> None:
    parser = commands.add_parser(
        "export",
        help="write the weights of a run for completion",
        description="Write G's average and D of a run's newest checkpoint, or the weights that an encoder was trained "
        "for together with it, and a picture of the run's curves beside them.",
        epilog="example: python -m dcgan export runs/faces weights/faces-64.safetensors",
    )
    parser.add_argument("run", type=Path, help="run folder of python -m dcgan train or encode")
    parser.add_argument("file", type=Path, help="weights file to write, .safetensors")
    parser.add_argument("--template", default="face", help="alignment template of the faces of train (face)")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    parser.set_defaults(handler=_export)


def _export(arguments: argparse.Namespace) -> int:
    from completion.encoder import export_encoder
    from dcgan.checkpoint import load_checkpoint
    from dcgan.export import export_run, plot_losses

    picture = arguments.run / "losses.png"
    refuse_existing([arguments.file], arguments.overwrite)
    if "E" in (load_checkpoint(arguments.run) or {}):
        facts = export_encoder(arguments.run, arguments.file)
    else:
        facts = export_run(arguments.run, arguments.file, arguments.template)
    plot_losses(arguments.run, picture)
    say(f"{facts['images'] / 1000:.1f} kimg in {facts['seconds'] / 60:.0f} minutes on {facts['machine']}")
    print(arguments.file, picture, sep="\n")
    return 0


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure the generator of a weights file against faces that it has not seen",
        description="Measure a generator: distances of descriptors and of patches, precision and recall, variety, "
        "reconstruction, memorising; each beside its floor, the same measure of real faces. Writes evaluation.json, "
        "evaluation.md and pictures.",
        epilog="example: python -m dcgan evaluate faces-64 aligned_val/ --train aligned_train/ --out evaluation/",
    )
    parser.add_argument("weights", metavar="WEIGHTS", help=f"file or name: {', '.join(REGISTRY)}")
    parser.add_argument("faces", type=Path, help="folder of aligned faces that the generator has not seen")
    parser.add_argument("--train", type=Path, help="folder of the faces that it was trained on")
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="folder for the report (%(default)s)")
    _add_config(parser, EvaluateOptions)
    parser.add_argument("--fid-weights", type=Path, metavar="FILE", help="Inception weights; measures FID, too")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    add_flags(parser, "--config", "--device")
    parser.set_defaults(handler=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    from dcgan.checkpoint import load
    from dcgan.dataset import load_faces
    from dcgan.evaluate import evaluate
    from dcgan.report import FILES, table, write_report
    from dcgan.sampling import Progress

    options = EvaluateOptions(**_given(arguments, EvaluateOptions), fid_weights=arguments.fid_weights)
    trained = load(arguments.weights, arguments.device)
    refuse_existing([arguments.out / name for name in FILES], arguments.overwrite)
    size = trained.generator.config.size
    validation = load_faces(arguments.faces, size, say)
    training = load_faces(arguments.train, size, say) if arguments.train else None
    *_, evaluation = show_progress(evaluate(trained, validation, training, options), Progress)
    facts = {"name": Path(arguments.weights).name, "sha256": trained.sha256, "images": trained.facts.get("images")}
    write_report(arguments.out, evaluation, facts)
    say(table(evaluation))
    print(*(arguments.out / name for name in FILES[:2]), sep="\n")
    return 0


def _add_benchmark_train(commands: Any) -> None:
    parser = commands.add_parser(
        "benchmark-train",
        help="time the training step against a plain fp32 loop and the machine's matrix product",
        description="Time the training step against a plain fp32 loop of the same networks and batch, in one run.",
        epilog="example: python -m dcgan benchmark-train --seconds 30 --report benchmark.json",
    )
    parser.add_argument("--seconds", type=float, default=20, help="time for each line of the table (20)")
    parser.add_argument("--report", type=Path, metavar="FILE.json", help="write the table as JSON, too")
    parser.add_argument("--preset", choices=list(PRESETS), default="default", help="settings to start from (default)")
    for config in (NetworkConfig, TrainConfig):
        _add_config(parser, config)
    add_flags(parser, "--config", "--device")
    parser.set_defaults(handler=_benchmark_train)


def _benchmark_train(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from align.files import write_json
    from dcgan.benchmark import benchmark_train
    from dcgan.checkpoint import pick_device
    from dcgan.run import machine

    config, device = _train_config(arguments), pick_device(arguments.device)
    say(f"{machine(device)}, batch {config.batch}")
    print(f"{'':20}{'img/s':>9}{'ratio':>8}{'GFLOP/img':>11}{'TFLOP/s':>9}{'of matmul':>11}")
    rows = []
    for row in benchmark_train(config, device, arguments.seconds):
        rate = row.images_per_second * row.flops_per_image
        print(
            f"{row.name:20}{row.images_per_second:9.1f}{row.ratio:8.2f}{row.flops_per_image / 1e9:11.2f}"
            f"{rate / 1e12:9.3f}{row.share:11.0%}"
        )
        rows.append(asdict(row))
    if arguments.report:
        write_json(arguments.report, {"machine": machine(device), "config": asdict(config), "rows": rows})
    return 0


def _train_config(arguments: argparse.Namespace) -> TrainConfig:
    """The preset, the networks of the weights to start from, and the flags that were given, which win."""
    preset = PRESETS[arguments.preset]
    network = preset.network
    if arguments.start:  # weights bring their networks along, and grow where they are too small
        from dcgan.checkpoint import load
        from dcgan.grow import grown_config

        network = load(arguments.start, "cpu").generator.config
        if arguments.size is not None and arguments.size > network.size:
            network = grown_config(network, arguments.size)
    network = replace(network, **_given(arguments, NetworkConfig))
    return replace(preset, network=network, **_given(arguments, TrainConfig))


class _StopSignal:
    """Remembers the first SIGINT or SIGTERM, so that training ends between two steps; a second one aborts."""

    def __init__(self) -> None:
        self.number = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        self.number = number
        for again in (signal.SIGINT, signal.SIGTERM):
            signal.signal(again, signal.SIG_DFL)


def _add_config(parser: argparse.ArgumentParser, config: type) -> None:
    """One flag per field, explained by the field's line in the class's docstring."""
    texts = dict(re.findall(r"^ {8}(\w+): (.+?)$", config.__doc__ or "", re.MULTILINE))
    for item, kind in _settings(config):
        text = f"{texts[item.name]} ({item.default})"
        if kind is bool:
            parser.add_argument(_flag(item.name), action=argparse.BooleanOptionalAction, help=text)
        else:
            parser.add_argument(_flag(item.name), type=kind, help=text)


def _given(arguments: argparse.Namespace, config: type) -> dict[str, Any]:
    """The fields whose flag was given."""
    values = {item.name: getattr(arguments, item.name, None) for item, _ in _settings(config)}
    return {name: value for name, value in values.items() if value is not None}


def _settings(config: type) -> list[tuple[Field[Any], type]]:
    """The fields that one flag can set, and their types; those of a Literal are its values'."""
    kinds = [
        (item, type(get_args(item.type)[0]) if get_origin(item.type) is Literal else item.type)
        for item in fields(config)
    ]
    return [(item, kind) for item, kind in kinds if kind in (int, float, str, bool)]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _hush(text: str) -> None:
    """For the processes beside the first."""


if __name__ == "__main__":
    sys.exit(main())
