"""Write files and folders so that an interruption leaves what was there before."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["beside", "new_folder", "write_text"]


@contextmanager
def beside(folder: Path, write: Callable[[Path], Any]) -> Iterator[Path]:
    """Write a file beside its place, to the disk; remove it unless it was moved away."""
    handle, name = tempfile.mkstemp(prefix=".part-", dir=folder)
    os.close(handle)
    path = Path(name)
    try:
        write(path)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        path.chmod(0o644)  # mkstemp gives 0600
        yield path
    finally:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole: complete on the disk before it takes its place."""
    with beside(path.parent, lambda part: part.write_text(text, encoding="utf-8")) as part:
        os.replace(part, path)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `folder` once the block ends well.

    Made beside its place; what stood there is removed, or put back where the block fails.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    part.chmod(0o755)  # mkdtemp gives 0700
    old = part.with_name(f"{part.name}-old")
    try:
        yield part
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
