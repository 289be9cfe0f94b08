"""Word lists for reading a response: emotions, synonyms, other ways to name a cue, and the grammar's small words."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


EMOTION_WORDS: dict[str, frozenset[str]] = {
    "happiness": _words("happiness happy happily happier joy joyful joyfully joyous cheerful cheerfully cheerfulness "
                        "delighted delight glad pleased elated merry merriment joviality jovial jolly ecstatic "
                        "overjoyed thrilled gleeful glee jubilant exuberant amused amusement upbeat contented bliss "
                        "blissful"),
    "sadness": _words("sadness sad sadly sadder unhappy unhappiness sorrow sorrowful grief grieving grieves miserable "
                      "misery depressed heartbroken gloomy mournful mourning melancholy melancholic dejected downcast "
                      "despondent woeful despair sorrowfully"),
    "anger": _words("anger angry angrily angered angrier mad furious furiously rage enraged raging fury irritated "
                    "irritation annoyed annoyance outraged outrage irate livid wrath wrathful incensed resentful "
                    "indignant indignation hostile hostility aggressive aggression infuriated"),
    "fear": _words("fear afraid fearful fearfully scared frightened fright terrified terror anxious anxiety panicked "
                   "panic dread horrified horror nervous worried terrifying"),
    "surprise": _words("surprise surprised astonished astonishment amazed amazement startled shocked astounded stunned "
                       "flabbergasted"),
    "disgust": _words("disgust disgusted revolted repulsed revulsion repelled nauseated repulsion loathing"),
    "neutral": _words("neutral neutrality calm calmly calmness emotionless unemotional impassive indifferent composed"),
}  # fmt: skip
"""Words that name an emotion: nouns, adjectives and adverbs."""


EQUIVALENT_WORDS = (
    "smile grin beam smiley", "wide broad big bright beaming widely broadly", "brow eyebrow",
    "lower furrow furrowed knit knitted", "cross fold folded", "sigh sighing", "scream shriek screech",
    "raise lift lifted raised up", "wrinkle scrunch crinkle", "droop sag slump hunch", "jumper sweater pullover",
    "bare baring", "press pressed pursed", "gaze look stare", "tone intonation", "teeth tooth", "sing song sung",
    "heavy hard laboured labored", "breathing breath breathe breathes breaths", "weep weeping wept cry crying cried",
    "slam slammed", "whisper whispering", "grey gray", "picture painting", "dance danced", "point pointed",
    "speak talk speech voice voices spoken spoke", "child kid", "rain raindrops raining rainfall",
    "clench ball balled tighten tight", "fist fists", "tear teary tearful teardrop", "laugh laughter giggle chuckle",
    "sob sobbing", "growl snarl", "gasp gasping", "tremble shaky shake shaking quiver quavering tremulous tremor",
    "rapid fast quick", "mouth lip", "droopy downturned", "frighten scared terrified fearful frightened",
    "shirt tshirt", "harsh rough", "lively energetic animated vivid",
    "high shrill", "sudden abrupt", "drum drums drumming", "bird birdsong",
)  # fmt: skip
"""Groups of words that mean the same inside a cue phrase; the first stands for the group."""


PARAPHRASES: dict[str, tuple[str, ...]] = {
    "wide_smile": ("smile",),
    "drooping_mouth": ("mouth turned down", "mouth corners turned down"),
    "lowered_brows": ("frown", "scowl", "brows drawn"),
    "frightened_eyes": ("fear eyes", "panicked eyes"),
    "open_round_mouth": ("open mouth", "round mouth", "jaw dropped"),
    "clapping_hands": ("clapping", "applause", "applauding"),
    "tears": ("tear", "crying", "weeping"),
    "clenched_fists": ("fists",),
    "hands_at_cheeks": ("hands cheeks", "hands face"),
    "raised_palms": ("palms", "raised hands"),
    "slow_low_voice": ("slow voice", "low voice"),
    "loud_harsh_voice": ("loud voice", "harsh voice", "shouting", "yelling"),
    "sudden_high_voice": ("high voice", "sudden voice", "high pitched voice"),
    "rising_high_voice": ("high voice", "rising voice", "high pitched voice"),
    "laughter": ("laughing",),
    "sobbing": ("sobs", "crying", "weeping"),
    "rapid_breathing": ("heavy breathing", "panting", "hyperventilating"),
    "gasp": ("sharp intake breath",),
}
"""Other ways to name a cue, by cue name: content words only, in any order."""


# Words that may stand inside a cue phrase.
FILLERS = _words("a an the his her their its is are was were be being been very so really quite on at in of to from "
                     "with pair looking sounding not never or")  # fmt: skip
# Words that may stand between the words of a cue phrase, beside these.
LOOSE = _words("""
    t my your our one two both all slightly somewhat rather a bit visibly audibly clearly tightly firmly into
"""
               """
    out over across together go goes went gone come comes came get gets got keep keeps kept hold holds held
