"""Made-up review queues for the tests."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from edgemod.policy import load_policy
from edgemod.review import PENDING, export
from edgemod.run_folder import FORMAT

MALICIOUS: Final = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">",
    "</script><script>document.title='owned'</script> <!-- {{style}} {{data}}",
    '=HYPERLINK("http://a.example","click") +1 @SUM(A1)',
    "\x1b[31mred\x1b[0m \x1b]0;owned\x07 and \x00 and \x9b2J",
    "right to left: \u202egnp.exe\u202c and \u2066isolated\u2069, line\u2028separator\u2029",
    "javascript:alert(1) '\"><svg/onload=document.title='owned'> &lt;b&gt; \\u003c",
)
"""Texts that would do harm in a page, a spreadsheet or a terminal that is careless."""

TEMPLATE: Final = (
    "Claim your prize of 500 dollars now at http://a.example/win before it is gone, code "
)


def rows(n: int = 12) -> list[dict[str, Any]]:
    """Rows of a queue: ordinary ones, ``MALICIOUS`` and five of one template."""
    severities = {"toxic": 2, "hate": 4, "threat_violence": 5, "spam_scam": 2}
    names = [*severities]
    texts = [f"You say that garden {i} is worthless. I will find you, idiot." for i in range(n)]
    texts += [*MALICIOUS, *(TEMPLATE + str(i) for i in range(5))]
    made = []
    for i, text in enumerate(texts):
        category = names[i % 4] if i < n + len(MALICIOUS) else "spam_scam"
        p = round(0.9 - 0.7 * i / len(texts), 3)
        made.append(
            {
                "priority": 1 - i / len(texts),
                "record_id": f"r{i}",
                "source": "dump.parquet",
                "source_row": 3 * i,
                "text": text,
                "context": f"What answers <b>this</b> {i}?" if i % 3 == 0 else None,
                "time": "2026-01-02T03:04:05",
                "category": category,
                "severity": severities[category],
                "definition": f"What {category} means.",
                "reason": "model: between the thresholds",
                "verdict": "review",
                "stage": "model",
                "status": "ok",
                f"p_{category}": p,
                "p_any": p,
                "inclusion_probability": 1.0,
                "inclusion_floor": 1.0,
                "size": 2048,
            }
        )
    return made


def write_queue(out: Path, made: Sequence[dict[str, Any]] | None = None) -> Path:
    """The folder of a complete run that has nothing but a queue."""
    out.mkdir(mode=0o700)
    part = out / "part.parquet"
    pq.write_table(
        pa.Table.from_pylist([*(rows() if made is None else made)], schema=PENDING), part
    )
    export([part], out / "review")
    os.unlink(part)
    others = ("conversation", "id", "thread", "author", "time", "context", "stratum")
    plan = {
        "format": FORMAT,
        "code": "",
        "input": "a" * 64,
        "columns": {"text": ["text"], **dict.fromkeys(others)},
        "policy": load_policy().fingerprint,
        "overlay": None,
        "chunk_rows": 4096,
        "keep_scores": False,
        "shard": None,
    }
    state = {"status": "complete", "plan": plan, "inputs": [], "chunks": 0, "rows": [0, None]}
    (out / "run.json").write_text(json.dumps(state))
    return out
