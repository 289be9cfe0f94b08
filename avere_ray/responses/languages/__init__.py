"""Responses in other languages, word by word into English, so that one grammar reads them all.

This is no translation: words that matter for a verdict (emotions, faces, voices, bodies, things, negation, because)
are exchanged, inflections go by the beginning of a word, and offsets lead back to the response. A language is a table
in its own file; a new one is a new file and a line in `TABLES`. Languages without a table are not read.
"""

from avere_ray.responses.languages.gloss import Gloss, in_english

__all__ = ["Gloss", "in_english"]
