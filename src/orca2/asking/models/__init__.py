"""The kinds of teacher; `conf/teacher/` names one per file.

http.py       any OpenAI-compatible server: hosted, vLLM, `transformers serve`     (extra: teacher)
batch.py      a provider's Batch API, at its discount                              (extra: teacher)
local.py      a Hugging Face model in this process
vllm.py       vLLM's offline engine in this process                                (its own environment)
rule.py       rules that solve the generated tasks; no model
replay.py     the answers of another run's cache
gathering.py     collects single requests into batches for batch.py, local.py and vllm.py
"""
