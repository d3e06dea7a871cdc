"""The command line of python -m dcgan: training, weights, samples, evaluation, experiments, benchmark."""

import argparse
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from align.cli import (
    Parser,
    StopSignal,
    add_common,
    add_settings,
    given,
    refuse_existing,
    run_main,
    run_program,
    say,
    settings_from,
    show_progress,
    silence,
)
from align.files import publish, staging
from align.settings import POSITIONAL, Option, Range
from align.template import TemplateName
from dcgan.config import (
    PRESETS,
    Batch,
    EncoderConfig,
    EvaluateOptions,
    FinderConfig,
    LocatorConfig,
    NetworkConfig,
    OctaveConfig,
    Overwrite,
    Precision,
    Seed,
    TrainConfig,
)
from dcgan.device import Device, machine, pick_device
from dcgan.explore.registry import EXPERIMENTS, ExploreOptions, ExploreWeights
from dcgan.weights import WEIGHTS_HELP, Weights, WeightsError, weights_name
from weights import REGISTRY, VERSION

if TYPE_CHECKING:
    from dcgan.parallel import Group
    from dcgan.run import TrainingStep

_EXAMPLE = """example:
  python -m align raw/ aligned/
  %(prog)s train aligned/ --output runs/faces
  %(prog)s export runs/faces faces.safetensors
  %(prog)s sample --weights faces.safetensors --output samples/"""


@dataclass(frozen=True)
class Command:
    """A command: what it does, an example, what runs it with the parsed arguments and its settings; or sub-commands."""

    text: str
    example: str
    run: Callable[..., int | None] | None = None
    settings: tuple[type, ...] = ()
    verbose: bool = False
    commands: Mapping[str, "Command"] = field(default_factory=dict)

    @property
    def help(self) -> str:
        """The first sentence, as part of a list."""
        first = self.text.split(". ")[0].rstrip(".")
        return first[0].lower() + first[1:]


COMMANDS: dict[str, Command] = {}