"""
               "holding has have had make makes making who which that like toward towards by for full can could will "
               "now then still also fully completely constantly continually little much upper corners")  # fmt: skip
ARTICLES = _words("a an the his her their its some any")
# Ends a clause for good.
END = frozenset(".;:!?\n")
# Words that begin a clause that says otherwise.
CONTRAST = _words("but although though however whereas while yet only just instead merely")
# Words that begin a reason or a conclusion.
CAUSE = _words("because since so therefore thus hence")
JOIN = frozenset({",", "and"})
BREAKS = END | CONTRAST | CAUSE
"""Words that end a clause."""
REACH = 100
"""Words before and behind a phrase that are read for what is done with it. Longer clauses are read no further, so that
the time a text takes grows as its length does, whoever wrote it."""
SUBJECTS = _words("i we you he she they it there this that these those person man woman speaker")
VERBS = _words("is are was were see sees hear hears show shows has have sound sounds look looks seem seems say says "
                   "tell tells do does can mean means indicate indicates suggest suggests express expresses reveal "
                   "reveals convey conveys prove proves appear appears feel feels make makes notice")  # fmt: skip
# Words that negate what follows.
NEGATORS = _words(
    "no not never without neither nor none nothing nobody lack lacks lacking nowhere hardly barely scarcely"
)
# Negators of one noun phrase only.
DETERMINERS = frozenset({"no", "without"})
# Words that mention a thing without relying on it.
CONCESSIONS = frozenset({"despite", "notwithstanding"})
# Words that set a thing aside.
SKIPPERS = frozenset(
    {
        "regardless_of",
        "ignore",
        "ignoring",
        "disregard",
        "disregarding",
        "leaving",
        "forget",
        "fooled",
        "misled",
        "deceived",
    }
)
# Predicates of things that are not there.
ABSENT = _words("absent missing nowhere lacking invisible inaudible nonexistent")
# Predicates of things that are there; negated, they deny.
PERCEIVED = _words("visible present there seen heard shown audible appear exist found displayed in here "
                       "noticeable apparent")  # fmt: skip
# Predicates of things that do not matter.
EMPTY = _words("irrelevant unrelated meaningless insignificant nothing coincidental incidental accidental "
                   "unimportant clothing decoration scenery decorative immaterial")  # fmt: skip
# Predicates of evidence; negated, they dismiss.
LINKS = _words("show mean tell say matter prove indicate suggest express reveal convey contribute support reflect "
                   "relate count explain signal sign evidence related relevant indicator connected linked help because "
                   "bearing link connection relation meaning influence role clue indication point imply cause play "
                   "have affect")  # fmt: skip
# Runs of words that act as one.
IDIOMS: dict[tuple[str, ...], str] = {
    ("no", "doubt"): "indeed", ("without", "doubt"): "indeed", ("without", "a", "doubt"): "indeed",
    ("without", "question"): "indeed", ("no", "question"): "indeed", ("no", "wonder"): "indeed",
    ("not", "only"): "both", ("not", "just"): "both", ("not", "merely"): "both", ("no", "longer"): "not",
    ("instead", "of"): "without", ("rather", "than"): "without", ("lack", "of"): "without",
    ("absence", "of"): "without", ("free", "of"): "without", ("fail", "to"): "not", ("fails", "to"): "not",
    ("not", "because", "of"): "regardless_of", ("not", "due", "to"): "regardless_of",
    ("apart", "from"): "regardless_of", ("aside", "from"): "regardless_of", ("regardless", "of"): "regardless_of",
    ("irrespective", "of"): "regardless_of", ("not", "without"): "indeed", ("not", "deny"): "indeed",
    ("no", "denying"): "indeed", ("not", "be", "denied"): "indeed", ("not", "be", "ignored"): "indeed",
    ("not", "absent"): "present", ("not", "missing"): "present", ("not", "irrelevant"): "relevant",
    ("as", "if"): "like", ("as", "though"): "like", ("because", "of"): "because_of", ("due", "to"): "because_of",
    ("not", "really"): "not",
    ("points", "to"): "indicates", ("point", "to"): "indicates", ("pointing", "to"): "indicates",
    ("points", "that", "way"): "indicates", ("points", "towards"): "indicates", ("point", "towards"): "indicates",
    ("pointing", "towards"): "indicates", ("nothing", "but"): "indeed", ("anything", "but"): "not",
    ("far", "from"): "not", ("not", "stop"): "indeed",
    ("not", "help"): "indeed", ("not", "hide"): "indeed", ("fails", "to", "hide"): "indeed",
    ("fail", "to", "hide"): "indeed", ("failed", "to", "hide"): "indeed", ("failed", "to"): "not",
    ("devoid", "of"): "without", ("none", "of"): "no", ("leaving", "aside"): "regardless_of",
    ("setting", "aside"): "regardless_of", ("putting", "aside"): "regardless_of", ("never", "mind"): "regardless_of",
    ("no", "one"): "nobody", ("not", "at", "all"): "not", ("not", "due"): "not", ("as", "well", "as"): "and",
    ("in", "spite", "of"): "despite",
}  # fmt: skip
FACE = _words("face facial expression")
VOICE = _words("voice vocal speech tone")
SEEING = _words("look looks looking see sees visually visible")
HEARING = _words("sound sounds sounding hear hears audible")
# People, as in "the man in the red shirt".
REFERENTS = _words("person man woman girl boy lady guy speaker someone")
# Words that are no evidence by themselves.
GENERIC = (FILLERS | ARTICLES | SUBJECTS | VERBS | FACE | VOICE | REFERENTS | _words(
    "body eyes mouth hands clip video audio sound emotion emotions way how what both indeed clear clearly also too not "
    "no nothing much evidence sign signs cue cues that which"))  # fmt: skip
