"""Folders that may not be entered, also for a user whom permissions do not bind."""

import os


def close(monkeypatch, part: str) -> None:
    """Refuse to look at any path that contains the part."""
    stat = os.stat

    def refusing(path, *args, **keys):
        if part in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *args, **keys)

    monkeypatch.setattr(os, "stat", refusing)
