"""A controlled audio-visual emotion world: every cue of every clip is known.

world.py    the emotions, the cues, and which irrelevant cue agrees with which emotion when data are biased
scene.py    one scene as a typed record; sampling with planted biases; its cue inventory
draw.py     a scene's frames
voice.py    a scene's waveform
clips.py    scenes -> mp4 files (H.264 + AAC), clip table, held-out benchmark
questions.py  direct questions, biased and faithful answers, EmoReAlM-style items
base.py     the tiny base model: its recipe and its corpus
base_training.py  its three parts: words, towers, clips
base_towers.py    how the towers learn to point to the words of what is there
base_scores.py    what it perceives, and how it fails
"""
