"""The page: builds its tabs and serves it."""

import os
import sys
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio import queueing
from gradio.exceptions import ServerFailedToStartError
from gradio.themes import Base, Default
from starlette.middleware import Middleware

from ui.access import LOCAL, Access
from ui.batch_tab import batch_tab
from ui.complete_tab import complete_tab
from ui.component import HERE
from ui.explore_tab import explore_tab
from ui.server import Guard, log, one_line
from ui.service import Limits, Service
from ui.turns import Turns


def _theme() -> Base:
    """Gradio's default theme with system fonts, and at least 4.5:1 between text and its background (WCAG AA)."""
    theme = Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    dark, light = ("*primary_700", "*primary_800"), ("*neutral_600", "*neutral_300")
    buttons = {
        f"button_{kind}_background_fill{state}{mode}": colour
        for kind, colours in (("primary", dark), ("cancel", ("#b91c1c", "#991b1b")))
        for state, colour in zip(("", "_hover"), colours, strict=True)
        for mode in ("", "_dark")
    }
    texts = {
        f"{name}{mode}": colour
        for name in (
            "body_text_color_subdued",
            "block_info_text_color",
            "block_title_text_color",
            "block_label_text_color",
        )
        for mode, colour in zip(("", "_dark"), light, strict=True)
    }
    links = {f"link_text_color{state}_dark": "*secondary_300" for state in ("", "_active", "_hover", "_visited")}
    white = {f"button_cancel_text_color{mode}": "white" for mode in ("", "_dark")}
    return theme.set(color_accent="*primary_700", **buttons, **texts, **links, **white)


def _threads(limits: Limits) -> int:
    """Each request that waits in ui.turns keeps a thread; some more are for the rest of the page."""
    return limits.waiting + 24


class _OneLine:
    """Takes the place of the module traceback in Gradio's queue, where a forged request would log dozens of lines."""

    @staticmethod
    def print_exc() -> None:
        error = sys.exception()
        if error is not None:
            log.error("ui: a request failed: %s", one_line(error))


def build_app(service: Service, turns: Turns) -> gr.Blocks:
    """Build the page, for `launch`; completions wait for their turn in `turns`."""
    with gr.Blocks(title="Fill in a face", analytics_enabled=False) as app:
        gr.Markdown(
            "# Fill in a face\nPaint over the missing part of a face and let a neural network fill it in. "
            "Photos and results are deleted within an hour."
        )
        with gr.Tab("Complete"):
            complete_tab(service, turns)
        with gr.Tab("Explore"):
            explore_tab(service)
        with gr.Tab("Batch"):
            batch_tab(service)
    app.queue(max_size=_threads(service.limits), default_concurrency_limit=1, api_open=False)
    return app


def launch(
    app: gr.Blocks,
    limits: Limits,
    host: str = "127.0.0.1",
    port: int | None = None,
    auth: tuple[str, str] | None = None,
    root_path: str = "",
    in_browser: bool = False,
    access: Access = LOCAL,
    gauges: Callable[[], dict[str, float]] = dict,
) -> dict[str, Any]:
    """Serve the page from a background thread.

    Args:
        app: the page, from `build_app`.
        limits: limits on uploads.
        host: address to listen on.
        port: port to listen on; None for a free one.
        auth: user name and password that visitors must enter; None for no login.
        root_path: path under which a reverse proxy serves the page.
        in_browser: open the page in the browser.
        access: who may ask.
        gauges: current values for /metrics, by name.
    Returns:
        the state of the Guard, for ui.server.drain.
    Raises:
        OSError: the address cannot be used, or the page did not start in time.
    """
    state: dict[str, Any] = {"requests": 0, "closing": False}
    guard = Middleware(Guard, upload_bytes=4 * limits.file_bytes, state=state, access=access, gauges=gauges)
    os.environ["FORWARDED_ALLOW_IPS"] = ""  # uvicorn believes no forwarded headers; Guard does for trusted proxies
    queueing.traceback = _OneLine  # type: ignore[assignment]
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
            max_threads=_threads(limits),
            max_file_size=limits.file_bytes,
            footer_links=["api", "settings"],
            app_kwargs={"middleware": [guard]},
            theme=_theme(),
            css=(HERE / "page.css").read_text(),
            js=(HERE / "page.js").read_text(),
        )
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}, port {port}: it is in use or not available here; choose another port or host"
        ) from error
    except (ServerFailedToStartError, ValueError) as error:  # Gradio waits for 5 s, then asks the page itself
        raise OSError("the page did not start within 5 s because the machine is busy; try again") from error
    # Gradio puts its CORS middleware before that of app_kwargs, and would answer preflight requests without Guard.
    app.app.user_middleware.sort(key=lambda item: item.cls is not Guard)
    app.app.middleware_stack = app.app.build_middleware_stack()
    return state
