"""Messages of OpenAI's chat API: words, and media inside the request as base64, so that no server has to fetch them.

`video_url` is vLLM's part for a video file, `input_audio` OpenAI's for sound, `image_url` everyone's for a picture.
"""

import base64
import io
import wave
from collections.abc import Mapping
from typing import Any

import numpy as np

SAMPLE_RATE = 16_000


def user(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """A user's message of parts."""
    return {"role": "user", "content": list(parts)}


def assistant(text: str) -> dict[str, Any]:
    """A model's message, as an example of an answer."""
    return {"role": "assistant", "content": text}


def text_part(text: str) -> dict[str, Any]:
    """Words."""
    return {"type": "text", "text": text}


def video_part(data: bytes, kind: str = "video/mp4") -> dict[str, Any]:
    """A video file inside the request (vLLM's part)."""
    return {"type": "video_url", "video_url": {"url": data_url(data, kind)}}


def image_part(data: bytes, kind: str = "image/png") -> dict[str, Any]:
    """A picture inside the request."""
    return {"type": "image_url", "image_url": {"url": data_url(data, kind)}}


def audio_part(data: bytes, form: str = "wav") -> dict[str, Any]:
    """A sound file inside the request (OpenAI's part)."""
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode("ascii"), "format": form}}


def data_url(data: bytes, kind: str) -> str:
    """A file as a URL that holds it."""
    return f"data:{kind};base64," + base64.b64encode(data).decode("ascii")


def json_schema(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A `response_format` that makes the server answer with JSON of this schema."""
    return {"type": "json_schema", "json_schema": {"name": name, "schema": dict(schema), "strict": True}}


def wav(waveform: np.ndarray) -> bytes:
    """A 16-bit WAV file of a mono waveform, float32 [S] in [-1, 1] at 16 kHz."""
    samples = (np.clip(waveform, -1.0, 1.0) * 32767).round().astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()
