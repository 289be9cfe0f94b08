"""Bodies of chat requests, and what an engine says step by step."""

import base64
from typing import Any

from actors.chat import Asked, ChatRequest, understood
from avere_ray.config import ServeConfig
from avere_ray.engine import Piece, Progress, TokenLogp

TEXT = {"type": "text", "text": "What does the person feel?"}
DATA = base64.b64encode(b"clip").decode()
VIDEO = {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{DATA}"}}
SOUND = {"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}}
SOUND_URL = {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{DATA}"}}
LIMITS = ServeConfig()


def chat(*content: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "base", "messages": [{"role": "user", "content": list(content)}], **fields}


def read(body: Any) -> Asked:
    """A body as the server understands it; raises what the server raises."""
    return understood(ChatRequest.model_validate(body), LIMITS, 48)


def video(url: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}}


def steps() -> list[Progress]:
    sad = TokenLogp(text="Sad", logp=-0.5, others=(("Sad", -0.5), ("Sa", float("-inf"))))
    return [
        Progress(prompt_tokens=10, pieces=(Piece(index=0, text="Sad", tokens=1, logps=(sad,)),), finished=False),
        Progress(prompt_tokens=10, pieces=(Piece(index=1, text="Happy", tokens=2, finish_reason="length"),),
                 finished=False),
        Progress(prompt_tokens=10, pieces=(Piece(index=0, text=".", tokens=1, finish_reason="stop"),), finished=True),
    ]  # fmt: skip
