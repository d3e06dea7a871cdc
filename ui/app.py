"""The page: builds its tabs and serves it."""

from typing import Any

import gradio as gr
from gradio.exceptions import ServerFailedToStartError
from gradio.themes import Default
from starlette.middleware import Middleware

from ui.batch_tab import batch_tab
from ui.complete_tab import complete_tab
from ui.explore_tab import explore_tab
from ui.server import Guard
from ui.service import Limits, Service
from ui.turns import Turns

_CSS = """
#sheet .grid-wrap, #gallery .grid-wrap { height: auto !important; max-height: none !important; min-height: 0 }
#sheet .grid-container, #gallery .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important }
.gradio-container { max-width: 1200px !important; width: 100% !important; margin: 0 auto !important }
"""


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
    app.queue(max_size=service.limits.waiting, default_concurrency_limit=1, api_open=False)
    return app


def launch(
    app: gr.Blocks,
    limits: Limits,
    host: str = "127.0.0.1",
    port: int | None = None,
    auth: tuple[str, str] | None = None,
    root_path: str = "",
    in_browser: bool = False,
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
    Returns:
        the state of the Guard, for ui.server.drain.
    Raises:
        OSError: the address cannot be used, or the page did not start in time.
    """
    state: dict[str, Any] = {"requests": 0, "closing": False}
    guard = Middleware(Guard, upload_bytes=4 * limits.file_bytes, state=state)
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
            max_threads=limits.waiting + 24,  # each waiting request keeps one
            max_file_size=limits.file_bytes,
            footer_links=["api", "settings"],
            app_kwargs={"middleware": [guard]},
            theme=Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=_CSS,
        )
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}, port {port}: it is in use or not available here; choose another port or host"
        ) from error
    except ServerFailedToStartError as error:  # Gradio waits for 5 s
        raise OSError("the page did not start within 5 s because the machine is busy; try again") from error
    return state
