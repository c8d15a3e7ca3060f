"""What a user would write first: the service's official SDK in a loop, each file by httpx.

`sdk_loop.py API_BASE RUN_IDS FOLDER`; the key is in CAMB_API_KEY.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import httpx
from camb.client import CambAI


def main(base: str, count: int, folder: Path) -> None:
    """Ask for five runs, download them one after the other, go on."""
    camb = CambAI(api_key=os.environ["CAMB_API_KEY"], base_url=base)
    with httpx.Client(timeout=60) as client:
        for first in range(1, count + 1, 5):
            run_ids = list(range(first, min(first + 5, count + 1)))
            for run_id, result in camb.text_to_audio.get_text_to_sound_results(
                run_ids=run_ids
            ).items():
                with client.stream("GET", result.output_url) as response:
                    response.raise_for_status()
                    with (folder / f"{run_id}.wav").open("wb") as file:
                        for chunk in response.iter_bytes():
                            file.write(chunk)


main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
