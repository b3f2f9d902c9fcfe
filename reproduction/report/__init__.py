"""Compare the runs below results/ with the published figures, in pages of Markdown and in figures.

This package reads only files and does not load Theano. The files are published.csv and
unofficial.csv; run.json, epochs.csv, first_layer.npz, evaluation.json and deployed.npz of each run;
and the records of `./reproduce multiplications` and `./reproduce benchmark`.
"""
