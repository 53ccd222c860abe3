"""What the HTML pages have in common: one file each, which loads nothing and runs no script but its own."""

import base64
import hashlib
from collections.abc import Sequence


def content_policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """The Content-Security-Policy of a page with these inline scripts and style sheets, each exactly as it is there.

    https://www.w3.org/TR/CSP3/: by hash, so that text which became markup by a fault could still not run or load.
    """
    return f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; form-action 'none'"


def _hashes(texts: Sequence[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
