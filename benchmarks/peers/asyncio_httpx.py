"""What a user would write with asyncio and httpx: 16 at a time, no hash, no fsync, no record.

`asyncio_httpx.py API_BASE RUN_IDS FOLDER`; the key is in CAMB_API_KEY.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import httpx


async def download(client: httpx.AsyncClient, url: str, path: Path) -> None:
    """Stream a URL into a file."""
    async with client.stream("GET", url) as response:
        response.raise_for_status()
        with path.open("wb") as file:
            async for chunk in response.aiter_bytes():
                file.write(chunk)


async def main(base: str, count: int, folder: Path) -> None:
    """Ask for five runs at a time; download 16 at a time."""
    slots = asyncio.Semaphore(16)
    key = {"x-api-key": os.environ["CAMB_API_KEY"]}

    async with httpx.AsyncClient(timeout=60) as client, asyncio.TaskGroup() as tasks:

        async def save(run_id: str, url: str) -> None:
            async with slots:
                await download(client, url, folder / f"{run_id}.wav")

        for first in range(1, count + 1, 5):
            run_ids = list(range(first, min(first + 5, count + 1)))
            answer = await client.post(
                f"{base}/text-to-sound-results", json={"run_ids": run_ids}, headers=key
            )
            answer.raise_for_status()
            for run_id, result in answer.json().items():
                tasks.create_task(save(run_id, result["output_url"]))


asyncio.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
