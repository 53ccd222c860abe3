"""Compares expressions for `ExpressionChecker`, one JSON line in, one out; run as a process of its own.

    in   {"gold": "4*sqrt(3)", "value": "\\\\sqrt{48}"}
    out  {"equal": true}          null where either cannot be parsed

It may hang or die on hostile input (huggingface/Math-Verify#65): the process that started it kills it.
"""

import json
import sys
from typing import Any

PRECISION = 9
"""Digits after the point that must agree: equal closed forms do, and a rounded decimal does not."""


def main() -> None:
    from math_verify import parse, verify

    def parsed(text: str) -> list[Any]:
        # Its own time limit is a signal that an endless big-integer power ignores, so ours, the kill, is the
        # only one.
        return list(parse(f"${text}$", parsing_timeout=None, raise_on_error=False))

    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        gold, value = parsed(request["gold"]), parsed(request["value"])
        equal = None
        if gold and value:
            equal = bool(verify(gold, value, float_rounding=PRECISION, timeout_seconds=None))
        print(json.dumps({"equal": equal}), flush=True)


if __name__ == "__main__":
    main()
