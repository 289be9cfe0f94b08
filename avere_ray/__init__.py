"""AVEm-DPO for audio-visual language models on Ray: records, maths, and one door to each heavy library.

Importing this package imports nothing heavy (no torch, ray, vllm, transformers, mlflow).
"""

__version__ = "0.1.0"
