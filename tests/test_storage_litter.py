"""What a kill leaves half-written: a folder of nothing else is told from one that holds anything."""

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.storage.litter import is_bare
from pipeline.storage.place import Place


def test_a_folder_that_cannot_be_looked_into_may_hold_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out/closed").mkdir(parents=True)
    assert is_bare(Place.of(str(tmp_path / "out")))
    listed = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert not is_bare(Place.of(str(tmp_path / "out")))
