"""A controlled audio-visual emotion world: every cue of every clip is known.

world.py    the emotions, the cues, and which irrelevant cue agrees with which emotion when data are biased
scene.py    one scene as a typed record; sampling with planted biases; its cue inventory
draw.py     a scene's frames
voice.py    a scene's waveform
clips.py    scenes -> mp4 files (H.264 + AAC), clip table, held-out benchmark
questions.py  direct questions, biased and faithful answers, EmoReAlM-style items
base.py     the tiny base model: recipe, training, manifest
"""
