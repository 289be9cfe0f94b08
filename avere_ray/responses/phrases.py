"""Other ways to say the same in several words, and words that name an expression by themselves.

A cue whose words hold one member of a group may be named by any other member. Members are content words in any order;
they are compared in the form of `tokens.canonical`, so inflections and the groups of `words.EQUIVALENT_WORDS` need not
be listed again.
"""

PHRASES: tuple[tuple[str, ...], ...] = (
    ("dropped jaw", "jaw falls", "mouth falls open", "gaping mouth", "mouth agape", "mouth hangs open", "open-mouthed"),
    ("backing away", "steps back", "moves backwards", "moves back", "retreats", "recoils", "shrinks back"),
    ("crossed arms", "arms across chest"),
    ("lowered gaze", "looks down", "eyes cast down", "downcast eyes", "looks at floor", "avoids eye contact"),
    ("slumped shoulders", "hunched shoulders", "sagging shoulders", "drooping shoulders", "slouched"),
    ("pointing finger", "points finger", "points at", "index finger", "pointing"),
    ("raised voice", "loud voice", "shouting", "yelling", "talks loud", "speaks loud", "loud tone"),
    ("hand over mouth", "covers mouth", "hands mouth"),
    ("cold sweat", "sweating", "perspiring", "beads sweat"),
    ("turned-away head", "turns head away", "turns away", "looks away", "averts gaze"),
    ("blank stare", "stares blank", "vacant look", "empty stare", "vacant stare"),
    ("monotone voice", "monotone", "monotonous", "flat tone", "flat voice", "droning"),
    ("even tone", "steady voice", "even voice", "calm tone", "calm voice"),
    ("relaxed face", "relaxed features", "relaxed expression", "calm face"),
    ("steady gaze", "steady look", "steady eyes"),
    ("tight lips", "pressed lips", "lips pressed together", "pursed lips", "lips pressed"),
    ("wrinkled nose", "scrunched nose", "crinkled nose", "nose wrinkles"),
    ("curled lip", "lip curls", "curled upper lip"),
    ("clenched jaw", "gritted teeth", "clenched teeth", "jaw set"),
    ("bared teeth", "shows teeth"),
    ("trembling voice", "voice cracks", "voice breaks", "unsteady voice", "wavering voice"),
    ("rapid breathing", "hyperventilating", "panting", "short breath", "out breath"),
    ("heavy breathing", "panting", "hard breathing", "laboured breathing", "labored breathing"),
    ("clapping hands", "clapping", "applause", "applauding"),
    ("teary eyes", "tears", "eyes full tears", "watery eyes", "moist eyes", "wet eyes", "eyes brimming", "eyes well up",
     "crying", "weeping"),
    ("frown", "scowl", "lowered brows", "brows pulled together", "brows pulled down", "brows drawn together",
     "brows contracted", "glower"),
    ("raised eyebrows", "brows up", "brows shoot up", "brows arched", "lifted eyebrows"),
    ("wide eyes", "eyes wide open", "big eyes", "eyes widen", "widened eyes", "bulging eyes"),
    ("drooping mouth", "mouth corners down", "mouth corners downward", "mouth turned down", "mouth points downward",
     "downturned mouth"),
    ("wide smile", "smile ear ear", "smiling face"),
    ("sobbing", "crying", "weeping"),
    ("slow low voice", "slow speech", "slow voice", "low voice", "speaks slow", "talks slow", "subdued voice"),
    ("lively voice", "lively tone", "animated voice", "talks lively", "speaks lively"),
    ("trembling hands", "hands shake", "unsteady hands"),
    ("clenched fists", "fists", "hands balled"),
    ("scream", "shriek", "screech"),
    ("nervous stutter", "stutters", "stammers"),
    ("sudden exclamation", "exclaims", "cries out"),
    ("coffee mug", "cup coffee", "coffee cup", "mug"),
    ("barking dog", "dog barks", "bark"),
    ("ticking clock", "clock ticks", "ticking"),
    ("running tap", "water runs", "tap runs", "running water", "dripping tap"),
    ("clinking glasses", "glasses clink", "clink"),
    ("traffic noise", "traffic", "sound cars"),
    ("steaming pot", "pot", "cooking pot"),
    ("leather jacket", "jacket"), ("white coat", "coat"), ("grey suit", "gray suit", "suit"),
    ("party hat", "hat"), ("wrapped box", "gift box", "present box", "box", "parcel"), ("studio desk", "desk"),
    ("striped sweater", "stripes"), ("street lamp", "streetlight", "street light"), ("drum music", "drums", "drumming"),
    ("piano music", "piano"), ("flute music", "flute"),
    ("ringing phone", "phone rings", "telephone"), ("fluorescent lights", "fluorescent lighting", "lighting"),
    ("beeping machines", "beeps", "beeping", "machines"), ("birds", "birdsong", "chirping", "bird sings"),
    ("rain", "raindrops", "rainfall"), ("dim lighting", "dim light", "darkness"),
)  # fmt: skip

EXPRESSIONS = frozenset(
    "smile smirk frown scowl sneer pout grimace wince glare tear sob weep cry laugh giggle chuckle gasp sigh scream "
    "shriek groan moan growl whimper sniffle yell shout stutter stammer sing hum cheer clap dance shiver shudder nod "
    "shrug yawn blush whisper gag apron balloon bookshelf headphone whiteboard umbrella necklace scarf".split()
)
"""Words that name a cue of several words ("a broad grin", "a deep sigh") by themselves."""

SIMPLE_MODIFIERS = frozenset(
    "wide deep bright loud soft long short faint slight cheerful nervous heavy sudden small big sad happy angry sharp "
    "quiet gentle warm forced tearful beaming bitter low high audible visible".split()
)
"""What may be left out beside such a word."""
