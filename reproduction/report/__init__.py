"""The runs below results/ beside the published figures: pages of Markdown, and figures.

Reads files only, and loads no Theano: published.csv and unofficial.csv; run.json, epochs.csv,
first_layer.npz, evaluation.json and deployed.npz of each run; the records of `./reproduce
multiplications` and `./reproduce benchmark`.
"""
