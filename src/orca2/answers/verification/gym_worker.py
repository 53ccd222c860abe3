"""Scores answers for `GymScorer`, one JSON line in, one out; run as a process of its own.

    in   {"lineage": "chain_sum size=100 seed=0 index=7"}                  makes the item
    out  {"score": null}
    in   {"lineage": "chain_sum size=100 seed=0 index=7", "answer": "42"}
    out  {"score": 1.0}             null where the scorer raises

It may hang on hostile input: the process that started it kills it.
"""

import contextlib
import json
import sys

import reasoning_gym  # noqa: F401  (imported before the first answer's time runs)

from orca2.rows.collections.gym import entry_of, gym_score


def main() -> None:
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request, score = json.loads(line), None
        # What a scorer prints would be read as an answer.
        with contextlib.redirect_stdout(sys.stderr):
            entry_of(request["lineage"])
            if "answer" in request:
                score = gym_score(request["lineage"], request["answer"])
        print(json.dumps({"score": score}), flush=True)


if __name__ == "__main__":
    main()