def command(example: str, verbose: bool = False) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Make a command of a function: its name, its docstring as the help, and an option for each field of its settings.

    The function takes the parsed arguments, then an object of each settings class. It returns the exit code, or None.

    Args:
        example: arguments of an example.
        verbose: whether there is --verbose.
    """

    def register(run: Callable[..., int | None]) -> Callable[..., int | None]:
        text = " ".join((run.__doc__ or "").split())
        settings = tuple(each for each in run.__annotations__.values() if is_dataclass(each) and isinstance(each, type))
        COMMANDS[run.__name__.strip("_").replace("_", "-")] = Command(text, example, run, settings, verbose)
        return run

    return register


# Options that several commands have

_Preset = Annotated[Literal["default", "paper"], "settings to start from"]
_Template = Annotated[TemplateName, "alignment template of the training faces"]
_Dedupe = Annotated[
    Path | None, "list of files to leave out, such as duplicates.txt of explore duplicates", Option(metavar="LIST")
]


@dataclass(frozen=True)
class _Of:
    weights: Annotated[str, WEIGHTS_HELP, Option(positional=True, parse=weights_name)]


@dataclass(frozen=True, kw_only=True)
class _Run:
    output: Annotated[Path, "run folder for settings, logs, grids and checkpoints", Option(short="-o")]
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class _FacesRun(_Run):
    faces: Annotated[Path, "folder of crops written by python -m align, or a file of pack", POSITIONAL]
    val: Annotated[Path | None, "folder of validation faces, to measure overfitting and the PSNR inside holes"] = None


# Training


@dataclass(frozen=True)
class _Pack:
    faces: Annotated[Path, "folder of crops written by python -m align", POSITIONAL]
    file: Annotated[Path, "file to write, .npy", POSITIONAL]
    size: Annotated[int, Range(1, 4096), "side of the crops in pixels", Option(metavar="PX")] = NetworkConfig.size
    dedupe: _Dedupe = None
    overwrite: Overwrite = False


@command("aligned/ faces.npy")
def _pack(arguments: argparse.Namespace, options: _Pack) -> None:
    """Write a folder of aligned faces to one file.

    Training, evaluate and the benchmark of completion take the file in place of the folder, and read it in a moment.
    """
    from dcgan.dataset import DatasetError, load_faces, pack_faces, read_list

    if options.file.suffix != ".npy":
        raise DatasetError(f"the file to write is {options.file}; expected .npy")
    refuse_existing([options.file], options.overwrite)
    faces = load_faces(options.faces, options.size, say, read_list(options.dedupe))
    with _published(options.file.parent, options.overwrite) as folder:
        pack_faces(faces, folder / options.file.name)
    say(f"{len(faces)} faces, {faces.nbytes / 1e6:.0f} MB")
    print(options.file)


@dataclass(frozen=True, kw_only=True)
class _TrainRun(_FacesRun):
    dedupe: _Dedupe = None
    preset: _Preset = "default"


@command(
    "aligned/ --output runs/faces\n"
    "two GPUs: torchrun --nproc-per-node=2 -m -- dcgan train aligned/ --output runs/faces",
    verbose=True,
)
def _train(arguments: argparse.Namespace, options: _TrainRun, network: NetworkConfig, config: TrainConfig) -> int:
    """Train G and D on a folder of aligned faces. Run the same command again to resume."""
    config = _train_config(arguments, options.preset)  # wrong settings are reported before torch is imported

    from dcgan import parallel
    from dcgan.train import train

    group, device_name = parallel.join(options.device)
    with silence(group.rank > 0):  # the first process speaks for all
        device = pick_device(device_name)
        faces, val = _load(options, config.network.size, options.dedupe)
        where = f"{device}, {group.size} processes" if group.size > 1 else device
        say(f"{len(faces)} faces; training to {config.kimg:g} kimg on {where}, run folder {options.output}")
        run = train(config, faces, options.output, device, val, group)
        return _follow(run, arguments.verbose, [options.output], config.kimg, group=group)


def _train_config(arguments: argparse.Namespace, preset: str) -> TrainConfig:
    """The preset, overridden by the networks of the start weights, overridden by the given flags."""
    config, ours = PRESETS[preset], given(arguments, NetworkConfig)
    network = config.network
    if start := getattr(arguments, "start", ""):
        from dcgan.grow import grown_config

        network = Weights.open(start, "cpu").network
        if ours.get("size", 0) > network.size:
            network = grown_config(network, ours["size"])
    return replace(config, network=replace(network, **ours), **given(arguments, TrainConfig))


@command("faces-64 aligned/ --output runs/encoder", verbose=True)
def _encode(arguments: argparse.Namespace, of: _Of, options: _FacesRun, config: EncoderConfig) -> int:
    """Train an encoder, which maps visible pixels to a latent z, for the G and D of some weights.

    Run the same command again to resume; python -m dcgan export then writes the weights with the encoder.
    """
    from dcgan.encoder import train_encoder
    from dcgan.grow import grow

    device = pick_device(options.device)
    trained = Weights.open(of.weights, options.device)
    if config.start:
        start = grow(Weights.open(config.start, options.device), trained.size)
        completer = trained.generator if start.completer is start.generator else start.completer
        networks = trained.generator, trained.discriminator
        trained = Weights.of(*networks, trained.template, trained.metadata, start.encoder, trained.sha256, completer)
    trained = grow(trained, config.size or trained.size)
    if trained.encoder is not None:
        settings: dict[str, Any] = trained.encoder.settings
        config = replace(config, **{name: settings[name] for name in ("nef", "inputs") if name not in arguments})
    faces, val = _load(options, trained.size)
    say(f"{len(faces)} faces; training E to {config.kimg:g} kimg on {device}, run folder {options.output}")
    run = train_encoder(config, trained, faces, options.output, device, val)
    return _follow(run, arguments.verbose, [options.output], config.kimg)


@dataclass(frozen=True, kw_only=True)
class _LocatorRun(_Run):
    photos: Annotated[Path, "folder of photos with faces", POSITIONAL]
    landmarks: Annotated[Path, "faces.jsonl, written by python -m align for these photos", POSITIONAL]


@command("photos/ aligned/faces.jsonl --output runs/locator", verbose=True)
def _locator(arguments: argparse.Namespace, options: _LocatorRun, config: LocatorConfig) -> int:
    """Train the locator, which finds the eyes of partly hidden faces.

    Run the same command again to resume; python -m dcgan export then writes it as an .onnx file.
    """
    from dcgan.locator import load_wide_faces, train_locator

    device = pick_device(options.device)
    faces = load_wide_faces(options.photos, options.landmarks, say)
    say(f"{len(faces)} faces; training the locator to {config.kimg:g} kimg on {device}, run folder {options.output}")
    run = train_locator(config, faces, options.output, device)
    return _follow(run, arguments.verbose, [options.output], config.kimg)


@dataclass(frozen=True, kw_only=True)
class _FinderRun(_Run):
    photos: Annotated[tuple[Path, ...], "folders of photos without damage", POSITIONAL]


@command("photos/ more/ --output runs/finder", verbose=True)
def _damage(arguments: argparse.Namespace, options: _FinderRun, config: FinderConfig) -> int:
    """Train the finder, which marks cracks, stains and other damage in photos.

    Run the same command again to resume; python -m dcgan export then writes it as an .onnx file.
    """
    from dcgan.finder import load_photos, train_finder

    device = pick_device(options.device)
    photos = load_photos(options.photos, say)
    say(f"{len(photos)} photos; training the finder to {config.kimg:g} kimg on {device}, run folder {options.output}")
    run = train_finder(config, photos, options.output, device)
    return _follow(run, arguments.verbose, [options.output], config.kimg)


@dataclass(frozen=True, kw_only=True)
class _OctaveRun(_Run):
    faces: Annotated[Path, "folder of crops of twice the size of the weights, or a file of pack", POSITIONAL]
    weights: Annotated[str, WEIGHTS_HELP, Option(parse=weights_name)] = "faces-128"
    start: Annotated[Path | None, "octave network to start from, .onnx (default: a new one)"] = None


@command("aligned256/ --output runs/octave", verbose=True)
def _octave(arguments: argparse.Namespace, options: _OctaveRun, config: OctaveConfig) -> int:
    """Train the octave network, which sharpens completed faces at twice the size of the weights.

    Run the same command again to resume; python -m dcgan export then writes it as an .onnx file.
    """
    from dcgan.dataset import load_faces
    from dcgan.octave import train_octave

    device = pick_device(options.device)
    trained = Weights.open(options.weights, str(device))
    faces = load_faces(options.faces, 2 * trained.size, say)
    say(f"{len(faces)} faces; training to {config.kimg:g} kimg on {device}, run folder {options.output}")
    run = train_octave(config, trained, faces, options.output, device, options.start)
    return _follow(run, arguments.verbose, [options.output], config.kimg)


@dataclass(frozen=True, kw_only=True)
class _AllRuns(_FacesRun):
    hours: Annotated[float, Range(0, 1_000_000), "wall-clock time for everything"]
    size: Annotated[Literal[64, 128, 256], "side of the faces in pixels"] = 128
    template: _Template = "face"
    batch: Batch = TrainConfig.batch
    precision: Precision = TrainConfig.precision
    seed: Seed = TrainConfig.seed


@command("faces.npy --hours 2 --output runs/all", verbose=True)
def _train_all(arguments: argparse.Namespace, options: _AllRuns) -> int:
    """Train everything within a given time: G and D at 64 px, grown to the size of the faces, then the encoder.

    Writes the weights with the encoder as faces.safetensors and faces.onnx. Run the same command again to resume, with
    the hours that are left.
    """
    from dcgan.train_all import train_all

    device, output, seconds = pick_device(options.device), options.output, 3600 * options.hours
    shared: dict[str, Any] = {name: getattr(options, name) for name in ("batch", "precision", "seed")}
    if device.type == "cuda":  # every log line makes a GPU wait
        shared |= {"tick_kimg": 100, "sample_kimg": 500}
    faces, val = _load(options, options.size)
    say(f"{len(faces)} faces; training for {options.hours:g} hours on {device}, folder {output}")
    end = time.monotonic() + seconds
    configs = TrainConfig(**shared), EncoderConfig(**shared)
    run = train_all(*configs, faces, output, seconds, device, options.template, val)
    return _follow(run, arguments.verbose, [output / "faces.safetensors", output / "faces.onnx"], end=end)


def _load(options: _FacesRun, size: int, dedupe: Path | None = None) -> Any:
    """Read the training faces and, if there are any, the validation faces: uint8 (N, S, S, 3)."""
    from dcgan.dataset import load_faces, read_list

    faces = load_faces(options.faces, size, say, read_list(dedupe))
    return faces, load_faces(options.val, size, say) if options.val else None


def _follow(
    run: "Generator[TrainingStep]",
    verbose: bool,
    outputs: Sequence[Path],
    kimg: float | None = None,
    end: float = 0,
    group: "Group | None" = None,
) -> int:
    """Show the progress of training to its length or, without one, to a time; a signal saves and stops it.

    Returns:
        The exit code.
    """
    from tqdm import tqdm

    from dcgan.parallel import Group

    group = group or Group()
    stop, stopped, begin, total = StopSignal(keep_first=True), 0.0, 0, None
    if kimg is not None:
        begin, total = next(run).images, round(kimg * 1000)
        if begin >= total:
            say(f"the run has reached {begin / 1000:g} kimg; a larger --kimg continues it")
        elif begin:
            say(f"resuming at {begin / 1000:g} kimg")
    began = time.monotonic()
    with tqdm(total=total, initial=begin, unit="img", unit_scale=True, disable=None) as bar:
        for step in run:
            bar.update(step.images - bar.n)
            if step.stats:
                bar.clear()
                now = time.monotonic()
                left = (total - step.images) * (now - began) / (step.images - begin) if total else end - now
                done = f"{step.run}: " if step.run else ""
                done += f"kimg {step.images / 1000:g}" + (f" of {total / 1000:g}" if total else "")
                say(f"{done}, {(now - began) / 60:.1f} min; about {max(0, left) / 60:.0f} min left")
                if verbose:
                    say("  ".join(f"{name} {value:.4g}" for name, value in step.stats.items()))
            # A signal to any process stops all of them at the same step. They ask each other when they log, as every
            # message makes them wait for their GPUs.
            if step.stats or group.size == 1:
                stopped = group.mean(stop.number)
            if stopped:
                run.close()
                say(f"stopped and saved at {step.images / 1000:.1f} kimg; run the same command again to resume")
                break
    group.close()
    if stopped:
        return 128 + (stop.number or signal.SIGTERM)
    print(*outputs, sep="\n")
    return 0


# What is done with trained networks


@contextmanager
def _published(folder: Path, overwrite: bool) -> Iterator[Path]:
    """A folder to write files to, which appear in `folder` at the end; without `overwrite`, they replace none.

    Another command may have written the same files since `refuse_existing` looked.
    """
    with staging(folder) as hidden:
        yield hidden
        for file in sorted(hidden.iterdir()):
            publish(file, folder / file.name, overwrite)


@dataclass(frozen=True, kw_only=True)
class _Sample(ExploreWeights):
    count: Annotated[int, Range(1, 1_000_000), "number of faces"] = 64


@command("--count 64 --output samples/")
def _sample(arguments: argparse.Namespace, options: _Sample) -> None:
    """Generate faces. Writes grid.png and a file for each face, 0000.png, 0001.png ..."""
    from align.photo import write_photo
    from align.picture import grid
    from dcgan.sampling import generate, sample_z

    G = Weights.open(options.weights, options.device).generator
    paths = [options.output / name for name in ("grid.png", *(f"{index:04d}.png" for index in range(options.count)))]
    refuse_existing(paths, options.overwrite)
    faces = generate(G, sample_z(options.count, G.config, options.seed))
    with _published(options.output, options.overwrite) as folder:
        for path, picture in zip(paths, [grid(faces), *faces], strict=True):
            write_photo(folder / path.name, picture)
    print(paths[0])


@dataclass(frozen=True)
class _Export:
    run: Annotated[Path, "run folder of another command that trains, or weights", POSITIONAL]
    file: Annotated[Path, "file to write: .safetensors for runs of train and encode, else .onnx", POSITIONAL]
    template: _Template = "face"
    overwrite: Overwrite = False


@command("runs/faces faces.safetensors")
def _export(arguments: argparse.Namespace, options: _Export) -> None:
    """Write the weights of a run's newest checkpoint to one file.

    For a run of train these are D and the moving average of G; for a run of encode, the weights that the encoder was
    trained for, with the encoder, and beside them an .onnx file of the same name, with which completion needs no torch.
    The other networks are written as .onnx files only. Also plots the training curves to losses.png in the run
    folder. Given weights instead of a run, writes only their .onnx file.
    """
    from dcgan.encoder import export_encoder
    from dcgan.export import export_onnx, export_run, plot_losses
    from dcgan.finder import export_finder
    from dcgan.locator import export_locator
    from dcgan.octave import export_octave
    from dcgan.run import command_of

    run, file, graph = options.run, options.file, options.file.with_suffix(".onnx")
    name = "" if run.is_file() or str(run) in REGISTRY else command_of(run)
    expected = ".safetensors for a run, or give weights"
    graphs = {"locator": export_locator, "damage": export_finder, "octave": export_octave}
    if not name or name in graphs:
        expected = f".onnx for a run of {name}" if name else ".onnx for weights, or give a run folder"
    if file.suffix != expected.split()[0]:
        raise WeightsError(f"the file to write is {file}; expected {expected}")
    refuse_existing([file, graph], options.overwrite)
    exports = {"encode": export_encoder} | graphs
    with _published(file.parent, options.overwrite) as folder:
        if name:
            metadata = exports.get(name, partial(export_run, template=options.template))(run, folder / file.name)
        if name in ("", "encode"):
            export_onnx(Weights.open(folder / file.name if name else str(run), "cpu"), folder / graph.name)
    print(*([file, graph] if name == "encode" else [file]), sep="\n")
    if name:
        print(plot_losses(run, options.overwrite))
        say(f"{metadata['images'] / 1000:.1f} kimg in {metadata['seconds'] / 60:.0f} minutes on {metadata['machine']}")


@dataclass(frozen=True)
class _Evaluate(_Of):
    faces: Annotated[Path, "folder of aligned validation faces", POSITIONAL]
    train: Annotated[Path | None, "folder of the training faces, to measure memorisation"] = None
    output: Annotated[Path, "folder for the report", Option(short="-o")] = Path("evaluation")
    overwrite: Overwrite = False
    device: Device = "auto"


@command("faces-64 aligned_val/ --train aligned_train/ --output evaluation/")
def _evaluate(arguments: argparse.Namespace, what: _Evaluate, options: EvaluateOptions) -> None:
    """Measure a generator on faces that it was not trained on.

    Reports the distances of face embeddings and of patches, precision and recall, variety, reconstruction and
    memorisation, each with its real-vs-real baseline. Writes evaluation.json, evaluation.md and pictures.
    """
    from dcgan.dataset import load_faces
    from dcgan.evaluate import evaluate
    from dcgan.report import FILES, table, write_report

    trained = Weights.open(what.weights, what.device)
    refuse_existing([what.output / name for name in FILES], what.overwrite)
    validation = load_faces(what.faces, trained.size, say)
    training = load_faces(what.train, trained.size, say) if what.train else None
    *_, evaluation = show_progress(evaluate(trained, validation, training, options))
    source = {"name": Path(what.weights).name, "sha256": trained.sha256, "images": trained.metadata.get("images")}
    with _published(what.output, what.overwrite) as folder:
        write_report(folder, evaluation, source)
    say(table(evaluation))
    print(*(what.output / name for name in FILES[:2]), sep="\n")


@dataclass(frozen=True)
class _Benchmark:
    seconds: Annotated[float, Range(0, 100_000), "seconds per row of the table"] = 20
    preset: _Preset = "default"
    device: Device = "auto"


@command("--seconds 30")
def _benchmark_train(
    arguments: argparse.Namespace, options: _Benchmark, network: NetworkConfig, config: TrainConfig
) -> None:
    """Time the training step against a plain fp32 loop.

    The loop trains the same networks with the same batch. On a GPU the step runs with and without CUDA graphs, at 64 px
    and, grown, at 128 px, unless --size chooses one size.
    """
    from dcgan.benchmark import HEADER, benchmark_train
    from dcgan.grow import grown_config

    configs, device = [_train_config(arguments, options.preset)], pick_device(options.device)
    if device.type == "cuda" and "size" not in arguments:
        configs.append(replace(configs[0], network=grown_config(configs[0].network, 2 * configs[0].network.size)))
    for config in configs:
        say(f"{machine(device)}, batch {config.batch}, {config.network.size} px")
        print(HEADER, *benchmark_train(config, device, options.seconds), sep="\n")


def _explore(name: str, arguments: argparse.Namespace, options: ExploreOptions) -> None:
    """Run an experiment and write its files; the JSON includes the settings and the weights' SHA-256."""
    from dcgan.explore.files import write_files

    files = EXPERIMENTS[name].files
    refuse_existing([options.output / file for file in files], options.overwrite)
    settings = {key: value for key, value in vars(options).items() if key not in ("output", "overwrite")}
    shown = {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}
    record: dict[str, Any] = {"settings": {"experiment": name} | shown}
    if isinstance(options, ExploreWeights):
        settings["weights"] = Weights.open(options.weights, settings.pop("device"))
        record["weights_sha256"] = settings["weights"].sha256
    run = import_module(f"dcgan.explore.{name.replace('-', '_')}").run
    *_, outputs = show_progress(run(**settings))
    outputs[f"{name}.json"] = record | outputs[f"{name}.json"]
    with _published(options.output, options.overwrite) as folder:
        write_files(folder, outputs)
    print(*(options.output / file for file in files), sep="\n")


