"""What a response says: the answer it gives, the cues it names and what it does with them, the emotions it claims.

Plain grammar over words, no model: negation with its scope ("no tears or clenched fists", "the fists are not
clenched", "tears are absent"), dismissal ("the red shirt says nothing"), synonyms and light stemming, longest wording
first. It knows nothing of right and wrong; `avere_ray.verdicts` judges what is read here.

    reading     one response, all together
    choices     letters, yes and no
    cues        the cues it names          stances   what it does with them
    claims      the emotions it claims     emotions  which it names
    tokens      words and their stems      words     the word lists; a new synonym goes here
    suppositions  what is only supposed    topic     something else, or nothing at all
    phrases     the same in several words  languages other languages, word by word into English
"""

from avere_ray.responses.choices import is_yes_no, leading_letter, split_choice, yes_or_no
from avere_ray.responses.claims import Claim
from avere_ray.responses.cues import Citation, find_cues, with_aliases
from avere_ray.responses.emotions import emotions_in
from avere_ray.responses.languages import in_english
from avere_ray.responses.reading import Reading, read_response
from avere_ray.responses.stances import Stance
from avere_ray.responses.topic import is_off_topic

__all__ = [
    "Citation",
    "Claim",
    "Reading",
    "Stance",
    "emotions_in",
    "find_cues",
    "in_english",
    "is_off_topic",
    "is_yes_no",
    "leading_letter",
    "read_response",
    "split_choice",
    "with_aliases",
    "yes_or_no",
]
