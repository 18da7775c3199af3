"""The log of a build: every figure of a training, as it comes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


def log(folder: Path, **figures: Any) -> None:
    """Print figures and append them to the log of a build, a JSON object a line."""
    line = json.dumps({"time": time.strftime("%H:%M:%S"), **figures})
    print(line, flush=True)
    with (folder / "log.jsonl").open("a") as file:
        file.write(line + "\n")
