"""Judges beside the rules of `avere_ray.verdicts`, and how far any of them can be trusted.

labelled    responses with the label a person gave them; the shipped set
agreement   accuracy, precision and recall, confusion, kappa
order       does a verdict depend on the order of choices, sentences or responses
"""
