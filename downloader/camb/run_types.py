"""The run types, each with its endpoints: another type is another entry here."""

from __future__ import annotations

from typing import Final, NamedTuple


class RunType(NamedTuple):
    """The paths of one run type below the API's base; `{run_id}` stands for the run id."""

    name: str
    bulk_path: str
    single_path: str


# The bulk endpoints are of one kind; the single-run one is asked for a URL, not for bytes.
RUN_TYPES: Final = {
    entry.name: entry
    for entry in (
        RunType(
            "text-to-sound",
            "text-to-sound-results",
            "text-to-sound-result/{run_id}?output_type=file_url",
        ),
        RunType("tts", "tts-results", "tts-result/{run_id}?output_type=file_url"),
    )
}
DEFAULT_RUN_TYPE: Final = "text-to-sound"
