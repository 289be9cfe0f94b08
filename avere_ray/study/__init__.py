"""A comparison of methods under control: same base, same pairs, same number of updates, worlds whose cues are known.

    methods   what each method is: a loss, and which rejects it sees
    probes    what is asked besides the benchmark: perception of single cues, and descriptions
    results   figures of every method and world -> means, intervals, and tests that pair questions
    seeds     what is compared with what, and tests over seeds
    chosen    what the losses were made of, and whether the search ended at the edge of its grid
    writing   the result as Markdown and JSON
    figures   the result as pictures

Pure functions over records and figures; `jobs.reproduce` runs the study.
"""

from avere_ray.study.methods import BASE, METHODS, Method

__all__ = ["BASE", "METHODS", "Method"]