COMMANDS["explore"] = Command(
    "Run an experiment with a trained DCGAN. Each writes pictures and a JSON file of its results.",
    "walk --output walk/",
    commands={
        name: Command(
            f"{each.settings.__doc__} Writes {', '.join(each.files)}.",
            each.example,
            partial(_explore, name),
            (each.settings,),
        )
        for name, each in EXPERIMENTS.items()
    },
)


# The parser and the program


def build_parser(program: str = "python -m dcgan") -> Parser:
    """Build the parser of all commands."""
    parser = Parser(
        program, description="Train a DCGAN on aligned faces, and sample, measure and explore it.", epilog=_EXAMPLE
    )
    parser.add_argument("--version", action="version", version=f"dcgan-completion {VERSION}")
    _add_commands(parser, COMMANDS, "COMMAND")
    return parser


def _add_commands(parser: Parser, commands: Mapping[str, Command], metavar: str) -> None:
    group = parser.add_subparsers(required=True, metavar=metavar)
    for name, each in commands.items():
        epilog = f"example: %(prog)s {each.example}"
        added: Parser = group.add_parser(name, help=each.help, description=each.text, epilog=epilog)
        if each.commands:
            _add_commands(added, each.commands, "NAME")
            continue
        for settings in each.settings:
            add_settings(added, settings)
        add_common(added, verbose="also print losses and other figures" if each.verbose else "", version=False)
        added.set_defaults(command=each)


def main(argv: list[str] | None = None, program: str = "python -m dcgan") -> int:
    """Run one command.

    Returns:
        The exit code: 0 success, 1 failure, 2 wrong usage or unusable input, 128 + N after signal N.
    """
    arguments = build_parser(program).parse_args(argv)

    def work() -> int:
        command = arguments.command
        with silence(arguments.quiet):
            return command.run(arguments, *(settings_from(arguments, each) for each in command.settings)) or 0

    return run_main("dcgan", work, out_of_memory="lower --batch or use --device cpu; saved checkpoints are kept")


if __name__ == "__main__":
    run_program(main)
