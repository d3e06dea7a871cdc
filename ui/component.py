"""The page's own components: HTML and a script in the files of their name, run by Gradio's gr.HTML."""

import base64
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import gradio as gr
import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent


def component(name: str) -> gr.HTML:
    """Build the component "editor" or "result"; its script says what its value and its orders are."""
    html, script = ((HERE / f"{name}.{suffix}").read_text() for suffix in ("html", "js"))
    return gr.HTML(
        None, html_template=html, js_on_load=script, apply_default_css=False, elem_id=name, order={}, padding=False
    )


def order(**words: Any) -> Any:
    """An order to a component, which carries it out once."""
    return gr.update(order=words | {"serial": uuid4().hex})


def data_url(picture: NDArray[np.uint8]) -> str:
    """A picture as a URL: uint8 (h, w, 3) as JPEG, uint8 (h, w, 4) as PNG."""
    if picture.shape[2] == 4:
        kind, pixels = "png", cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA)
    else:
        kind, pixels = "jpeg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(f".{kind}", pixels)
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"
