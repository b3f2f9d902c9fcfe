"""The runs below results/ beside the published figures: one page of Markdown, and its figures.

Reads files only, and loads no Theano: published.csv, and run.json, epochs.csv, first_layer.npz and
evaluation.json of each run.
"""
