"""The command line of python -m dcgan: training, weights, samples, evaluation, experiments, benchmark."""

from __future__ import annotations

import argparse
import inspect
import re
import signal
import sys
import time
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from align.cli import (
    Parser,
    StopSignal,
    add_flags,
    at_least,
    integer,
    number,
    parse,
    refuse_existing,
    run_main,
    run_program,
    say,
    show_progress,
    silence,
    weights_name,
)
from align.settings import SEEDS, plain_type
from align.template import TEMPLATES
from dcgan.config import PRESETS, EncoderConfig, EvaluateOptions, LocatorConfig, NetworkConfig, TrainConfig
from dcgan.explore.registry import add_explore
from weights import REGISTRY, VERSION

if TYPE_CHECKING:
    from collections.abc import Collection, Generator

    from dcgan.parallel import Group
    from dcgan.run import TrainingStep

_EXAMPLE = """example:
  python -m align raw/ aligned/
  %(prog)s train aligned/ --output runs/faces
  %(prog)s export runs/faces faces.safetensors
  %(prog)s sample --weights faces.safetensors --output samples/"""


def build_parser(program: str = "python -m dcgan") -> Parser:
    """Build the parser; flags of settings come from the fields and docstrings of dcgan.config."""
    parser = Parser(
        program, description="Train a DCGAN on aligned faces, and sample, measure and explore it.", epilog=_EXAMPLE
    )
    parser.add_argument("--version", action="version", version=f"dcgan-completion {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    training = (_add_pack, _add_train, _add_encode, _add_locator, _add_train_all)
    results = (_add_sample, _add_export, _add_evaluate, add_explore)
    for add in (*training, *results, _add_benchmark_train):
        add(commands)
    return parser


def main(argv: list[str] | None = None, program: str = "python -m dcgan") -> int:
    """Run one command.

    Returns:
        The exit code: 0 success, 1 failure, 2 wrong usage or unusable input, 128 + N after signal N.
    """
    words = sys.argv[1:] if argv is None else argv

    def work() -> int:  # parsing an experiment's options imports torch, which may be missing
        arguments = parse(build_parser(program), words)
        with silence(getattr(arguments, "quiet", False)):
            code: int = arguments.handler(arguments)
            return code

    advice = "lower --batch or use --device cpu; saved checkpoints are kept"
    return run_main("dcgan", work, out_of_memory=advice)


def _add_command(commands: Any, name: str, handler: Any, text: str, example: str) -> Parser:
    """Add a sub-command; the first sentence of its description is its help."""
    first = text.split(". ")[0].rstrip(".")
    parser: Parser = commands.add_parser(
        name, help=first[0].lower() + first[1:], description=text, epilog=f"example: %(prog)s {example}"
    )
    parser.set_defaults(handler=handler)
    return parser


def _add_pack(commands: Any) -> None:
    parser = _add_command(
        commands,
        "pack",
        _pack,
        "Write a folder of aligned faces to one file. Training, evaluate and the benchmark of completion take the file "
        "in place of the folder, and read it in a moment.",
        "aligned/ faces.npy",
    )
    parser.add_argument("faces", type=Path, help="folder of crops written by python -m align")
    parser.add_argument("file", type=Path, help="file to write, .npy")
    parser.add_argument(
        "--size", type=at_least(1), default=NetworkConfig.size, help="side of the crops in pixels", metavar="PX"
    )
    _add_dedupe(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_flags(parser, "--config", "--quiet")


def _pack(arguments: argparse.Namespace) -> int:
    from dcgan.dataset import DatasetError, load_faces, pack_faces, read_list

    if arguments.file.suffix != ".npy":
        raise DatasetError(f"the file to write is {arguments.file}; expected .npy")
    refuse_existing([arguments.file], arguments.overwrite)
    leave_out = read_list(arguments.dedupe) if arguments.dedupe else ()
    faces = load_faces(arguments.faces, int(arguments.size), say, leave_out)
    pack_faces(faces, arguments.file)
    say(f"{len(faces)} faces, {faces.nbytes / 1e6:.0f} MB")
    print(arguments.file)
    return 0


def _add_dedupe(parser: Parser) -> None:
    parser.add_argument(
        "--dedupe",
        type=Path,
        metavar="LIST",
        help="list of files to leave out, such as duplicates.txt of explore duplicates",
    )


def _add_train(commands: Any) -> None:
    parser = _add_command(
        commands,
        "train",
        _train,
        "Train G and D on a folder of aligned faces. Run the same command again to resume.",
        "aligned/ --output runs/faces\n"
        "two GPUs: torchrun --nproc-per-node=2 -m -- dcgan train aligned/ --output runs/faces",
    )
    _add_faces(parser, "measure how far D overfits")
    _add_dedupe(parser)
    _add_train_config(parser)
    _add_volume(parser)


def _train(arguments: argparse.Namespace) -> int:
    config = _train_config(arguments)  # wrong settings are reported before torch is imported

    from dcgan import parallel
    from dcgan.dataset import load_faces, read_list
    from dcgan.device import pick_device
    from dcgan.train import train

    group, device_name = parallel.join(arguments.device)
    report = say if group.rank == 0 else _ignore
    device = pick_device(device_name)
    leave_out = read_list(arguments.dedupe) if arguments.dedupe else ()
    faces = load_faces(arguments.faces, config.network.size, report, leave_out)
    val = load_faces(arguments.val, config.network.size, report) if arguments.val else None
    processes = f", {group.size} processes" if group.size > 1 else ""
    report(
        f"{len(faces)} faces; training to {config.kimg:g} kimg on {device}{processes}, run folder {arguments.output}"
    )
    run = train(config, faces, arguments.output, device, val, group)
    return _follow(run, config.kimg, arguments.output, group, arguments.verbose)


def _add_encode(commands: Any) -> None:
    parser = _add_command(
        commands,
        "encode",
        _encode,
        "Train an encoder, which maps visible pixels to a latent z, for the G and D of some weights. Run the same "
        "command again to resume; python -m dcgan export then writes the weights with the encoder.",
        "faces-64 aligned/ --output runs/encoder",
    )
    _add_weights(parser)
    _add_faces(parser, "draw grids and measure the PSNR inside holes")
    _add_config(parser, EncoderConfig)
    add_flags(parser, "--device", "--config")
    _add_volume(parser)


def _encode(arguments: argparse.Namespace) -> int:
    config = EncoderConfig(**_given(arguments, EncoderConfig))

    from dcgan.dataset import load_faces
    from dcgan.device import pick_device
    from dcgan.encoder import train_encoder
    from dcgan.grow import grow
    from dcgan.parallel import Group
    from dcgan.weights import Weights

    device = pick_device(arguments.device)
    trained = Weights.open(arguments.weights, arguments.device)
    if config.start:
        start = Weights.open(config.start, arguments.device)
        encoder = grow(start, trained.size).encoder
        trained = Weights.of(
            trained.generator, trained.discriminator, trained.template, trained.metadata, encoder, trained.sha256
        )
    size = config.size or trained.generator.config.size
    trained = grow(trained, size)
    if arguments.nef is None and trained.encoder is not None:
        config = replace(config, nef=trained.encoder.settings["nef"])
    faces = load_faces(arguments.faces, size, say)
    val = load_faces(arguments.val, size, say) if arguments.val else None
    say(f"{len(faces)} faces; training E to {config.kimg:g} kimg on {device}, run folder {arguments.output}")
    run = train_encoder(config, trained, faces, arguments.output, device, val)
    return _follow(run, config.kimg, arguments.output, Group(), arguments.verbose)


def _add_locator(commands: Any) -> None:
    parser = _add_command(
        commands,
        "locator",
        _locator,
        "Train the locator, which finds the eyes of partly hidden faces. Run the same command again to resume; python "
        "-m dcgan export then writes it as an .onnx file.",
        "photos/ aligned/faces.jsonl --output runs/locator",
    )
    parser.add_argument("photos", type=Path, help="folder of photos with faces")
    parser.add_argument("landmarks", type=Path, help="faces.jsonl, written by python -m align for these photos")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="run folder for settings, logs, grids and checkpoints"
    )
    _add_config(parser, LocatorConfig)
    add_flags(parser, "--device", "--config")
    _add_volume(parser)


def _locator(arguments: argparse.Namespace) -> int:
    config = LocatorConfig(**_given(arguments, LocatorConfig))

    from dcgan.device import pick_device
    from dcgan.locator import load_wide_faces, train_locator
    from dcgan.parallel import Group

    device = pick_device(arguments.device)
    faces = load_wide_faces(arguments.photos, arguments.landmarks, say)
    say(f"{len(faces)} faces; training the locator to {config.kimg:g} kimg on {device}, run folder {arguments.output}")
    run = train_locator(config, faces, arguments.output, device)
    return _follow(run, config.kimg, arguments.output, Group(), arguments.verbose)


def _add_train_all(commands: Any) -> None:
    parser = _add_command(
        commands,
        "train-all",
        _train_all,
        "Train everything within a given time: G and D at 64 px, grown to the size of the faces, then the encoder. "
        "Writes the weights with the encoder as faces.safetensors and faces.onnx. Run the same command again to "
        "resume, with the hours that are left.",
        "faces.npy --hours 2 --output runs/all",
    )
    _add_faces(parser, "measure D's overfitting and the PSNR inside holes")
    parser.add_argument("--hours", type=at_least(0.0), required=True, help="wall-clock time for everything")
    parser.add_argument("--size", type=int, choices=(64, 128, 256), default=128, help="side of the faces in pixels")
    parser.add_argument("--template", choices=TEMPLATES, default="face", help="alignment template of the faces")
    _add_config(parser, TrainConfig, only=("batch", "precision", "seed"))
    add_flags(parser, "--device", "--config")
    _add_volume(parser)


def _train_all(arguments: argparse.Namespace) -> int:
    given = _given(arguments, TrainConfig)

    from dcgan.dataset import load_faces
    from dcgan.device import pick_device
    from dcgan.train_all import train_all

    device = pick_device(arguments.device)
    if device.type == "cuda":  # every log line makes a GPU wait
        given |= {"tick_kimg": 100, "sample_kimg": 500}
    faces = load_faces(arguments.faces, arguments.size, say)
    val = load_faces(arguments.val, arguments.size, say) if arguments.val else None
    say(f"{len(faces)} faces; training for {arguments.hours:g} hours on {device}, folder {arguments.output}")
    configs = TrainConfig(**given), EncoderConfig(**given)
    seconds, output = 3600 * arguments.hours, arguments.output
    run = train_all(*configs, faces, output, seconds, device, arguments.template, val)
    stop, end = StopSignal(keep_first=True), time.monotonic() + seconds
    for name, step in run:
        if step.stats:
            say(f"{name}: {step.images / 1000:g} kimg, {max(0, end - time.monotonic()) / 60:.0f} minutes left for all")
            if arguments.verbose:
                say("  ".join(f"{key} {value:.4g}" for key, value in step.stats.items()))
        if stop.number:
            run.close()
            say(f"stopped and saved {name} at {step.images / 1000:.1f} kimg; run the same command again to resume")
            return 128 + stop.number
    print(output / "faces.safetensors", output / "faces.onnx", sep="\n")
    return 0


def _follow(run: Generator[TrainingStep], kimg: float, out: Path, group: Group, verbose: bool) -> int:
    """Show the progress of a training run; a signal saves and stops it, see `StopSignal`.

    Returns:
        The exit code.
    """
    from tqdm import tqdm

    report = say if group.rank == 0 else _ignore
    stop = StopSignal(keep_first=True)
    begin = next(run).images
    total = round(kimg * 1000)
    if begin >= total:
        report(f"the run has reached {begin / 1000:g} kimg; a larger --kimg continues it")
    elif begin:
        report(f"resuming at {begin / 1000:g} kimg")
    began = time.monotonic()
    with tqdm(total=total, initial=begin, unit="img", unit_scale=True, disable=group.rank > 0 or None) as bar:
        for step in run:
            bar.update(step.images - bar.n)
            if step.stats:
                bar.clear()
                report(_progress(step, begin, total, time.monotonic() - began))
                if verbose:
                    report("  ".join(f"{name} {value:.4g}" for name, value in step.stats.items()))
            # A signal to any process stops all of them at the same step. They ask each other when they log, as every
            # message makes them wait for their GPUs.
            if (group.size == 1 or step.stats) and group.mean(stop.number):
                run.close()
                group.close()
                report(f"stopped and saved at {step.images / 1000:.1f} kimg; run the same command again to resume")
                return 128 + (stop.number or signal.SIGTERM)
    group.close()
    if group.rank == 0:
        print(out)
    return 0


def _progress(step: TrainingStep, begin: int, total: int, seconds: float) -> str:
    """Describe the progress since `begin` images, after so many seconds."""
    left = (total - step.images) * seconds / (step.images - begin)
    return f"kimg {step.images / 1000:g} of {total / 1000:g}, {seconds / 60:.1f} min; about {left / 60:.0f} min left"


def _add_sample(commands: Any) -> None:
    parser = _add_command(
        commands,
        "sample",
        _sample,
        "Generate faces. Writes a grid and one file per face.",
        "--count 64 --output samples/",
    )
    add_flags(parser, "--weights")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for grid.png, 0000.png, 0001.png ...")
    parser.add_argument("--count", type=at_least(1), default=64, help="number of faces")
    parser.add_argument("--seed", type=at_least(0, SEEDS.high), default=0, help="seed of z")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_flags(parser, "--device", "--config", "--quiet")


def _sample(arguments: argparse.Namespace) -> int:
    import torch
    from torchvision.utils import make_grid

    from align.photo import write_photo
    from dcgan.sampling import generate, sample_z
    from dcgan.tensors import to_image, to_tensor
    from dcgan.weights import Weights

    G = Weights.open(arguments.weights, arguments.device).generator
    names = ["grid.png", *(f"{index:04d}.png" for index in range(arguments.count))]
    refuse_existing([arguments.output / name for name in names], arguments.overwrite)
    faces = generate(G, sample_z(arguments.count, G.config, torch.Generator().manual_seed(arguments.seed)))
    grid = make_grid(to_tensor(faces), nrow=round(arguments.count**0.5) or 1, padding=0)[None]
    for name, picture in zip(names, [*to_image(grid), *faces], strict=True):
        write_photo(arguments.output / name, picture)
    print(arguments.output / "grid.png")
    return 0


def _add_export(commands: Any) -> None:
    parser = _add_command(
        commands,
        "export",
        _export,
        "Write the weights of a run's newest checkpoint to one file. For a run of train these are D and the moving "
        "average of G; for a run of encode, the weights that the encoder was trained for, with the encoder, and beside "
        "them an .onnx file of the same name, with which completion needs no torch. The locator is written as an .onnx "
        "file only. Also plots the training curves to losses.png in the run folder. Given weights instead of a run, "
        "writes only their .onnx file.",
        "runs/faces faces.safetensors",
    )
    parser.add_argument("run", type=Path, help="run folder of python -m dcgan train, encode or locator, or weights")
    parser.add_argument(
        "file", type=Path, help="file to write: .safetensors for a run, .onnx for weights and for a run of locator"
    )
    parser.add_argument(
        "--template", choices=TEMPLATES, default="face", help="alignment template of the training faces"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_flags(parser, "--config", "--quiet")


def _export(arguments: argparse.Namespace) -> int:
    from dcgan.checkpoint import load_checkpoint
    from dcgan.encoder import export_encoder
    from dcgan.export import export_onnx, export_run, plot_losses
    from dcgan.locator import export_locator
    from dcgan.weights import Weights, WeightsError

    run, file, graph = arguments.run, arguments.file, arguments.file.with_suffix(".onnx")
    if run.is_file() or str(run) in REGISTRY:
        if file != graph:
            raise WeightsError(f"the file to write is {file}; expected .onnx for weights, or give a run folder")
        refuse_existing([graph], arguments.overwrite)
        export_onnx(Weights.open(str(run), "cpu"), graph)
        print(graph)
        return 0
    parts = load_checkpoint(run) or {}
    expected = ".onnx for a run of locator" if "L" in parts else ".safetensors for a run, or give weights"
    if file.suffix != expected.split()[0]:
        raise WeightsError(f"the file to write is {file}; expected {expected}")
    refuse_existing([file, graph], arguments.overwrite)
    if "L" in parts:
        facts = export_locator(run, file)
        written = [file]
    elif "E" in parts:
        facts = export_encoder(run, file)
        export_onnx(Weights.open(str(file), "cpu"), graph)
        written = [file, graph]
    else:
        facts = export_run(run, file, arguments.template)
        written = [file]
    plot_losses(run, run / "losses.png")
    say(f"{facts['images'] / 1000:.1f} kimg in {facts['seconds'] / 60:.0f} minutes on {facts['machine']}")
    print(*written, run / "losses.png", sep="\n")
    return 0


def _add_evaluate(commands: Any) -> None:
    parser = _add_command(
        commands,
        "evaluate",
        _evaluate,
        "Measure a generator on faces that it was not trained on. Reports the distances of face embeddings and of "
        "patches, precision and recall, variety, reconstruction and memorisation, each with its real-vs-real baseline. "
        "Writes evaluation.json, evaluation.md and pictures.",
        "faces-64 aligned_val/ --train aligned_train/ --output evaluation/",
    )
    _add_weights(parser)
    parser.add_argument("faces", type=Path, help="folder of aligned validation faces")
    parser.add_argument("--train", type=Path, help="folder of the training faces, to measure memorisation")
    parser.add_argument("-o", "--output", type=Path, default=Path("evaluation"), help="folder for the report")
    _add_config(parser, EvaluateOptions)
    parser.add_argument("--fid-weights", type=Path, metavar="FILE", help="Inception weights file for FID")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_flags(parser, "--device", "--config", "--quiet")


def _evaluate(arguments: argparse.Namespace) -> int:
    options = EvaluateOptions(**_given(arguments, EvaluateOptions), fid_weights=arguments.fid_weights)

    from dcgan.dataset import load_faces
    from dcgan.evaluate import evaluate
    from dcgan.report import FILES, table, write_report
    from dcgan.sampling import Progress
    from dcgan.weights import Weights

    trained = Weights.open(arguments.weights, arguments.device)
    refuse_existing([arguments.output / name for name in FILES], arguments.overwrite)
    size = trained.generator.config.size
    validation = load_faces(arguments.faces, size, say)
    training = load_faces(arguments.train, size, say) if arguments.train else None
    *_, evaluation = show_progress(evaluate(trained, validation, training, options), Progress)
    facts = {"name": Path(arguments.weights).name, "sha256": trained.sha256, "images": trained.metadata.get("images")}
    write_report(arguments.output, evaluation, facts)
    say(table(evaluation))
    print(*(arguments.output / name for name in FILES[:2]), sep="\n")
    return 0


def _add_benchmark_train(commands: Any) -> None:
    parser = _add_command(
        commands,
        "benchmark-train",
        _benchmark_train,
        "Time the training step against a plain fp32 loop and the machine's matrix product. The loop trains the same "
        "networks with the same batch. On a GPU the step runs with and without CUDA graphs, at 64 px and, grown, at "
        "128 px, unless --size chooses one size.",
        "--seconds 30 --report benchmark.json",
    )
    parser.add_argument("--seconds", type=at_least(0.0), default=20, help="seconds per row of the table")
    parser.add_argument("--report", type=Path, metavar="FILE.json", help="JSON file for the table")
    _add_train_config(parser)


def _add_volume(parser: Parser) -> None:
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("-v", "--verbose", action="store_true", help="also print losses and other figures")
    add_flags(volume, "--quiet")


def _add_weights(parser: Parser) -> None:
    parser.add_argument(
        "weights", type=weights_name, metavar="WEIGHTS", help=f"weights file or name: {', '.join(REGISTRY)}"
    )


def _add_faces(parser: Parser, purpose: str) -> None:
    """Add the folders of a training run."""
    parser.add_argument("faces", type=Path, help="folder of crops written by python -m align, or a file of pack")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="run folder for settings, logs, grids and checkpoints"
    )
    parser.add_argument("--val", type=Path, help=f"folder of validation faces, to {purpose}")


def _add_train_config(parser: Parser) -> None:
    parser.add_argument("--preset", choices=list(PRESETS), default="default", help="settings to start from")
    for config in (NetworkConfig, TrainConfig):
        _add_config(parser, config)
    add_flags(parser, "--device", "--config")


def _benchmark_train(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from align.files import prepare_report, write_json
    from dcgan.benchmark import benchmark_train
    from dcgan.device import machine, pick_device
    from dcgan.grow import grown_config

    configs, device = [_train_config(arguments)], pick_device(arguments.device)
    if device.type == "cuda" and arguments.size is None:
        configs.append(replace(configs[0], network=grown_config(configs[0].network, 2 * configs[0].network.size)))
    if arguments.report:
        prepare_report(arguments.report)
    tables = []
    for config in configs:
        say(f"{machine(device)}, batch {config.batch}, {config.network.size} px")
        print(f"{'':20}{'img/s':>9}{'ratio':>8}{'GFLOP/img':>11}{'TFLOP/s':>9}{'of matmul':>11}")
        rows = []
        for row in benchmark_train(config, device, arguments.seconds):
            rate = row.images_per_second * row.flops_per_image
            print(
                f"{row.name:20}{row.images_per_second:9.1f}{row.ratio:8.2f}{row.flops_per_image / 1e9:11.2f}"
                f"{rate / 1e12:9.3f}{row.share:11.0%}"
            )
            rows.append(asdict(row))
        tables.append({"machine": machine(device), "config": asdict(config), "rows": rows})
    if arguments.report:
        write_json(arguments.report, tables)
    return 0


def _train_config(arguments: argparse.Namespace) -> TrainConfig:
    """The preset, overridden by the networks of the start weights, overridden by the given flags."""
    preset = PRESETS[arguments.preset]
    network = preset.network
    if arguments.start:
        from dcgan.grow import grown_config
        from dcgan.weights import Weights

        network = Weights.open(arguments.start, "cpu").generator.config
        if arguments.size is not None and arguments.size > network.size:
            network = grown_config(network, arguments.size)
    network = replace(network, **_given(arguments, NetworkConfig))
    return replace(preset, network=network, **_given(arguments, TrainConfig))


def _add_config(parser: Parser, config: type, only: Collection[str] = ()) -> None:
    """Add a flag for each field, or only some; its help is the field's entry in the docstring of the class."""
    # Python 3.13 removes the indentation of docstrings; getdoc does so in every version.
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(config) or "", re.MULTILINE)
    texts = {name: " ".join(text.split()).rstrip(".") for name, text in entries}
    for item, kind in _settings(config):
        if only and item.name not in only:
            continue
        default = {"True": "on", "False": "off", "": "none"}.get(str(item.default), item.default)
        options: dict[str, Any] = {"help": f"{texts.get(item.name, item.name)} (default: {default})"}
        options |= (
            {"action": argparse.BooleanOptionalAction}
            if kind is bool
            else {"type": {int: integer, float: number}.get(kind, kind)}
        )
        if get_origin(item.type) is Literal:
            options["choices"] = get_args(item.type)
        parser.add_argument(f"--{item.name.replace('_', '-')}", **options)


def _given(arguments: argparse.Namespace, config: type) -> dict[str, Any]:
    """The fields whose flags were given."""
    values = {item.name: getattr(arguments, item.name, None) for item, _ in _settings(config)}
    return {name: value for name, value in values.items() if value is not None}


def _settings(config: type) -> list[tuple[Field[Any], type]]:
    """The fields that have a flag, and the type of its value; for a Literal, the type of its choices."""
    kinds = [(item, plain_type(item.type)) for item in fields(config)]
    return [(item, kind) for item, kind in kinds if kind in (int, float, str, bool)]


def _ignore(text: str) -> None:
    """Report of the processes other than the first."""


if __name__ == "__main__":
    run_program(main)
