"""Artifacts of an offline run, whose files its log names by their absolute paths."""

from pathlib import Path

from fluoroscope.tracking.offline_log import parse


def placed(record: bytes, staging: Path) -> bytes | None:
    """An artifact's record with the paths of its files on this machine.

    Args:
        staging: where they lie if the run's folder was moved, under the names they had.

    Returns:
        None if one of them is not there; the client would lose the artifact and not tell.
    """
    parsed = parse(record)
    for part in parsed.artifact.manifest.contents:
        path = Path(part.local_path)
        if not part.local_path or path.is_file():
            continue
        if not (staging / path.name).is_file():
            return None
        part.local_path = str(staging / path.name)
    return parsed.SerializeToString()
