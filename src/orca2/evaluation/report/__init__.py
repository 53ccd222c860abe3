"""What an evaluation found: figures with intervals, differences, the paper's rows, and the samples to read.

folders of evaluations ──▶ Run ──▶ Summary ──▶ tables ──▶ report.md   report.html   report.svg
                                      └───────────────▶ report.json
"""
