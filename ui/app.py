"""The page and its endpoints, served by Gradio: its queue, its event streams, its clients."""

import hashlib
import html
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr
from gradio import queueing
from gradio.data_classes import FileData
from gradio.exceptions import ServerFailedToStartError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse

from align.errors import InputError
from completion.damage import SENSITIVITY
from ui.access import visitor_of
from ui.config import LOOPBACK
from ui.server import ASSETS, Guard, Visits, log, one_line, upload_folder
from ui.service import Service, ServiceError, explain
from ui.turns import Turns

_HERE = Path(__file__).parent
_FRESH = {"cache-control": "no-cache"}  # browsers ask whether a file has changed


Keep = Callable[[gr.Request, Path], FileData]


def _add_page_endpoints(app: gr.Server, service: Service, turns: Turns, keep: Keep) -> None:
    """Add what the page calls: open, damage, fill, save, save_all."""

    @app.api(name="open", concurrency_id="turns", concurrency_limit=None)
    @_as_messages()
    def open_photo(request: gr.Request, photo: FileData, eyes: list[float] | None = None) -> dict[str, Any]:
        """Find the faces of a photo or, with x and y of two eyes, describe the face there."""
        with _turn(request, service, turns, _path(photo)):
            upload = service.read(_path(photo))
        faces = [service.marked(upload, eyes)] if eyes else service.faces(upload)
        width, height = upload.size
        return {"width": width, "height": height, "faces": [service.describe(upload, face) for face in faces]}

    @app.api(name="damage", concurrency_id="turns", concurrency_limit=None)
    @_as_messages()
    def damage(
        request: gr.Request,
        photo: FileData,
        steps: list[dict[str, Any]] | None = None,
        sensitivity: float = SENSITIVITY,
    ) -> dict[str, Any]:
        """Find the damage of a photo with its steps: outlines; what they enclose by the even-odd rule is damaged."""
        with _turn(request, service, turns, _path(photo)):
            shown, _ = service.patched(service.read(_path(photo)), _patches(steps))
            return {"outlines": service.damage(shown, sensitivity)}

    @app.api(name="fill", concurrency_id="turns", concurrency_limit=None)
    def fill(
        request: gr.Request,
        photo: FileData,
        marks: FileData,
        steps: list[dict[str, Any]] | None = None,
        faces: list[list[float]] | None = None,
        attempt: int = 0,
        references: list[FileData] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Fill what is marked (a PNG, opaque = fill), on top of earlier steps; the answer is a patch for the photo."""
        with _as_messages():
            with turns.ticket(_visitor(request), service.is_large(_path(photo))) as ticket:
                for place in turns.places(ticket):
                    yield {"state": "waiting", "ahead": place.ahead, "seconds": round(place.seconds)}
                shown_by = service.references(_paths(references))
                upload = service.read(_path(photo))
                hole = service.hole(upload, _path(marks))
                shown, _ = service.patched(upload, _patches(steps))
                found = service.alignments(upload, faces or [])
                for item in service.fill(shown, hole, found, service.options(seed=attempt).seed, shown_by):
                    if item is None:
                        yield {"state": "filling"}
                        continue
                    with _folder() as folder:
                        item.save(path := Path(folder, "step.png"), upload.photo)
                        answer: dict[str, Any] = {"state": "done", "file": keep(request, path)}
                    described = ("x", "y", "faces", "outside", "quick", "notes")
                    yield answer | {name: getattr(item, name) for name in described}

    @app.api(name="save", concurrency_id="turns", concurrency_limit=None)
    @_as_messages()
    def save(request: gr.Request, photo: FileData, steps: list[dict[str, Any]] | None = None) -> FileData:
        """Write a photo with its steps, in its own size and format."""
        with _turn(request, service, turns, _path(photo)), _folder() as folder:
            upload = service.read(_path(photo))
            return keep(request, service.save(upload, _patches(steps), Path(folder, f"{_stem(photo)}-filled")))

    @app.api(name="save_all", concurrency_id="batch", concurrency_limit=1)
    @_as_messages()
    def save_all(request: gr.Request, photos: list[dict[str, Any]]) -> FileData:
        """Write several photos into a ZIP file with a report; each has name, photo, steps, or the reason it failed."""
        items = []
        for item in _all_of(dict, photos):
            photo = item.get("photo")
            path = _path(photo) if photo else None
            items.append((f"{item.get('name')}", path, _patches(item.get("steps")), f"{item.get('reason', '')}"))
        with _folder() as folder:
            turn = partial(_turn, request, service, turns)
            return keep(request, service.save_all(items, Path(folder, "filled.zip"), turn))


def _add_api(app: gr.Server, service: Service, turns: Turns, keep: Keep) -> None:
    """Add what programs call: complete and batch."""

    @app.api(name="complete", concurrency_id="turns", concurrency_limit=None)
    def complete(
        request: gr.Request,
        photo: FileData,
        mask: str = "center",
        mask_file: FileData | None = None,
        solver: str = "fast",
        candidates: int = 1,
        blend: str = "poisson",
        seed: int = 0,
        prior_weight: float | None = None,
        as_png: bool = True,
        references: list[FileData] | None = None,
    ) -> Iterator[list[FileData]]:
        """Fill a hole in a photo. Give a mask file (white = fill) or the name of a hole."""
        with _as_messages():
            chosen: dict[str, Any] = {"solver": solver, "candidates": candidates, "blend": blend, "seed": seed}
            chosen |= {"prior_weight": prior_weight}
            where = _path(mask_file) if mask_file else mask
            # If the client has gone, Gradio ends the work at a yield.
            large = service.is_large(_path(photo), **chosen)
            with turns.ticket(_visitor(request), large) as ticket, _folder() as folder:
                for _ in turns.places(ticket):
                    yield []
                chosen["reference"] = service.references(_paths(references))
                upload = service.read(_path(photo))
                for item in service.complete(upload, where, Path(folder), _stem(photo), as_png, **chosen):
                    yield [keep(request, path) for path in item[0]] if item else []

    @app.api(name="batch", concurrency_id="batch", concurrency_limit=1)
    def batch(
        request: gr.Request,
        photos: list[FileData],
        mask: str = "center",
        mask_files: list[FileData] | None = None,
        solver: str = "fast",
        seed: int = 0,
    ) -> Iterator[dict[str, Any]]:
        """Complete several photos: "lines" about each, and at the end "file", a ZIP with completions and a report."""
        with _as_messages():
            files, its_masks = _paths(photos), _paths(mask_files)
            lines: list[str] = []
            turn = partial(_turn, request, service, turns)
            with _folder() as folder:
                for item in service.batch(files, mask, its_masks, Path(folder), turn, solver=solver, seed=seed):
                    if isinstance(item, Path):
                        yield {"lines": lines, "file": keep(request, item)}
                    else:
                        lines = [*lines, item]
                        yield {"lines": lines}


def launch(
    service: Service,
    turns: Turns,
    visits: Visits,
    host: str = "127.0.0.1",
    port: int | None = None,
    auth: tuple[str, str] | None = None,
    root_path: str = "",
    in_browser: bool = False,
) -> gr.Server:
    """Serve the page from a background thread.

    Args:
        service: what the page can do.
        turns: photos are read and filled in their turn in it.
        visits: who may ask, and how much.
        host: address to listen on.
        port: port to listen on; None for a free one.
        auth: user name and password that visitors must enter; None for no login.
        root_path: path under which a reverse proxy serves the page.
        in_browser: open the page in the browser.
    Raises:
        OSError: the address cannot be used, or the page did not start in time.
    """
    app = gr.Server(title="Fill in a face", openapi_url=None, docs_url=None, redoc_url=None)
    for name in ASSETS:
        app.add_route(f"/{name}", partial(_asset, _HERE / name))
    keep = partial(_keep, visits)
    _add_page_endpoints(app, service, turns, keep)
    _add_api(app, service, turns, keep)
    limits = service.limits
    threads = limits.waiting + 24  # each request that waits in ui.turns keeps one; some more are for the rest
    facts = {
        "pixels": limits.max_pixels,
        "photos": limits.photos,
        "local": host in LOOPBACK and not visits.access.proxies,
        "explore": find_spec("torch") is not None,
        "login": auth is not None,
    }
    page = Template((_HERE / "page.html").read_text()).substitute(facts=html.escape(json.dumps(facts)))
    app.add_route("/", lambda _: HTMLResponse(page, headers=_FRESH))
    app.add_middleware(Guard, visits=visits)
    os.environ["FORWARDED_ALLOW_IPS"] = ",".join(visits.access.proxies)  # whose forwarded headers uvicorn believes
    queueing.traceback = _OneLine  # type: ignore[assignment]
    starts = _mount_explore(app, service, visits, root_path) if facts["explore"] else None
    try:
        app.launch(
            server_name=host,
            server_port=port,
            auth=auth,
            root_path=root_path,
            inbrowser=in_browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            show_error=False,
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            max_threads=threads,
            max_file_size=limits.file_bytes,
            state_session_capacity=1000,
            app_kwargs={"lifespan": starts},
        )
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}, port {port}: it is in use or not available here; choose another port or host"
        ) from error
    except (ServerFailedToStartError, ValueError) as error:  # Gradio waits for 5 s, then asks the page itself
        raise OSError("the page did not start within 5 s because the machine is busy; try again") from error
    app.get_blocks()._queue.max_size = threads
    app.get_blocks().validate_inputs = _check_number  # type: ignore[assignment, method-assign]
    # Gradio puts its CORS middleware before this one, and would answer preflight requests without it.
    app.user_middleware.sort(key=lambda item: item.cls is not Guard)
    app.middleware_stack = app.build_middleware_stack()
    return app


def _mount_explore(app: gr.Server, service: Service, visits: Visits, root_path: str) -> Callable[[Any], Any]:
    """Serve /explore, which asks for the same login; return what starts its queue with the server."""
    from ui.explore import build_explore

    explore = build_explore(service, lambda request, size: visits.store(_visitor(request), size))

    def user(request: gr.Request) -> str | None:
        if app.auth is None:
            return "visitor"
        kinds = ("", "unsecure-")
        tokens = [request.cookies.get(f"access-token-{kind}{app.cookie_id}") for kind in kinds]
        return next((app.tokens[token] for token in tokens if token in app.tokens), None)

    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    path = f"{root_path}/explore" if root_path else None
    gr.mount_gradio_app(
        app, explore, "/explore", auth_dependency=user, root_path=path, run_history=False, footer_links=[], theme=theme
    )

    @asynccontextmanager
    async def starts(_: Any) -> AsyncIterator[None]:
        explore.run_startup_events()
        yield

    return starts


def _check_number(function: Any, inputs: list[Any]) -> None:
    """Takes the place of Gradio's check, which answers "null"."""
    if len(inputs) < (expected := len(function.inputs)):
        names = list(signature(function.fn).parameters)[-expected:]
        words = f"The request lacks {', '.join(names[len(inputs) :])}. Give all of {', '.join(names)}, in this order."
        raise gr.Error(words, print_exception=False)


def _asset(path: Path, _: Request) -> FileResponse:
    return FileResponse(path, headers=_FRESH)


class _OneLine:
    """Takes the place of the module traceback in Gradio's queue, where a forged request would log dozens of lines."""

    @staticmethod
    def print_exc() -> None:
        error = sys.exception()
        if error is not None:
            log.error("ui: a request failed: %s", one_line(error))


@contextmanager
def _as_messages() -> Iterator[None]:
    """InputErrors become the answer of an endpoint; other errors stay in the log."""
    try:
        yield
    except InputError as error:
        raise gr.Error(explain(error), print_exception=False) from error
    except HTTPException as error:  # there is no room for a result
        raise gr.Error(explain(ServiceError(error.detail)), print_exception=False) from error
    except ModuleNotFoundError as error:  # torch, for the slow solvers
        words = f'This needs {error.name}, which the server lacks: pip install -e ".[train]"'
        raise gr.Error(words, print_exception=False) from error


def _visitor(request: gr.Request) -> str:
    """Who sent a request; all share one user name."""
    return visitor_of(request.client.host if request.client else "")


@contextmanager
def _turn(request: gr.Request, service: Service, turns: Turns, photo: Path) -> Iterator[None]:
    """Wait for the turn of a photo, and hold it."""
    with turns.ticket(_visitor(request), service.is_large(photo)) as ticket:
        for _ in turns.places(ticket):
            pass
        yield


def _path(file: Any) -> Path:
    """Where an uploaded file is; ui.server has checked that it was uploaded."""
    if not (isinstance(file, dict) and isinstance(file.get("path"), str)):
        raise ServiceError("there is no photo; upload it first")
    return Path(file["path"])


def _paths(files: Any) -> list[Path]:
    """Where several uploaded files are, or none."""
    return [_path(file) for file in _all_of(dict, files or [])]


def _stem(file: Any) -> str:
    """Base name for files made from an uploaded one, which was named by a stranger."""
    name = file.get("orig_name") or file["path"]
    return re.sub(r"[^\w-]+", "-", Path(str(name)).stem)[:80] or "photo"


def _patches(steps: Any) -> list[tuple[Path, int, int]]:
    return [
        (_path(step.get("file")), _whole(step.get("x")), _whole(step.get("y"))) for step in _all_of(dict, steps or [])
    ]


def _all_of(kind: type, items: Any) -> list[Any]:
    if not (isinstance(items, list) and all(isinstance(item, kind) for item in items)):
        raise ServiceError("the request is malformed; load the page again")
    return items


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ServiceError(f"the position of a step is {value!r}; load the page again")
    return value


def _folder() -> TemporaryDirectory[str]:
    """A folder for results until `_keep` takes them."""
    return TemporaryDirectory(dir=upload_folder())


def _keep(visits: Visits, request: gr.Request, path: Path) -> FileData:
    """Move a result to the uploads, from where Gradio serves files and ui.server.sweep deletes them.

    It is named by its content, so that the same result is kept once.
    """
    with path.open("rb") as file:
        folder = Path(upload_folder(), hashlib.file_digest(file, "sha256").hexdigest())
    if not folder.exists():
        visits.store(_visitor(request), path.stat().st_size)
    folder.mkdir(exist_ok=True)
    return FileData(path=str(path.replace(folder / path.name)), orig_name=path.name)
