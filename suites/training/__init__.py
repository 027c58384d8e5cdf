"""The training suite: real data, small models, and slices of settings that answer questions.

`declared` holds what the harness reads: WORKLOADS, SLICES and ADVICE. All data ship inside
scikit-learn or Python itself; nothing is downloaded.
"""
